"""Injected near-duplicates with known Jaccard similarity: found where alike, kept where not."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.dedup.config import DedupConfig
from tasks.dedup.exact import buffers, exact_hashes
from tasks.dedup.index import Index
from tasks.dedup.lsh import KEPT
from tasks.dedup.minhash import signatures
from tests.oracles.minhash import shingle_hashes


def jaccard(one: str, other: str) -> float:
    """Of the shingles themselves."""
    a, b = set(shingle_hashes(one)), set(shingle_hashes(other))
    return len(a & b) / len(a | b)


@pytest.mark.slow
def test_near_duplicates_are_found_and_strangers_kept(data_folder: Path) -> None:
    index = Index(128, DedupConfig())
    judged: dict[str, str | None] = {}
    truth: dict[str, dict[str, Any]] = {}
    for file in sorted((data_folder / "near_duplicates").glob("*.parquet")):
        for batch in pq.ParquetFile(file).iter_batches(1000):
            offsets, data = buffers(batch["text"])
            exact = np.frombuffer(exact_hashes(offsets, data).tobytes(), "<u8").reshape(-1, 2)
            slots = signatures(offsets, data)
            slots.flags.writeable = False
            found = index.resolve(slots, exact, batch["id"])
            assert found.duplicate_of.is_null().equals(pa.array(found.verdicts == KEPT))
            judged.update(zip(batch["id"].to_pylist(), found.duplicate_of.to_pylist(), strict=True))
            for row, text in zip(batch.drop_columns(["text"]).to_pylist(), batch["text"], strict=True):
                truth[row["id"]] = row | {"text": text}
    gone = {name: original for name, original in judged.items() if original is not None}
    recall = {}
    for name, low, high in (("alike", 0.85, 1.01), ("close", 0.8, 0.85)):
        pairs = [(key, row["parent"]) for key, row in truth.items() if low <= (row["true_j"] or 0.0) < high]
        recall[name] = sum(key in gone or parent in gone for key, parent in pairs) / len(pairs)
        assert len(pairs) > 100
    # Outside the injected groups there are real copies too ("Parameters:" and "parameters"): those are right.
    false = [
        name
        for name, original in gone.items()
        if truth[name]["dup_group"] in (-1, None) or truth[name]["dup_group"] != truth[original]["dup_group"]
        if jaccard(truth[name]["text"].as_py(), truth[original]["text"].as_py()) < 0.7
    ]
    assert recall["alike"] >= 0.999
    assert recall["close"] >= 0.98
    assert len(false) <= 0.001 * len(gone)
