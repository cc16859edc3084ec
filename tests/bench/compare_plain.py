"""Every kernel beside its plain version, on every document of $DAPT_TEST_DATA.

    python -m tests.bench.compare_plain

The tests do this for samples; all of it takes the plain versions a long while. A difference is told with its
file and row, and ends with 1.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasketch
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.dedup.decontaminate import BenchmarkNgrams
from tasks.dedup.exact import buffers, exact_hashes
from tasks.dedup.minhash import signatures
from tasks.filtering.length import measure_length
from tasks.filtering.quality import measure_quality
from tasks.filtering.repetition import measure_repetition
from tasks.text.columns import text_buffers
from tests.oracles import decontamination, minhash, quality, repetition

ROWS = 100
"""Documents a piece of work."""
SHORT_LINE = 30
Piece = tuple[str, int, pa.Array]
Compared = Callable[[pa.Array, list[str]], list[bool]]


def _signature(text: str) -> list[int]:
    """datasketch's, on the plain shingles."""
    signed = datasketch.MinHash(128, scheme="affine32", hashfunc=int)
    hashes = minhash.shingle_hashes(text)
    if hashes:
        signed.update_batch(hashes)
    return [int(value) for value in signed.hashvalues]


def _same(ours: NDArray[Any], plain: Sequence[Sequence[float]]) -> list[bool]:
    return [bool(np.array_equal(mine, other)) for mine, other in zip(ours, plain, strict=True)]


def _lengths(column: pa.Array, texts: list[str]) -> list[bool]:
    lines, short = measure_length(*text_buffers(column), SHORT_LINE)
    plain = [quality.length(text, SHORT_LINE) for text in texts]
    return [one == other for one, other in zip(zip(lines, short, strict=True), plain, strict=True)]


def _hashes(column: pa.Array, texts: list[str]) -> list[bool]:
    found = exact_hashes(*buffers(column))
    return [row.tobytes() == minhash.exact_hash(text) for row, text in zip(found, texts, strict=True)]


def _contaminated(column: pa.Array, texts: list[str]) -> list[bool]:
    """A tenth of the documents are the items."""
    shared, items = BenchmarkNgrams.of(column[::10]).find(column)
    plain = decontamination.find(texts[::10], texts)
    return [found == other for found, other in zip(zip(shared, items, strict=True), plain, strict=True)]


COMPARED: dict[str, Compared] = {
    "repetition": lambda column, texts: _same(
        measure_repetition(*text_buffers(column)), [repetition.repetition(text) for text in texts]
    ),
    "length": _lengths,
    "quality": lambda column, texts: _same(
        measure_quality(*text_buffers(column)), [quality.quality(text) for text in texts]
    ),
    "exact hash": _hashes,
    "signature": lambda column, texts: _same(
        signatures(*buffers(column)), [_signature(text) for text in texts]
    ),
    "contamination": _contaminated,
}


def compare(piece: Piece) -> tuple[int, int, list[str]]:
    """Documents and bytes looked at, and what differs."""
    file, first, column = piece
    texts = column.to_pylist()
    differing = [
        f"{file} row {first + row}: {name}"
        for name, compared in COMPARED.items()
        for row, same in enumerate(compared(column, texts))
        if not same
    ]
    return len(texts), column.nbytes, differing


def main() -> None:
    """Compare all, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    data = Path(os.environ["DAPT_TEST_DATA"])
    pieces: list[Piece] = []
    for file in [*data.glob("*.parquet"), *sorted(data.glob("[!b]*/*.parquet"))]:
        column = pq.read_table(file, columns=["text"])["text"].drop_null().combine_chunks()
        name = str(file.relative_to(data))
        pieces += [(name, row, column[row : row + ROWS]) for row in range(0, len(column), ROWS)]
    documents = text_bytes = 0
    differing: list[str] = []
    began = told = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(parser.parse_args().processes) as pool:
        for count, size, found in pool.imap_unordered(compare, pieces):
            documents, text_bytes, differing = documents + count, text_bytes + size, differing + found
            if time.monotonic() - told > 30:
                told = time.monotonic()
                print(f"{documents} documents, {text_bytes / 1e6:.0f} MB", file=sys.stderr, flush=True)
    print("\n".join(differing) or f"all {len(COMPARED)} are the plain ones", end=": ")
    print(f"{documents} documents, {text_bytes / 1e6:.0f} MB in {time.monotonic() - began:.0f} s")
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
