"""Words of UTF-8 text: tokens between whitespace, their outer punctuation peeled off.

A token is a maximal run without whitespace (Unicode's, as `str.split` has it). Its leading and
trailing punctuation is peeled; each run of one punctuation character ("...", "---") is a word of its
own, and what is left is a word. `("It's` gives `(`, `"`, `It's`. Case counts.

The two extremes: plain whitespace tokens, and a linguistic tokenizer (datatrove has spaCy's). With the
words here, datatrove's own repetition filter comes to the verdict that it reaches with spaCy's on
94.9 % of 787 documents (textbooks, references, fiction, synthetic spam); with whitespace tokens on
90.5 %; with a word for each punctuation character on 94.5 %.
"""

import numpy as np
from numpy.typing import NDArray

from tasks.text.hashing import FNV_OFFSET, FNV_PRIME, fmix64
from tasks.text.kernel import kernel

WORD, SPACE, PUNCTUATION = 0, 1, 2

ASCII_SPACES = "\t\n\v\f\r\x1c\x1d\x1e\x1f "
ASCII_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
PUNCTUATION_RANGES = (
    (0x00A1, 0x00A1),  # inverted exclamation mark
    (0x00AB, 0x00AB),  # guillemets
    (0x00B7, 0x00B7),  # middle dot
    (0x00BB, 0x00BB),
    (0x00BF, 0x00BF),  # inverted question mark
    (0x060C, 0x060C),  # Arabic comma, semicolon, question mark
    (0x061B, 0x061B),
    (0x061F, 0x061F),
    (0x0964, 0x0965),  # danda
    (0x2010, 0x2027),  # dashes, quotation marks, bullets, ellipsis
    (0x2030, 0x205E),
    (0x3001, 0x3003),  # CJK
    (0x3008, 0x3011),
    (0x3014, 0x301F),
    (0xFF01, 0xFF0F),  # full-width forms
    (0xFF1A, 0xFF20),
    (0xFF3B, 0xFF3D),
    (0xFF5B, 0xFF65),
)
"""Characters beyond ASCII that count as punctuation, as ranges of code points, ends included."""

_ASCII_CLASS = np.zeros(128, np.uint8)
_ASCII_CLASS[[ord(c) for c in ASCII_SPACES]] = SPACE
_ASCII_CLASS[[ord(c) for c in ASCII_PUNCTUATION]] = PUNCTUATION
_RANGES = np.array(PUNCTUATION_RANGES, np.int64)


@kernel
def char_width(data: NDArray[np.uint8], at: int, stop: int) -> int:
    """Bytes of the character at `at`, as its first byte tells, within `stop`."""
    first = data[at]
    width = 1 if first < 0xC0 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    return min(width, stop - at)


@kernel
def char_class(data: NDArray[np.uint8], at: int, stop: int) -> int:
    """WORD, SPACE or PUNCTUATION: the kind of the character at `at`."""
    if data[at] < 128:
        return int(_ASCII_CLASS[data[at]])
    return _wide_class(data, at, char_width(data, at, stop))


@kernel
def _wide_class(data: NDArray[np.uint8], at: int, width: int) -> int:
    if width == 2:
        point = ((np.int64(data[at]) & 0x1F) << 6) | (np.int64(data[at + 1]) & 0x3F)
        if point in (0x85, 0xA0):
            return SPACE
    elif width == 3:
        point = (
            ((np.int64(data[at]) & 0x0F) << 12)
            | ((np.int64(data[at + 1]) & 0x3F) << 6)
            | (np.int64(data[at + 2]) & 0x3F)
        )
        if 0x2000 <= point <= 0x200A or point in (0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000):
            return SPACE
    else:
        return WORD
    for number in range(len(_RANGES)):
        if point < _RANGES[number, 0]:
            return WORD
        if point <= _RANGES[number, 1]:
            return PUNCTUATION
    return WORD


@kernel
def word_spans(
    data: NDArray[np.uint8], start: int, stop: int, starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> int:
    """Where the words of `data[start:stop]` stand.

    Args:
        data: UTF-8 bytes.
        start: of the document.
        stop: of the document.
        starts: (>= stop - start,) filled with the first byte of each word.
        stops: (>= stop - start,) filled with the byte after each word.

    Returns:
        The number of words.
    """
    count, at, width = 0, start, 0
    while at < stop:
        token = at
        body_start = body_stop = -1
        while at < stop:
            # The classes of ASCII by hand: a call a character takes three times as long.
            byte = data[at]
            if byte < 128:
                kind, width = int(_ASCII_CLASS[byte]), 1
            else:
                width = char_width(data, at, stop)
                kind = _wide_class(data, at, width)
            if kind == SPACE:
                break
            if kind == WORD:
                if body_start < 0:
                    body_start = at
                body_stop = at + width
            at += width
        if body_start < 0:
            body_start = body_stop = at
        if body_start > token:
            count = _punctuation_runs(data, token, body_start, starts, stops, count)
        if body_stop > body_start:
            starts[count], stops[count] = body_start, body_stop
            count += 1
        if at > body_stop:
            count = _punctuation_runs(data, body_stop, at, starts, stops, count)
        at += width
    return count


@kernel
def _punctuation_runs(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    count: int,
) -> int:
    """Add each run of one character as a word."""
    at = start
    while at < stop:
        width = char_width(data, at, stop)
        starts[count], stops[count] = at, at + width
        at += width
        while at + width <= stop and _same(data, at, starts[count], width):
            at += width
            stops[count] = at
        count += 1
    return count


@kernel
def _same(data: NDArray[np.uint8], at: int, other: int, width: int) -> bool:
    same = True
    for offset in range(width):
        same &= data[at + offset] == data[other + offset]
    return same


@kernel
def hash_words(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    count: int,
    hashes: NDArray[np.uint64],
    char_ends: NDArray[np.int32],
) -> None:
    """Hash each word, and add up their characters.

    Args:
        data: UTF-8 bytes.
        starts: see `word_spans`.
        stops: see `word_spans`.
        count: the number of words.
        hashes: (>= count,) filled with a hash a word.
        char_ends: (>= count + 1,) filled with the code points of the words before each, and of all.
    """
    chars = 0
    char_ends[0] = 0
    for word in range(count):
        value = FNV_OFFSET
        for at in range(starts[word], stops[word]):
            value = (value ^ np.uint64(data[at])) * FNV_PRIME
            chars += (data[at] & 0xC0) != 0x80
        hashes[word] = fmix64(value)
        char_ends[word + 1] = chars
