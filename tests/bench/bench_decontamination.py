"""MB/s of looking for a benchmark's 13-grams, on one core; and what is found, by benchmark.

    python tests/bench/bench_decontamination.py STORE [FILE.parquet ...]

STORE holds a `benchmarks` node, as a run with `dedup.decontaminate` leaves it; its newest is taken. CPU time,
beside that of the signatures of the same text.
"""

import argparse
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.dedup.decontaminate import Benchmarks, benchmarks_of
from tasks.dedup.exact import buffers
from tasks.dedup.minhash import signatures
from tasks.store.paths import Store

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "edu"


def newest(store: Path) -> Benchmarks:
    """The items of the newest `benchmarks` node, their table filled in the time that is told."""
    nodes = sorted(store.glob("benchmarks/*/*/manifest.json"), key=lambda file: file.stat().st_mtime)
    if not nodes:
        raise SystemExit(f"{store} holds no benchmarks node")
    started = time.process_time()
    found = benchmarks_of(Store(str(store)), str(nodes[-1].parent.relative_to(store)))
    seconds, ngrams = time.process_time() - started, found.ngrams
    num_bytes = ngrams.keys.nbytes + ngrams.numbers.nbytes + ngrams.marks.nbytes
    held = f"{ngrams.num_ngrams:,} 13-grams in {num_bytes / 1e6:.0f} MB"
    print(f"{len(found.items):,} items, {held}: {seconds:.2f} s")
    return found


def main() -> None:
    """Read the files one by one, look, sign, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("files", nargs="*", type=Path, default=sorted(DATA.glob("*.parquet")))
    arguments = parser.parse_args()
    if not arguments.files:
        parser.error(f"{DATA} holds no Parquet; name files")
    benchmarks = newest(arguments.store)
    seconds = {"looking": 0.0, "signing": 0.0}
    counts: Counter[str] = Counter()
    num_bytes = documents = 0
    benchmarks.ngrams.find(pa.array(["warm"]))
    signatures(*buffers(pa.array(["warm"])))
    for file in arguments.files:
        for batch in pq.ParquetFile(file).iter_batches(columns=["text"]):
            text = batch["text"]
            started = time.process_time()
            shared, items = benchmarks.ngrams.find(text)
            looked = time.process_time()
            signatures(*buffers(text))
            seconds["looking"] += looked - started
            seconds["signing"] += time.process_time() - looked
            counts.update(benchmarks.names.take(pa.array(items[np.flatnonzero(shared)])).to_pylist())
            num_bytes, documents = num_bytes + text.nbytes, documents + len(text)
    for what, spent in seconds.items():
        print(f"{what}: {num_bytes / 1e6 / spent:.0f} MB/s ({num_bytes / 1e6:.0f} MB)")
    print(f"{counts.total()} of {documents:,} documents: {dict(counts.most_common())}")


if __name__ == "__main__":
    main()
