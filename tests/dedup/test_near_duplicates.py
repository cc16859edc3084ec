"""Injected near-duplicates with known Jaccard similarity: found where alike, kept where not."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tasks.dedup.config import DedupConfig
from tasks.dedup.exact import buffers, exact_hashes
from tasks.dedup.index import Index
from tasks.dedup.minhash import signatures
from tests.oracles.minhash import words

BARS = {"J >= .85": (0.85, 1.01, 0.999), ".77 <= J <= .83": (0.77, 0.831, 0.98)}
"""From, below, and the recall that is promised, at the default threshold of .7."""

FALSE = 0.55
"""Who is no more alike than this to the document it is said to copy is removed falsely."""


def jaccard(one: str, other: str) -> float:
    """Of the shingles themselves, as words: no hash in between."""
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


@functools.cache
def shingles(text: str) -> set[tuple[str, ...]]:
    found = words(text)
    return set(zip(*(found[at:] for at in range(5)), strict=False)) or {tuple(found)}


def judged(file: Path, index: Index) -> dict[str, dict[str, Any]]:
    """The documents of a shard by id, with what was decided."""
    documents = {}
    for batch in pq.ParquetFile(file).iter_batches(1000):
        offsets, data = buffers(batch["text"])
        exact = np.frombuffer(exact_hashes(offsets, data).tobytes(), "<u8").reshape(-1, 2)
        slots = signatures(offsets, data)
        slots.flags.writeable = False
        found = index.resolve(slots, exact, batch["id"])
        for row, original in zip(batch.to_pylist(), found.duplicate_of.to_pylist(), strict=True):
            documents[row["id"]] = row | {"original": original}
    return documents


@pytest.mark.slow
def test_recall_and_false_removals_are_within_the_bars(
    data_folder: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    """A pair is found when one of the two is gone; a removal is judged by the text it is named after."""
    index = Index(128, DedupConfig())
    documents: dict[str, dict[str, Any]] = {}
    for file in sorted((data_folder / "near_duplicates").glob("*.parquet")):
        documents |= judged(file, index)
    gone = {name for name, row in documents.items() if row["original"] is not None}
    for name, (low, high, least) in BARS.items():
        pairs = [
            (key, row["parent"]) for key, row in documents.items() if low <= (row["true_j"] or 0.0) < high
        ]
        recall = sum(key in gone or parent in gone for key, parent in pairs) / len(pairs)
        record_testsuite_property(f"recall of {len(pairs)} pairs at {name}", recall)
        assert len(pairs) > 200
        assert recall >= least
    alike = [jaccard(documents[key]["text"], documents[documents[key]["original"]]["text"]) for key in gone]
    false = sum(similarity < FALSE for similarity in alike)
    record_testsuite_property(f"false removals of {len(gone)}, the least alike {min(alike):.3f}", false)
    assert len(gone) > 1_000
    assert false <= 0.001 * len(gone)
