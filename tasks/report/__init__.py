"""The evidence of a run: HTML, Markdown and JSON."""
