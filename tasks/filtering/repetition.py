"""The thirteen repetition metrics of Gopher (Rae et al. 2021, table A1) over Arrow buffers.

A document is its stripped text (`tasks.text.lines`); every metric is a share from 0 to 1, 0 for an empty
document.

* `dup_para_frac`, `dup_line_frac`: paragraphs (lines) that stood before, of all.
* `dup_para_char_frac`, `dup_line_char_frac`: their characters, of the document's.
* `top_n_gram_char_frac`: characters of the n-gram of words (`tasks.text.words`) used most, spaces between
  its words included, times its uses, of the document's. The earliest of several; one used once is none.
  Uses may overlap, so the share is cut at 1.
* `dup_n_gram_char_frac`: n-grams are read from the left; one that was read before adds its words'
  characters and is jumped over whole, else reading goes on one word further.

Every metric of every document is computed, whether its rule is on or not, so that a threshold can be
judged by its column. Memory: at most 120 bytes for each word of the longest document of a batch, given back
after it: about 12 times an ordinary document, 45 times one of nothing but line breaks or punctuation.
"""

import numpy as np
from numpy.typing import NDArray

from tasks.text.hashing import find_or_add, hash_bytes, table_size
from tasks.text.kernel import kernel
from tasks.text.lines import count_chars, line_spans, paragraphs_of, strip
from tasks.text.ngrams import keep_repeating, number_ngrams, number_words
from tasks.text.words import hash_words, word_spans

REPETITION_METRICS = (
    "dup_para_frac",
    "dup_para_char_frac",
    "dup_line_frac",
    "dup_line_char_frac",
    "top_2_gram_char_frac",
    "top_3_gram_char_frac",
    "top_4_gram_char_frac",
    "dup_5_gram_char_frac",
    "dup_6_gram_char_frac",
    "dup_7_gram_char_frac",
    "dup_8_gram_char_frac",
    "dup_9_gram_char_frac",
    "dup_10_gram_char_frac",
)

_LARGEST_TOP, _LARGEST = 4, 10
_FIRST_NGRAM = REPETITION_METRICS.index("top_2_gram_char_frac")


