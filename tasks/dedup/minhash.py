"""MinHash signatures of a column of text: 128 permutations over the word 5-grams of a document.

In: lower-cased UTF-8. Out: a row of uint32 a document, bit-equal to `datasketch.MinHash(scheme="affine32",
hashfunc=int)` on the same 32-bit shingle hashes, so datasketch is the oracle and reads what the store holds
(`LeanMinHash(seed=1, hashvalues=row, scheme="affine32")`).

A word is a maximal run of ASCII letters and digits and of bytes >= 0x80, except that punctuation and symbols
beyond ASCII separate words as their ASCII kin do (U+0080-U+00BF, U+2000-U+2BFF, U+3000-U+303F,
U+FF00-U+FF0F, U+FF1A-U+FF20): a copy with curly quotes or a long dash stays a copy. Chinese and Japanese have
no spaces: their words here are what stands between two marks. Thai, Lao and Khmer have few marks either: near
copies are found there by whole lines in common. Texts that differ in Unicode normalisation differ here.

A document of fewer words than a shingle has is one shingle of all its words. One without any word keeps the
empty signature (all slots 0xFFFFFFFF) and is never near anything: exact dedup alone applies to it.

Memory: a few tens of KB beside the input and the result, however long a document is.
"""

import numpy as np
from numpy.typing import NDArray

from tasks.text.hashing import FNV_OFFSET, FNV_PRIME, fmix64
from tasks.text.kernel import kernel

EMPTY = np.uint32(0xFFFFFFFF)
"""A slot of a document without words."""

_LETTER, _SEPARATOR, _LEADS_SYMBOL = 0, 1, 2
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_BLOCK = 2048  # shingle hashes that stay in the first-level cache while all permutations run over them


def _byte_classes() -> NDArray[np.uint8]:
    classes = np.full(256, _LETTER, np.uint8)
    for byte in range(128):
        classes[byte] = _LETTER if chr(byte).isalnum() else _SEPARATOR
    classes[[0xC2, 0xE2, 0xE3, 0xEF]] = _LEADS_SYMBOL
    return classes


_CLASSES = _byte_classes()


def permutations(num_perm: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Odd factors and offsets of `a * h + b` mod 2**32.

    Source: datasketch 2.0, scheme affine32, seed 1.
    """
    generator = np.random.RandomState(1)
    a = generator.randint(0, 2**31, num_perm, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return a, generator.randint(0, 2**32, num_perm, dtype=np.uint32)


def signatures(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], *, num_perm: int = 128, ngram: int = 5
) -> NDArray[np.uint32]:
    """MinHash signatures.

    Args:
        offsets: (num_docs + 1,), document i is `data[offsets[i]:offsets[i + 1]]`.
        data: (num_bytes,), lower-cased UTF-8.
        num_perm: slots a signature.
        ngram: words a shingle.

    Returns:
        (num_docs, num_perm).

    Source: Broder, On the resemblance and containment of documents (1997).
    """
    out = np.full((len(offsets) - 1, num_perm), EMPTY, np.uint32)
    a, b = permutations(num_perm)
    _sign(offsets, data, a, b, ngram, out)
    return out


@kernel
def _sign(
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    a: NDArray[np.uint32],
    b: NDArray[np.uint32],
    ngram: int,
    out: NDArray[np.uint32],
) -> None:
    words = np.empty(_BLOCK + ngram - 1, np.uint64)
    shingles = np.empty(_BLOCK, np.uint32)
    for doc in range(len(offsets) - 1):
        at, end = offsets[doc], offsets[doc + 1]
        held, first = 0, True
        while at < end:
            at, found, word = next_word(data, at, end)
            if found:
                words[held] = word
                held += 1
            if held == len(words):
                _shingle(words, held, ngram, shingles)
                _minimise(shingles, _BLOCK, a, b, out[doc])
                words[: ngram - 1] = words[held - ngram + 1 : held]
                held, first = ngram - 1, False
        if held >= ngram:
            _shingle(words, held, ngram, shingles)
            _minimise(shingles, held - ngram + 1, a, b, out[doc])
        elif first and held:
            _shingle(words, held, held, shingles)
            _minimise(shingles, 1, a, b, out[doc])


@kernel
def next_word(data: NDArray[np.uint8], at: int, end: int) -> tuple[int, bool, np.uint64]:
    """Where the search goes on, whether there was a word, and its hash (FNV-1a, then mixed)."""
    word = FNV_OFFSET
    found = False
    while at < end:
        width = _separator(data, at, end)
        if width and found:
            break
        if width:
            at += width
        else:
            word = (word ^ np.uint64(data[at])) * FNV_PRIME
            found = True
            at += 1
    return at, found, fmix64(word)


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


@kernel
def _shingle(words: NDArray[np.uint64], held: int, ngram: int, shingles: NDArray[np.uint32]) -> None:
    """32-bit hashes of the n-grams, mixed once more as datasketch mixes what it is given."""
    for first in range(held - ngram + 1):
        h = np.uint64(0)
        for place in range(first, first + ngram):
            h = (h + words[place]) * GOLDEN
        g = np.uint32(fmix64(h) >> np.uint64(32))
        g = np.uint32((g ^ (g >> np.uint32(16))) * np.uint32(0x85EBCA6B))
        g = np.uint32((g ^ (g >> np.uint32(13))) * np.uint32(0xC2B2AE35))
        shingles[first] = np.uint32(g ^ (g >> np.uint32(16)))


@kernel
def _minimise(
    shingles: NDArray[np.uint32],
    count: int,
    a: NDArray[np.uint32],
    b: NDArray[np.uint32],
    slots: NDArray[np.uint32],
) -> None:
    """Lower each slot to the least value of its permutation.

    Permutations outermost in blocks of four, the compiler's vectors over the shingles: 2.4 times the speed of
    the other order.
    """
    whole = len(slots) // 4 * 4
    for p in range(0, whole, 4):
        a0, a1, a2, a3 = a[p], a[p + 1], a[p + 2], a[p + 3]
        b0, b1, b2, b3 = b[p], b[p + 1], b[p + 2], b[p + 3]
        m0, m1, m2, m3 = slots[p], slots[p + 1], slots[p + 2], slots[p + 3]
        for i in range(count):
            h = shingles[i]
            m0 = min(m0, np.uint32(a0 * h + b0))
            m1 = min(m1, np.uint32(a1 * h + b1))
            m2 = min(m2, np.uint32(a2 * h + b2))
            m3 = min(m3, np.uint32(a3 * h + b3))
        slots[p], slots[p + 1], slots[p + 2], slots[p + 3] = m0, m1, m2, m3
    for p in range(whole, len(slots)):
        least = slots[p]
        for i in range(count):
            least = min(least, np.uint32(a[p] * shingles[i] + b[p]))
        slots[p] = least
