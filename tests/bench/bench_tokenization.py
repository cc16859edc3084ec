"""MB/s of ids by pieces, cold and warm, beside `tokenizers` on the same documents in one run on one core.

    python -m tests.bench.bench_tokenization FILE.parquet [--megabytes 28] [--families llama3,unigram]

`real` is the 32k Llama-type model that the package mistral-common carries; the others are trained on the
first documents of the file to 8,000 ids. tokenizers encodes whole documents, in batches of the same size, and
its ids are put into one array, as ours are. Cold: an empty cache, compiled kernels. Warm: the same documents
again. CPU time of the process; the library has one thread.
"""

import argparse
import os
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

os.environ["RAYON_NUM_THREADS"] = "1"  # read by tokenizers when it first encodes

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tasks.text.columns import text_buffers
from tasks.tokenization import spiece
from tasks.tokenization.cuts import derive_cuts
from tasks.tokenization.encode import BATCH_BYTES
from tasks.tokenization.pieces import PieceEncoder, library_ids
from tests.tokenization.families import family

_TRAINED_ON = 200
_FAMILIES = "real,llama2,gpt2,llama3,qwen,unigram,wordpiece"


def batches(column: pa.Array) -> Iterator[pa.Array]:
    """Runs of documents of about `BATCH_BYTES`, as the stage reads them."""
    offsets, _ = text_buffers(column)
    begin = 0
    while begin < len(column):
        end = int(np.searchsorted(offsets, offsets[begin] + BATCH_BYTES, side="right")) - 1
        end = max(end, begin + 1)
        yield column.slice(begin, end - begin)
        begin = end


def by_pieces(pieces: PieceEncoder, column: pa.Array) -> tuple[float, NDArray[np.uint16]]:
    """CPU seconds, and the ids."""
    started = time.process_time()
    parts = [pieces.encode(batch, np.uint16)[0] for batch in batches(column)]
    return time.process_time() - started, np.concatenate(parts)


def by_library(tokenizer: Tokenizer, column: pa.Array) -> tuple[float, NDArray[np.uint16]]:
    """CPU seconds, and the ids."""
    started = time.process_time()
    parts = [library_ids(tokenizer, b.to_pylist())[0].astype(np.uint16) for b in batches(column)]
    return time.process_time() - started, np.concatenate(parts)


def tokenizer_of(name: str, column: pa.Array) -> Tokenizer | None:
    """One of the families, or the real one where it is installed."""
    if name != "real":
        return family(name, column.slice(0, _TRAINED_ON).to_pylist(), 8000)
    spec = find_spec("mistral_common")
    if spec is None or spec.origin is None:
        return None
    return spiece.convert(Path(spec.origin).parent / "data" / "tokenizer.model.v1")


def main() -> None:
    """Print a line a tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--megabytes", type=float, default=28)
    parser.add_argument("--families", default=_FAMILIES)
    wanted = parser.parse_args()
    column = pq.read_table(wanted.file, columns=["text"])["text"].drop_null().combine_chunks()
    offsets, _ = text_buffers(column)
    column = column.slice(0, int(np.searchsorted(offsets, wanted.megabytes * 1e6, side="right")) - 1)
    megabytes = len(text_buffers(column)[1]) / 1e6
    print(f"{wanted.file}: {len(column)} documents, {megabytes:.1f} MB")
    print("tokenizer    tokenizers    cold  ratio    warm  ratio   pieces  equal")
    for name in wanted.families.split(","):
        tokenizer = tokenizer_of(name, column)
        if tokenizer is None:
            print(f"{name:10}  mistral-common is not installed")
            continue
        cuts = derive_cuts(tokenizer)
        PieceEncoder(tokenizer, cuts).encode(column.slice(0, 1), np.uint16)  # compile
        pieces = PieceEncoder(tokenizer, cuts)
        cold, ids = by_pieces(pieces, column)
        warm, again = by_pieces(pieces, column)
        library, whole = by_library(tokenizer, column)
        equal = np.array_equal(ids, whole) and np.array_equal(again, whole)
        print(
            f"{name:10} {megabytes / library:8.2f} MB/s {megabytes / cold:7.1f} {library / cold:6.1f} "
            f"{megabytes / warm:7.1f} {library / warm:6.1f} {pieces.num_pieces:8} {equal!s:>6}",
            flush=True,
        )


if __name__ == "__main__":
    main()
