"""The words of lower-cased UTF-8 as hashes, for signatures and for decontamination.

A word is a maximal run of ASCII letters and digits and of bytes >= 0x80, except that punctuation and symbols
beyond ASCII separate words as their ASCII kin do (U+0080-U+00BF, U+2000-U+2BFF, U+3000-U+303F,
U+FF00-U+FF0F, U+FF1A-U+FF20): a copy with curly quotes or a long dash stays a copy. Chinese and Japanese have
no spaces: their words here are what stands between two marks. Thai, Lao and Khmer have few marks either: near
copies are found there by whole lines in common. Texts that differ in Unicode normalisation differ here.

They are read a block of bytes at a time, without a branch that depends on the text (a branch a word end is
mispredicted nearly every time): first what is a letter, in the compiler's vectors, then the hashes, those of
the block's two halves side by side, since each step of a hash waits for the one before.
"""

import numpy as np
from numpy.typing import NDArray

from tasks.text.hashing import FNV_OFFSET, FNV_PRIME, fmix64
from tasks.text.kernel import kernel

BLOCK_BYTES = 2048
BLOCK_WORDS = BLOCK_BYTES // 2 + 4
"""Room for the words of a block: each has a letter and a separator; one began before, one ends the text, and
each half writes one place ahead."""

START = np.array([FNV_OFFSET, 0], np.uint64)
"""At the beginning of a document: the hash of the word being read, and whether one is (all bits)."""

_AROUND = 2
"""Bytes before and behind a block that tell what its first and last ones are: a symbol has three at most."""
_ALL = np.uint8(0xFF)


@kernel
def room() -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """What `read_words` works in: its state, and rows of a block's bytes."""
    return np.empty(2, np.uint64), np.empty((4, BLOCK_BYTES + 2 * _AROUND), np.uint8)


@kernel
def read_words(
    data: NDArray[np.uint8],
    begin: int,
    at: int,
    end: int,
    state: NDArray[np.uint64],
    rows: NDArray[np.uint8],
    words: NDArray[np.uint64],
    held: int,
) -> tuple[int, int]:
    """Read a block of a document.

    Args:
        data: lower-cased UTF-8.
        begin: of the document.
        at: where the block begins.
        end: of the document.
        state: `START` at the document's beginning, then what was left here.
        rows: of `room`, written over.
        words: (>= held + BLOCK_WORDS,), gets a hash (FNV-1a, mixed) for each word that ends in the block.
        held: words in it already.

    Returns:
        Where the next block begins, and how many words are held now.
    """
    size = min(BLOCK_BYTES, end - at)
    text, letters, ends = rows[0], rows[1], rows[2]
    text[:_AROUND] = 0
    text[size + _AROUND : size + 2 * _AROUND] = 0
    known = data[max(begin, at - _AROUND) : min(end, at + size + _AROUND)]
    copied = text[max(begin - at, -_AROUND) + _AROUND :]
    for place in range(len(known)):
        copied[place] = known[place]
    _mark_letters(text, size, letters, rows[3])
    ends[0] = np.uint8(state[1]) & ~letters[0]
    for place in range(1, size):
        ends[place] = letters[place - 1] & ~letters[place]
    held = _hash_words(text[_AROUND:], letters, ends, size, state, words, held)
    at += size
    if at == end and state[1]:
        words[held] = fmix64(state[0])
        held += 1
    return at, held


@kernel
def _mark_letters(
    text: NDArray[np.uint8], size: int, letters: NDArray[np.uint8], symbols: NDArray[np.uint8]
) -> None:
    """Write 255 for each byte of a word and 0 for one between words.

    Args:
        text: (size + 4,) the block with the bytes around it, 0 beyond the document.
        size: bytes of the block.
        letters: (>= size,) written.
        symbols: (>= size + 2,) written over: 255 where a separator of three bytes begins, from two bytes
            before the block on.
    """
    for place in range(size + _AROUND):
        lead, second, third = text[place], text[place + 1], text[place + 2]
        general = np.uint8(lead == 0xE2) & np.uint8(second < 0xB0)
        ideographic = np.uint8(lead == 0xE3) & np.uint8(second == 0x80)
        wide = np.uint8(third < 0x90) | (np.uint8(third >= 0x9A) & np.uint8(third <= 0xA0))
        wide &= np.uint8(lead == 0xEF) & np.uint8(second == 0xBC)
        symbols[place] = np.uint8(0) - (general | ideographic | wide)
    for place in range(size):
        before, byte = text[place + 1], text[place + 2]
        letter = np.uint8(np.uint8(byte - 48) < 10) | np.uint8(np.uint8((byte | 32) - 97) < 26)
        letter |= np.uint8(byte >= 0x80)
        latin = np.uint8(byte == 0xC2) | np.uint8(before == 0xC2)
        symbol = symbols[place] | symbols[place + 1] | symbols[place + 2] | (np.uint8(0) - latin)
        letters[place] = (np.uint8(0) - letter) & ~symbol


@kernel
def _next(word: np.uint64, byte: np.uint8, letter: np.uint8) -> np.uint64:
    """A word's hash a byte further, or that of no byte behind its end."""
    kept = np.uint64(np.int64(np.int8(letter)))
    return np.uint64((((word ^ np.uint64(byte)) * FNV_PRIME) & kept) | (FNV_OFFSET & ~kept))


@kernel
def _hash_words(
    text: NDArray[np.uint8],
    letters: NDArray[np.uint8],
    ends: NDArray[np.uint8],
    size: int,
    state: NDArray[np.uint64],
    words: NDArray[np.uint64],
    held: int,
) -> int:
    """Hash the words that end in a block; how many are held then.

    The second half begins behind the first separator of the block's second half, if there is one.
    """
    half = size // 2
    while half < size and letters[half]:
        half += 1
    half = min(half + 1, size)
    first, one, two = held, state[0], FNV_OFFSET
    begun = other = held + half // 2 + 2
    for place in range(size - half):
        words[held], words[other] = one, two
        held += ends[place] & 1
        other += ends[half + place] & 1
        one = _next(one, text[place], letters[place])
        two = _next(two, text[half + place], letters[half + place])
    for place in range(size - half, half):
        words[held] = one
        held += ends[place] & 1
        one = _next(one, text[place], letters[place])
    for place in range(first, held):
        words[place] = fmix64(words[place])
    for place in range(begun, other):
        words[held] = fmix64(words[place])
        held += 1
    state[0] = two if half < size else one
    state[1] = letters[size - 1]
    return held
