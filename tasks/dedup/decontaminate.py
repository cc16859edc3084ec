"""Which documents share 13 words in a row with an item of a benchmark.

In: the documents of a shard that the filter kept, the texts of the items that the evaluation asks. Out: a row
a document that shares any. Words are those of the signatures (`tasks.dedup.words`): case, punctuation and
spacing hide no item. One of fewer than 13 words has no 13-gram and cannot be found: 904 of 34,007 in the
paper's seven benchmarks, told in `details`.

The two extremes: eight words, as GPT-2 was checked, meet in a common phrase; whole items alone miss a
question quoted without its answers. 13 is the choice of GPT-3 and of the Pile. 64-bit hashes stand for the
words: of a billion n-grams one is taken for one of two million by chance with probability 1e-4.

Memory: the table has 13 bytes a slot, 55 MB for the seven benchmarks (1.7 million n-grams), held once a
process; beside it a batch of a thousand documents, with 8 bytes a word.

Source: Brown et al., Language Models are Few-Shot Learners (2020), appendix C.
"""

import threading
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.dedup.documents import kept_documents
from tasks.dedup.exact import buffers
from tasks.dedup.minhash import GOLDEN
from tasks.dedup.words import BLOCK_WORDS, START, read_words, room
from tasks.store.paths import Store
from tasks.store.shard import NodeWriter, read_table
from tasks.text.hashing import find_or_add, fmix64, table_size
from tasks.text.kernel import kernel

NGRAM = 13
"""Words in a row."""

FOUND = pa.schema(
    [("id", pa.string()), ("benchmark", pa.string()), ("item", pa.string()), ("shared", pa.int64())]
)
"""A row a contaminated document: the benchmark and item of its first shared n-gram, and how many it shares"""

_LOCK = threading.Lock()


def build_contamination(writer: NodeWriter) -> None:
    """Find the documents of a shard that share an n-gram with an item of a benchmark."""
    benchmarks = benchmarks_of(writer.store, writer.node.reads["benchmarks"])
    by_benchmark: Counter[str] = Counter()
    with writer.parquet(FOUND) as out:
        for batch in kept_documents(writer):
            shared, items = benchmarks.ngrams.find(batch["text"])
            found = np.flatnonzero(shared)
            first = pa.array(items[found])
            names = benchmarks.names.take(first)
            rows = [
                batch["id"].take(pa.array(found)),
                names,
                benchmarks.items.take(first),
                pa.array(shared[found]),
            ]
            out.write_batch(pa.record_batch(rows, schema=FOUND))
            by_benchmark.update(names.to_pylist())
    short = Counter(benchmarks.names.filter(pa.array(benchmarks.ngrams.short)).to_pylist())
    writer.details = {
        "contaminated": dict(sorted(by_benchmark.items())),
        "ngrams": benchmarks.ngrams.num_ngrams,
        "items_too_short": dict(sorted(short.items())),
    }


