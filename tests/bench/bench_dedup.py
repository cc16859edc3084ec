"""MB/s of signatures and verdicts, beside datasketch's on the same text in one run.

    python tests/bench/bench_dedup.py [FILE.parquet] [--datasketch-docs N] [--index-docs N]

datasketch's pipeline is its fast one: affine32, a batch of shingle hashes a document, `MinHashLSH(25, 5)`,
candidates verified. Its words are ours, by a regular expression; BLAKE2b hashes its shingles. CPU time.
"""

import argparse
import hashlib
import time
from pathlib import Path

import datasketch
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.dedup.config import DedupConfig
from tasks.dedup.exact import buffers, exact_hashes
from tasks.dedup.index import Index
from tasks.dedup.minhash import signatures
from tests.oracles.minhash import WORD

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "near_duplicates" / "shard_00000.parquet"


def ours(column: pa.Array, ids: pa.Array) -> float:
    """CPU seconds of signatures, exact hashes and verdicts."""
    started = time.process_time()
    offsets, data = buffers(column)
    exact = np.frombuffer(exact_hashes(offsets, data).tobytes(), "<u8").reshape(-1, 2)
    slots = signatures(offsets, data)
    signed = time.process_time()
    Index(128, DedupConfig()).resolve(slots, exact, ids)
    print(f"  signing {signed - started:.3f} s, verdicts {time.process_time() - signed:.3f} s")
    return time.process_time() - started


def theirs(column: pa.Array) -> float:
    """CPU seconds of datasketch's signatures and index."""
    started = time.process_time()
    lsh = datasketch.MinHashLSH(num_perm=128, params=(25, 5))
    kept: dict[int, datasketch.MinHash] = {}
    permutations = datasketch.MinHash(128, scheme="affine32").permutations
    for number, text in enumerate(column.to_pylist()):
        words = WORD.findall(text.lower())
        shingles = {" ".join(words[i : i + 5]).encode() for i in range(max(1, len(words) - 4))}
        minhash = datasketch.MinHash(128, scheme="affine32", hashfunc=int, permutations=permutations)
        minhash.update_batch(
            [int.from_bytes(hashlib.blake2b(s, digest_size=4).digest(), "little") for s in shingles]
        )
        if not any(minhash.jaccard(kept[other]) >= 0.7 for other in lsh.query(minhash)):
            lsh.insert(number, minhash)
            kept[number] = minhash
    return time.process_time() - started


def index(count: int) -> None:
    """Verdicts on unlike documents: what the index costs."""
    generator = np.random.default_rng(0)
    made, spent = Index(128, DedupConfig()), 0.0
    for first in range(0, count, 10_000):
        slots = generator.integers(0, 2**32, (10_000, 128), dtype=np.uint32)
        exact = generator.integers(0, 2**64, (10_000, 2), dtype=np.uint64)
        ids = pa.array(np.arange(first, first + 10_000)).cast(pa.string())
        started = time.process_time()
        made.resolve(slots, exact, ids)
        spent += time.process_time() - started
    print(f"index: {count:,} documents in {spent:.2f} s, {made.num_bytes / count:.0f} bytes each")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", type=Path, default=DATA)
    parser.add_argument("--datasketch-docs", type=int, default=800)
    parser.add_argument("--index-docs", type=int, default=200_000)
    args = parser.parse_args()
    table = pq.read_table(args.file, columns=["id", "text"]).combine_chunks()
    column, ids = table["text"].combine_chunks(), table["id"].combine_chunks()
    ours(column.slice(0, 10), ids.slice(0, 10))
    part = column.slice(0, args.datasketch_docs)
    mine = column.nbytes / 1e6 / ours(column, ids)
    other = part.nbytes / 1e6 / theirs(part)
    ratio = mine / other
    print(f"ours {mine:.1f} MB/s, datasketch {datasketch.__version__} {other:.2f} MB/s, ratio {ratio:.0f}")
    index(args.index_docs)


if __name__ == "__main__":
    main()