@kernel
def measure_repetition(offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The metrics of each document.

    Args:
        offsets: (num_docs + 1,) see `text_buffers`.
        data: UTF-8 bytes.

    Returns:
        (num_docs, 13), columns as in `REPETITION_METRICS`.
    """
    num_docs = len(offsets) - 1
    metrics = np.zeros((num_docs, len(REPETITION_METRICS)))
    longest = 0
    for doc in range(num_docs):
        longest = max(longest, offsets[doc + 1] - offsets[doc])
    # Room for the worst text, a word a byte. Pages that are never written to never take memory.
    starts = np.empty(longest + 1, np.int64)
    stops = np.empty(longest + 1, np.int64)
    hashes = np.empty(longest + 1, np.uint64)
    table = (np.empty(8, np.uint64), np.empty(8, np.uint32))
    words = (
        np.empty(longest + 1, np.int32),
        np.empty(longest + 1, np.uint32),
        np.empty(longest + 1, np.int32),
        np.empty(longest + 1, np.int32),
        np.empty(longest + 1, np.int32),
    )
    lines = (
        np.empty(longest // 2 + 1, np.int64),
        np.empty(longest // 2 + 1, np.int64),
        np.empty(longest // 2 + 1, np.int64),
        np.empty(longest // 2 + 1, np.uint64),
    )
    for doc in range(num_docs):
        start, stop = strip(data, offsets[doc], offsets[doc + 1])
        if start == stop:
            continue
        num_lines = line_spans(data, start, stop, starts, stops, lines[0])
        table = _grow(table, table_size(num_lines))
        chars = _measure_lines(data, num_lines, starts, stops, hashes, lines, table, metrics[doc])
        num_words = word_spans(data, start, stop, starts, stops)
        table = _grow(table, table_size(num_words))
        hash_words(data, starts, stops, num_words, hashes, words[0])
        _measure_ngrams(num_words, hashes, words, table, chars, metrics[doc])
    return metrics


Table = tuple[NDArray[np.uint64], NDArray[np.uint32]]
LineRoom = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]
WordRoom = tuple[
    NDArray[np.int32], NDArray[np.uint32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]
]


@kernel
def _grow(table: Table, size: int) -> Table:
    if size <= len(table[0]):
        return table
    return np.empty(size, np.uint64), np.empty(size, np.uint32)


@kernel
def _measure_lines(
    data: NDArray[np.uint8],
    num_lines: int,
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    room: LineRoom,
    table: Table,
    metrics: NDArray[np.float64],
) -> int:
    """Fill in the metrics of lines and paragraphs; returns the document's code points."""
    breaks, line_chars, paragraph_chars, paragraph_hashes = room
    chars = 0
    for line in range(num_lines):
        hashes[line] = hash_bytes(data, starts[line], stops[line])
        line_chars[line] = count_chars(data, starts[line], stops[line])
        chars += line_chars[line] + breaks[line]
    num_paragraphs = paragraphs_of(num_lines, breaks, hashes, line_chars, paragraph_hashes, paragraph_chars)
    found, found_chars = _count_duplicates(num_paragraphs, paragraph_hashes, paragraph_chars, table)
    metrics[0], metrics[1] = found / num_paragraphs, found_chars / chars
    found, found_chars = _count_duplicates(num_lines, hashes, line_chars, table)
    metrics[2], metrics[3] = found / num_lines, found_chars / chars
    return chars


@kernel
def _count_duplicates(
    count: int, hashes: NDArray[np.uint64], chars: NDArray[np.int64], table: Table
) -> tuple[int, int]:
    """How many stood before, and their characters."""
    size = table_size(count)
    table[1][:size] = 0
    different, found_chars = 0, 0
    for at in range(count):
        if find_or_add(table[0], table[1], size, hashes[at], different + 1) > different:
            different += 1
        else:
            found_chars += chars[at]
    return count - different, found_chars


@kernel
def _measure_ngrams(
    num_words: int,
    hashes: NDArray[np.uint64],
    room: WordRoom,
    table: Table,
    chars: int,
    metrics: NDArray[np.float64],
) -> None:
    """Fill in the metrics of n-grams."""
    char_ends, numbers, uses, firsts, positions = room
    keys, slots = table
    number_words(hashes, num_words, numbers, uses, keys, slots, table_size(num_words))
    for word in range(num_words):
        positions[word] = word
    left = keep_repeating(numbers, uses, positions, num_words)
    for n in range(2, _LARGEST + 1):
        left, different = number_ngrams(numbers, uses, firsts, positions, left, keys, slots, table_size(left))
        if n <= _LARGEST_TOP:
            top = _top_chars(n, different, uses, firsts, char_ends)
            metrics[_FIRST_NGRAM + n - 2] = min(1.0, top / chars)
        left = keep_repeating(numbers, uses, positions, left)
        if n > _LARGEST_TOP:
            duplicated = _duplicated_chars(n, left, positions, numbers, uses, char_ends)
            metrics[_FIRST_NGRAM + n - 2] = duplicated / chars


@kernel
def _top_chars(
    n: int, different: int, uses: NDArray[np.int32], firsts: NDArray[np.int32], char_ends: NDArray[np.int32]
) -> int:
    """Characters of all uses of the n-gram that is used most."""
    best, most = 0, 1
    for number in range(1, different + 1):  # in order of first use: the earliest of several wins
        if uses[number] > most:
            best, most = number, uses[number]
    if best == 0:
        return 0
    first = firsts[best]
    return int(char_ends[first + n] - char_ends[first] + n - 1) * int(most)


@kernel
def _duplicated_chars(
    n: int,
    count: int,
    positions: NDArray[np.int32],
    numbers: NDArray[np.uint32],
    uses: NDArray[np.int32],
    char_ends: NDArray[np.int32],
) -> int:
    """Characters of the n-grams that were read before; sets `uses` of those read to 0."""
    chars, following = 0, 0
    for at in range(count):
        position = positions[at]
        if position < following:
            continue
        if uses[numbers[position]] == 0:
            chars += char_ends[position + n] - char_ends[position]
            following = position + n
        else:
            uses[numbers[position]] = 0
    return chars
