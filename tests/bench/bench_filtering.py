"""Megabytes a second of the repetition metrics: compiled, and the plain version, in one run on one core.

python -m tests.bench.bench_filtering ../shared/data/edu/edu-00000.parquet
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.filtering.config import FilteringConfig
from tasks.filtering.repetition import measure_repetition
from tasks.filtering.rules import measure
from tasks.text.columns import text_buffers
from tests.oracles.repetition import repetition

PLAIN_DOCUMENTS = 400


def rate(column: pa.Array, work: Callable[[], object], times: int = 3) -> float:
    """Megabytes of text in a second of this thread, best of `times`."""
    seconds = []
    for _ in range(times):
        start = time.thread_time()
        work()
        seconds.append(time.thread_time() - start)
    return len(text_buffers(column)[1]) / min(seconds) / 1e6


def main(file: Path) -> None:
    """Print both rates and their ratio."""
    table = pq.read_table(file, columns=["text"])
    column = table["text"].drop_null().combine_chunks().cast(pa.large_string())
    offsets, data = text_buffers(column)
    measure(column.slice(0, 1), FilteringConfig.model_validate({"quality": True}))  # compile
    compiled = rate(column, lambda: measure_repetition(offsets, data))
    default = rate(column, lambda: measure(column, FilteringConfig()))
    full = rate(column, lambda: measure(column, FilteringConfig.model_validate({"quality": True})))
    few = column.slice(0, PLAIN_DOCUMENTS)
    texts = few.to_pylist()
    plain = rate(few, lambda: [repetition(text) for text in texts], times=1)
    same = np.array_equal(measure_repetition(*text_buffers(few)), [repetition(text) for text in texts])
    print(f"{file}: {len(column)} documents, {len(data) / 1e6:.1f} MB")
    print(f"repetition, compiled  {compiled:8.1f} MB/s")
    print(f"repetition, plain     {plain:8.2f} MB/s  ({len(texts)} documents; equal: {same})")
    print(f"ratio                 {compiled / plain:8.0f}")
    print(f"all default metrics   {default:8.1f} MB/s")
    print(f"with quality metrics  {full:8.1f} MB/s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
