"""The flows: order, fan-out and budget decisions; no computation."""
