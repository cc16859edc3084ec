"""A Hub folder with a small PIQA, hand-made, in the columns of the real one."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

README = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: validation
    path: data/validation-*
---
"""

TOOLS = ["hammer", "spoon", "rope", "brush", "ladder"]


def small_piqa(root: Path, *, items: int) -> Path:
    """Lay out baber/piqa under `root`."""
    rows = [
        {
            "goal": f"How do I reach shelf number {number}?",
            "sol1": f"Take a {TOOLS[number % 5]} and climb {number} steps.",
            "sol2": f"Shout at the {TOOLS[number % 5]} until it moves {number} times.",
            "label": number % 2,
        }
        for number in range(items)
    ]
    return piqa(root, rows)


def piqa(root: Path, rows: Sequence[dict[str, str | int]]) -> Path:
    """Lay out baber/piqa of these items (goal, sol1, sol2, label) under `root`; the train split differs."""
    data = root / "baber" / "piqa" / "data"
    data.mkdir(parents=True)
    (data.parent / "README.md").write_text(README)
    train = [{**row, "goal": f"Once more: {row['goal']}"} for row in rows[:2]]
    pq.write_table(pa.Table.from_pylist(train), data / "train-00000-of-00001.parquet")
    pq.write_table(pa.Table.from_pylist(rows), data / "validation-00000-of-00001.parquet")
    return root
