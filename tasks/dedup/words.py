"""The words of lower-cased UTF-8 as hashes, for signatures and for decontamination.

A word is a maximal run of ASCII letters and digits and of bytes >= 0x80, except that punctuation and symbols
beyond ASCII separate words as their ASCII kin do (U+0080-U+00BF, U+2000-U+2BFF, U+3000-U+303F,
U+FF00-U+FF0F, U+FF1A-U+FF20): a copy with curly quotes or a long dash stays a copy. Chinese and Japanese have
no spaces: their words here are what stands between two marks. Thai, Lao and Khmer have few marks either: near
copies are found there by whole lines in common. Texts that differ in Unicode normalisation differ here.

They are read a block of bytes at a time: first what is a letter, by table, then the hashes, without a branch
that depends on the text. A branch a word end is mispredicted nearly every time, and took as long as the rest.
"""

import numpy as np
from numpy.typing import NDArray

from tasks.text.hashing import FNV_OFFSET, FNV_PRIME, fmix64
from tasks.text.kernel import kernel

BLOCK_BYTES = 2048
BLOCK_WORDS = BLOCK_BYTES // 2 + 2
"""At most so many end in a block: each has a letter and a separator; one began before, one ends the text."""

START = np.array([FNV_OFFSET, 0, 0], np.uint64)
"""At the beginning of a document: the word being read, whether one is, bytes of a symbol still to come."""

_LETTER, _SEPARATOR, _LEADS_SYMBOL = 0, 1, 2


def _byte_classes() -> NDArray[np.uint8]:
    classes = np.full(256, _LETTER, np.uint8)
    for byte in range(128):
        classes[byte] = _LETTER if chr(byte).isalnum() else _SEPARATOR
    classes[[0xC2, 0xE2, 0xE3, 0xEF]] = _LEADS_SYMBOL
    return classes


_CLASSES = _byte_classes()


@kernel
def room() -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """What `read_words` works in: its state, and a block's letters."""
    return np.empty(3, np.uint64), np.empty(BLOCK_BYTES, np.uint8)


@kernel
def read_words(
    data: NDArray[np.uint8],
    at: int,
    end: int,
    state: NDArray[np.uint64],
    letters: NDArray[np.uint8],
    words: NDArray[np.uint64],
    held: int,
) -> tuple[int, int]:
    """Read a block of a document.

    Args:
        data: lower-cased UTF-8.
        at: where the block begins.
        end: of the document.
        state: `START` at the document's beginning, then what was left here.
        letters: (BLOCK_BYTES,), written over.
        words: (>= held + BLOCK_WORDS,), gets a hash (FNV-1a, mixed) for each word that ends in the block.
        held: words in it already.

    Returns:
        Where the next block begins, and how many words are held now.
    """
    size = min(BLOCK_BYTES, end - at)
    state[2] = _mark_letters(data, at, size, end, int(np.int64(state[2])), letters)
    before, word, reading = held, state[0], np.int64(state[1])
    for place in range(size):
        letter = np.int64(letters[place])
        words[held] = word
        held += int(reading & (letter ^ 1))
        kept = np.uint64(-letter)
        word = (((word ^ np.uint64(data[at + place])) * FNV_PRIME) & kept) | (FNV_OFFSET & ~kept)
        reading = letter
    at += size
    if at == end and reading:
        words[held] = word
        held += 1
    for number in range(before, held):
        words[number] = fmix64(words[number])
    state[0], state[1] = word, np.uint64(reading)
    return at, held


@kernel
def _mark_letters(
    data: NDArray[np.uint8], at: int, size: int, end: int, begun: int, letters: NDArray[np.uint8]
) -> int:
    """Write 1 for a byte of a word and 0 for one between words; how far a symbol reaches beyond the block."""
    met = 0
    for place in range(size):
        kind = _CLASSES[data[at + place]]
        letters[place] = kind == _LETTER
        met |= kind
    for place in range(min(begun, size)):
        letters[place] = 0
    if not met & _LEADS_SYMBOL:
        return max(0, begun - size)
    place = begun
    while place < size:
        if _CLASSES[data[at + place]] != _LEADS_SYMBOL:
            place += 1
            continue
        width = _separator(data, at + place, end)
        letters[place] = width == 0
        for other in range(place + 1, min(place + width, size)):
            letters[other] = 0
        place += max(1, width)
    return max(0, place - size)


@kernel
def _separator(data: NDArray[np.uint8], at: int, end: int) -> int:
    """Bytes of the separator that begins here, 0 where a letter stands."""
    kind = _CLASSES[data[at]]
    if kind != _LEADS_SYMBOL or at + 1 >= end:
        return 1 if kind == _SEPARATOR else 0
    lead, second = data[at], data[at + 1]
    if lead == 0xC2:
        return 2
    if lead == 0xE2:
        return 3 if second < 0xB0 and at + 3 <= end else 0
    if lead == 0xE3:
        return 3 if second == 0x80 and at + 3 <= end else 0
    if second != 0xBC or at + 3 > end:
        return 0
    third = data[at + 2]
    return 3 if third < 0x90 or 0x9A <= third <= 0xA0 else 0
