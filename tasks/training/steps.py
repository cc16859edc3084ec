"""The record of a training, a row a step: what the step came to, and what it took.

The first columns are the same however often a training was broken off; the others were measured by the rank
that writes, and rows made before a resume stay as they were. Imports no torch: the parent writes the table.
"""

import pyarrow as pa

Row = list[float | None]

STEPS = "steps.parquet"
"""Where it stands in a training's node."""

LEARNED = ("step", "tokens", "loss", "learning_rate", "grad_norm")
"""Steps done, tokens seen by then, the loss before the step, and its gradient's norm before it is clipped."""
_MEMORY = ("allocated_bytes", "reserved_bytes", "rss_bytes")
MEASURED = ("tokens_per_s", "mfu", *_MEMORY, "at", "gpu_joules", "host_joules")
"""Of all ranks together; of the peak (`measure.py`); the device's memory: most in tensors during the step,
and held by the allocator; the process's own on the host; seconds since 1970; the energy of all GPUs, and of
the machine (`tasks/runtime/energy.py`). None: no such device, or nothing tells."""

_INTEGERS = {"step", "tokens", *_MEMORY}


def learned(rows: list[Row]) -> list[Row]:
    """What the steps came to, without what was measured."""
    return [row[: len(LEARNED)] for row in rows]


def steps_table(rows: list[Row]) -> pa.Table:
    """All columns; a row that has no measurements has nulls there."""
    names = [*LEARNED, *MEASURED]
    types = [pa.int64() if name in _INTEGERS else pa.float64() for name in names]
    columns = ([row[at] if at < len(row) else None for row in rows] for at in range(len(names)))
    return pa.table(
        [pa.array(values, kind) for values, kind in zip(columns, types, strict=True)], names=names
    )
