"""What the index costs at scale: documents a second, memory and disk a document, and whether it is right.

    python tests/bench/bench_index.py [--docs 1000000] [--memory-mb 1024] [--folder DIR]

Signatures are drawn, batch by batch: strangers; every 20th document a near copy of a stranger of an earlier
batch, with 20 of 128 slots changed; every 50th a page of one template, alike by .625 to all its kin. Every
copy must be dropped and name its original, and nothing else may go. CPU time of the index alone; memory is
that of the process, after each batch: anonymous, and pages of files, which the system takes back when it
wants them. The peak is the process' own, everything included.
"""

import argparse
import re
import resource
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.dedup.config import DedupConfig
from tasks.dedup.index import BATCH_ROWS, MEMORY_BYTES, Index
from tasks.dedup.lsh import KEPT

COPIES, TEMPLATE = slice(0, None, 20), slice(1, None, 50)


def strangers(batch: int) -> NDArray[np.uint32]:
    """(BATCH_ROWS, 128), with the template's pages in their places."""
    drawn = np.random.default_rng(batch).integers(0, 2**32, (BATCH_ROWS, 128), dtype=np.uint32)
    drawn[TEMPLATE, :80] = np.arange(80)
    return drawn


def documents(batch: int) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Signatures of a batch, and for each document the number of its original, -1 where it is none's copy."""
    drawn, originals = strangers(batch), np.full(BATCH_ROWS, -1)
    if batch:
        earlier = batch // 2
        originals[COPIES] = earlier * BATCH_ROWS + np.arange(BATCH_ROWS)[COPIES] + 2  # 2, 22, ...: strangers
        own = drawn[COPIES, :20].copy()
        drawn[COPIES] = np.roll(strangers(earlier), -2, axis=0)[COPIES]
        drawn[COPIES, 5::6][:, :20] = own
    return drawn, originals


def resident() -> NDArray[np.int64]:
    """Bytes of anonymous memory and of pages of files."""
    status = Path("/proc/self/status").read_text()
    return np.array(
        [int(re.findall(rf"{kind}:\s+(\d+)", status)[0]) * 1024 for kind in ("RssAnon", "RssFile")]
    )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--docs", type=int, default=1_000_000)
    parser.add_argument("--memory-mb", type=int, default=MEMORY_BYTES >> 20)
    parser.add_argument("--folder", type=Path, default=None)
    args = parser.parse_args()
    Index(128, DedupConfig()).resolve(strangers(0)[:9], np.zeros((9, 2), np.uint64), pa.array(["0"] * 9))
    start = peak = resident()
    index = Index(128, DedupConfig(), memory_bytes=args.memory_mb << 20, folder=args.folder)
    batches, spent, last, dropped, wrong = -(-args.docs // BATCH_ROWS), 0.0, 0.0, 0, 0
    for batch in range(batches):
        drawn, originals = documents(batch)
        numbers = np.arange(batch * BATCH_ROWS, (batch + 1) * BATCH_ROWS)
        exact = np.random.default_rng([1, batch]).integers(0, 2**64, (BATCH_ROWS, 2), dtype=np.uint64)
        ids = pa.array(numbers).cast(pa.string())
        began = time.process_time()
        found = index.resolve(drawn, exact, ids)
        spent += time.process_time() - began
        named = found.duplicate_of.cast(pa.int64()).fill_null(-1).to_numpy()
        wrong += int((named != originals).sum())
        dropped += int((found.verdicts != KEPT).sum())
        peak = np.maximum(peak, resident())
        if (batch + 1) % max(1, batches // 10) == 0:
            rate = BATCH_ROWS * max(1, batches // 10) / (spent - last)
            print(f"  {index.num_docs:>12,} kept, {rate:,.0f} documents/s", flush=True)
            last = spent
    count = batches * BATCH_ROWS
    anonymous, pages = (peak - start) / 1e6
    print(f"{count:,} documents in {spent:.1f} s, {count / spent:,.0f}/s; {dropped:,} dropped, {wrong} wrong")
    print(f"{index.num_compared / count:.1f} pairs compared a document")
    print(f"buckets in memory {index.memory_bytes / 1e6:,.0f} MB; most anonymous memory {anonymous:,.0f} MB")
    print(f"most pages of files {pages:,.0f} MB; files {index.file_bytes / 1e6:,.0f} MB")
    print(f"peak of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:,.0f} MB")


if __name__ == "__main__":
    main()