@dataclass(frozen=True, slots=True)
class BenchmarkNgrams:
    """The n-grams of items in an open-addressing table, each under the first item that has it."""

    keys: NDArray[np.uint64]
    numbers: NDArray[np.uint32]
    """By slot: the item's number from 1; 0: free."""
    marks: NDArray[np.uint8]
    """A bit an n-gram, by its hash; less than a tenth are set. Where no item stands, nine in ten n-grams end
    here, in what the processor's cache holds: 125 MB/s, against 78 with the table alone."""
    num_ngrams: int
    short: NDArray[np.bool_]
    """(num_items,): too few words for an n-gram."""

    @classmethod
    def of(cls, items: pa.Array) -> "BenchmarkNgrams":
        """Those of a column of texts, in order."""
        hashes, counts = ngrams(*buffers(items))
        size = table_size(len(hashes))
        keys, numbers, marks = np.empty(size, np.uint64), np.zeros(size, np.uint32), np.zeros(size, np.uint8)
        _enter(hashes, counts, keys, numbers, marks)
        return cls(keys, numbers, marks, int(np.count_nonzero(numbers)), counts == 0)

    def find(self, documents: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Look for them in a column of text.

        Args:
            documents: (num_docs,) string or large_string, as downloaded.

        Returns:
            shared: (num_docs,) how many of a document's n-grams, repeated ones included, stand in an item.
            items: (num_docs,) the item of the first of them, -1 where there is none.
        """
        hashes, counts = ngrams(*buffers(documents))
        shared, items = np.zeros(len(documents), np.int64), np.full(len(documents), -1, np.int64)
        _find(hashes, counts, self.keys, self.numbers, self.marks, shared, items)
        return shared, items


@dataclass(frozen=True, slots=True)
class Benchmarks:
    """The items of a `benchmarks` node, and their n-grams."""

    names: pa.Array
    """(num_items,): the benchmark, as the recipe names it."""
    items: pa.Array
    """(num_items,): lm-eval's task and the item's place in it, "mmlu_anatomy:12"."""
    ngrams: BenchmarkNgrams


def benchmarks_of(store: Store, path: str) -> Benchmarks:
    """What a `benchmarks` node holds; read once a process, whoever asks."""
    with _LOCK:
        return _read(store.root, path)


@lru_cache(maxsize=1)
def _read(root: str, path: str) -> Benchmarks:
    table = read_table(Store(root), path).combine_chunks()
    items = pc.binary_join_element_wise(table["task"], pc.cast(table["doc_id"], pa.string()), ":")
    names, items, texts = (column.combine_chunks() for column in (table["benchmark"], items, table["text"]))
    return Benchmarks(names, items, BenchmarkNgrams.of(texts))


def ngrams(
    offsets: NDArray[np.int64], data: NDArray[np.uint8]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hash of every 13 words in a row.

    Args:
        offsets: (num_docs + 1,), document i is `data[offsets[i]:offsets[i + 1]]`.
        data: (num_bytes,), lower-cased UTF-8.

    Returns:
        hashes: of all documents, one after another.
        counts: (num_docs,) how many are each one's.
    """
    hashes = np.empty(len(data) // 2 + 1, np.uint64)  # a word and what separates it take two bytes at least
    counts = np.empty(len(offsets) - 1, np.int64)
    return hashes[: _roll(offsets, data, hashes, counts)], counts


@kernel
def _roll(
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    hashes: NDArray[np.uint64],
    counts: NDArray[np.int64],
) -> int:
    """A shingle's sum of word hashes by powers of an odd number, moved on by a word at a time."""
    ring, of_oldest, total = np.zeros(NGRAM, np.uint64), np.uint64(1), 0
    state, rows = room()
    words = np.empty(BLOCK_WORDS, np.uint64)
    for _ in range(NGRAM):
        of_oldest *= GOLDEN
    for doc in range(len(offsets) - 1):
        at, end, rolled, read, place = offsets[doc], offsets[doc + 1], np.uint64(0), 0, 0
        ring[:] = 0
        state[:] = START
        while at < end:
            at, held = read_words(data, offsets[doc], at, end, state, rows, words, 0)
            for word in words[:held]:
                rolled = np.uint64((rolled - ring[place] * of_oldest + word) * GOLDEN)
                ring[place] = word
                place = place + 1 if place < NGRAM - 1 else 0
                read += 1
                if read >= NGRAM:
                    hashes[total] = fmix64(rolled)
                    total += 1
        counts[doc] = max(0, read - NGRAM + 1)
    return total


@kernel
def _mark(key: np.uint64, size: int) -> tuple[np.int64, np.uint8]:
    """Where the bit of an n-gram is."""
    return np.int64(key >> np.uint64(3)) & (size - 1), np.uint8(1 << (np.int64(key) & 7))


@kernel
def _enter(
    hashes: NDArray[np.uint64],
    counts: NDArray[np.int64],
    keys: NDArray[np.uint64],
    numbers: NDArray[np.uint32],
    marks: NDArray[np.uint8],
) -> None:
    """Fill the table; an n-gram of several items stays the first one's."""
    at = 0
    for item in range(len(counts)):
        for _ in range(counts[item]):
            find_or_add(keys, numbers, len(keys), hashes[at], item + 1)
            place, bit = _mark(hashes[at], len(marks))
            marks[place] |= bit
            at += 1


@kernel
def _find(
    hashes: NDArray[np.uint64],
    counts: NDArray[np.int64],
    keys: NDArray[np.uint64],
    numbers: NDArray[np.uint32],
    marks: NDArray[np.uint8],
    shared: NDArray[np.int64],
    items: NDArray[np.int64],
) -> None:
    at, last = 0, len(keys) - 1
    for doc in range(len(counts)):
        for key in hashes[at : at + counts[doc]]:
            place, bit = _mark(key, len(marks))
            if not marks[place] & bit:
                continue
            slot = np.int64(fmix64(key) & np.uint64(last))
            while numbers[slot] != 0 and keys[slot] != key:
                slot = (slot + 1) & last
            if numbers[slot] != 0:
                if shared[doc] == 0:
                    items[doc] = np.int64(numbers[slot]) - 1
                shared[doc] += 1
        at += counts[doc]
