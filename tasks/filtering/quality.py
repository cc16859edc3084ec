"""What Gopher's quality rules and FineWeb's look at; measured only where one of the groups is switched on.

A word is one of `tasks.text.words` that is not punctuation only (datatrove counts such tokens in its
denominators, Gopher does not say). A line is one of the stripped text that is not blank. A ratio to
nothing is 0.
"""

import numpy as np
from numpy.typing import NDArray

from tasks.text.hashing import hash_bytes
from tasks.text.kernel import kernel
from tasks.text.lines import count_chars, line_spans, strip
from tasks.text.words import PUNCTUATION, char_class, word_spans

GOPHER_METRICS = (
    "num_words",
    "mean_word_length",
    "hashes_per_word",
    "ellipses_per_word",
    "bullet_line_frac",
    "ellipsis_line_frac",
    "letter_word_frac",
    "num_stop_words",
)
FINEWEB_METRICS = ("punctuated_line_frac", "short_line_frac", "newlines_per_word")

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
BULLETS = ("\u2022", "-", "*")
LINE_ENDS = (
    ".",
    "!",
    "?",
    '"',
    "'",
    "\u2026",
    "\u201d",
    "\u2019",
    "\u3002",
    "\uff01",
    "\uff1f",
    "\u061f",
    "\u0964",
)
FINEWEB_SHORT_LINE_CHARACTERS = 30


def _table(texts: tuple[str, ...]) -> NDArray[np.uint64]:
    """Hashes of short texts, as the kernels make them."""
    encoded = [np.frombuffer(text.encode(), np.uint8) for text in texts]
    return np.array([hash_bytes(data, 0, len(data)) for data in encoded], np.uint64)


def measure_quality(offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The metrics of each document.

    Args:
        offsets: (num_docs + 1,) see `text_buffers`.
        data: UTF-8 bytes.

    Returns:
        (num_docs, 11), columns as in `GOPHER_METRICS + FINEWEB_METRICS`.
    """
    return _measure(offsets, data, _table(STOP_WORDS), _table(BULLETS), _table(LINE_ENDS))


@kernel
def _measure(
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    stop_words: NDArray[np.uint64],
    bullets: NDArray[np.uint64],
    line_ends: NDArray[np.uint64],
) -> NDArray[np.float64]:
    num_docs = len(offsets) - 1
    metrics = np.zeros((num_docs, len(GOPHER_METRICS) + len(FINEWEB_METRICS)))
    longest = 0
    for doc in range(num_docs):
        longest = max(longest, offsets[doc + 1] - offsets[doc])
    starts = np.empty(longest + 1, np.int64)
    stops = np.empty(longest + 1, np.int64)
    breaks = np.empty(longest // 2 + 1, np.int64)
    for doc in range(num_docs):
        start, stop = strip(data, offsets[doc], offsets[doc + 1])
        count = line_spans(data, start, stop, starts, stops, breaks)
        num_breaks = breaks[:count].sum()
        _measure_lines(data, count, starts, stops, bullets, line_ends, metrics[doc])
        count = word_spans(data, start, stop, starts, stops)
        num_words = _measure_words(data, count, starts, stops, stop_words, metrics[doc])
        if num_words > 0:
            metrics[doc, 2] = _count(data, start, stop, True) / num_words
            metrics[doc, 3] = _count(data, start, stop, False) / num_words
            metrics[doc, 10] = num_breaks / num_words
    return metrics


@kernel
def _measure_lines(
    data: NDArray[np.uint8],
    count: int,
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    bullets: NDArray[np.uint64],
    line_ends: NDArray[np.uint64],
    metrics: NDArray[np.float64],
) -> None:
    lines, bulleted, dotted, punctuated, short = 0, 0, 0, 0, 0
    for line in range(count):
        first, last = strip(data, starts[line], stops[line])
        if first == last:
            continue
        lines += 1
        bulleted += _first_char(data, first, last) in bullets
        end = _last_char(data, first, last)
        punctuated += hash_bytes(data, end, last) in line_ends
        dotted += _is_ellipsis(data, end, last) or (last - first > 2 and _is_ellipsis(data, last - 3, last))
        short += count_chars(data, first, last) <= FINEWEB_SHORT_LINE_CHARACTERS
    if lines > 0:
        metrics[4], metrics[5] = bulleted / lines, dotted / lines
        metrics[8], metrics[9] = punctuated / lines, short / lines


@kernel
def _first_char(data: NDArray[np.uint8], start: int, stop: int) -> np.uint64:
    at = start + 1
    while at < stop and (data[at] & 0xC0) == 0x80:
        at += 1
    return hash_bytes(data, start, at)


@kernel
def _last_char(data: NDArray[np.uint8], start: int, stop: int) -> int:
    at = stop - 1
    while at > start and (data[at] & 0xC0) == 0x80:
        at -= 1
    return at


@kernel
def _is_ellipsis(data: NDArray[np.uint8], start: int, stop: int) -> bool:
    """Whether three bytes from `start` are three dots, or the one character (E2 80 A6)."""
    if stop - start < 3:
        return False
    a, b, c = data[start], data[start + 1], data[start + 2]
    return bool((a == 0x2E and b == 0x2E and c == 0x2E) or (a == 0xE2 and b == 0x80 and c == 0xA6))


@kernel
def _count(data: NDArray[np.uint8], start: int, stop: int, hashes: bool) -> int:
    """`#` signs, or ellipses that do not overlap."""
    found, at = 0, start
    while at < stop:
        if hashes:
            found += data[at] == 0x23
        elif _is_ellipsis(data, at, stop):
            found += 1
            at += 2
        at += 1
    return found


@kernel
def _measure_words(
    data: NDArray[np.uint8],
    count: int,
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    stop_words: NDArray[np.uint64],
    metrics: NDArray[np.float64],
) -> int:
    """Fill in what words tell; returns how many there are."""
    words, chars, lettered = 0, 0, 0
    used = np.zeros(len(stop_words), np.bool_)
    for word in range(count):
        start, stop = starts[word], stops[word]
        if char_class(data, start, stop) == PUNCTUATION:
            continue
        words += 1
        chars += count_chars(data, start, stop)
        for at in range(start, stop):
            if data[at] >= 0x80 or 0x61 <= (data[at] | 0x20) <= 0x7A:
                lettered += 1
                break
        if stop - start <= 4:
            lowered = data[start:stop] | np.uint8(0x20)
            used |= stop_words == hash_bytes(lowered, 0, stop - start)
    if words > 0:
        metrics[0], metrics[1] = words, chars / words
        metrics[6], metrics[7] = lettered / words, used.sum()
    return words
