"""A Hub folder with a small PIQA, hand-made, in the columns of the real one."""

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
    data = root / "baber" / "piqa" / "data"
    data.mkdir(parents=True)
    (data.parent / "README.md").write_text(README)
    rows = [
        {
            "goal": f"How do I reach shelf number {number}?",
            "sol1": f"Take a {TOOLS[number % 5]} and climb {number} steps.",
            "sol2": f"Shout at the {TOOLS[number % 5]} until it moves {number} times.",
            "label": number % 2,
        }
        for number in range(items)
    ]
    pq.write_table(pa.Table.from_pylist(rows[:2]), data / "train-00000-of-00001.parquet")
    pq.write_table(pa.Table.from_pylist(rows), data / "validation-00000-of-00001.parquet")
    return root
