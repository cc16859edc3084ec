"""MinHash signatures of a column of text: 128 permutations over the word 5-grams of a document.

In: lower-cased UTF-8. Out: a row of uint32 a document, bit-equal to `datasketch.MinHash(scheme="affine32",
hashfunc=int)` on the same 32-bit shingle hashes, so datasketch is the oracle and reads what the store holds
(`LeanMinHash(seed=1, hashvalues=row, scheme="affine32")`).

A document of fewer words than a shingle has is one shingle of all its words. One without any word keeps the
empty signature (all slots 0xFFFFFFFF) and is never near anything: exact dedup alone applies to it.

Memory: a few tens of KB beside the input and the result, however long a document is.
"""

import numpy as np
from numpy.typing import NDArray

from tasks.dedup.words import BLOCK_WORDS, START, read_words, room
from tasks.text.hashing import fmix64
from tasks.text.kernel import kernel

EMPTY = np.uint32(0xFFFFFFFF)
"""A slot of a document without words."""

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_BLOCK = 2048  # shingle hashes that stay in the first-level cache while all permutations run over them


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
    words = np.empty(_BLOCK + ngram - 1 + BLOCK_WORDS, np.uint64)
    sums, shingles = np.empty(_BLOCK, np.uint64), np.empty(_BLOCK, np.uint32)
    state, rows = room()
    for doc in range(len(offsets) - 1):
        at, end = offsets[doc], offsets[doc + 1]
        held, first = 0, True
        state[:] = START
        while at < end:
            at, held = read_words(data, offsets[doc], at, end, state, rows, words, held)
            while held >= _BLOCK + ngram - 1:
                count = _shingle(words, _BLOCK + ngram - 1, ngram, sums, shingles)
                _minimise(shingles, count, a, b, out[doc])
                words[: held - _BLOCK] = words[_BLOCK:held].copy()
                held, first = held - _BLOCK, False
        if held >= ngram or (first and held):
            count = _shingle(words, held, min(ngram, held), sums, shingles)
            _minimise(shingles, count, a, b, out[doc])


@kernel
def _shingle(
    words: NDArray[np.uint64], held: int, ngram: int, sums: NDArray[np.uint64], shingles: NDArray[np.uint32]
) -> int:
    """32-bit hashes of the n-grams, mixed once more as datasketch mixes what it is given; how many there are.

    All n-grams a word further at a time: the compiler's vectors run over the n-grams, eight times the speed.
    """
    count = held - ngram + 1
    sums[:count] = 0
    for place in range(ngram):
        moved = words[place : place + count]
        for first in range(count):
            sums[first] = (sums[first] + moved[first]) * GOLDEN
    for first in range(count):
        g = np.uint32(fmix64(sums[first]) >> np.uint64(32))
        g = np.uint32((g ^ (g >> np.uint32(16))) * np.uint32(0x85EBCA6B))
        g = np.uint32((g ^ (g >> np.uint32(13))) * np.uint32(0xC2B2AE35))
        shingles[first] = np.uint32(g ^ (g >> np.uint32(16)))
    return count


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
