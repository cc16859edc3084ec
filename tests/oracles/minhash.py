"""MinHash and greedy keep-first dedup as their definitions say: slow, and plain."""

import hashlib
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MASK64, MASK32 = 2**64 - 1, 2**32 - 1
WORD = re.compile("[0-9a-z\u00c0-\u1fff\u2c00-\u2fff\u3040-\ufeff\uff10-\uff19\uff21-\U0010ffff]+")


def lower(text: str) -> str:
    """Unicode's simple case mapping, as Arrow has it (Python makes several letters of some)."""
    return pc.utf8_lower(pa.scalar(text, pa.string())).as_py()


def words(text: str) -> list[str]:
    """The words of a text, lower-cased."""
    return WORD.findall(lower(text))


def mix64(h: int) -> int:
    """MurmurHash3's finaliser."""
    h = (h ^ (h >> 33)) * 0xFF51AFD7ED558CCD & MASK64
    h = (h ^ (h >> 33)) * 0xC4CEB9FE1A85EC53 & MASK64
    return h ^ (h >> 33)


def word_hash(word: str) -> int:
    """FNV-1a over its bytes, then mixed."""
    h = 0xCBF29CE484222325
    for byte in word.encode():
        h = (h ^ byte) * 0x100000001B3 & MASK64
    return mix64(h)


def shingle_hashes(text: str, ngram: int = 5) -> list[int]:
    """32 bits a shingle; a text of fewer words is one shingle, one of none has none."""
    hashes = [word_hash(word) for word in words(text)]
    if not hashes:
        return []
    length = min(ngram, len(hashes))
    out = []
    for first in range(len(hashes) - length + 1):
        h = 0
        for word in hashes[first : first + length]:
            h = (h + word) * 0x9E3779B97F4A7C15 & MASK64
        out.append(mix64(h) >> 32)
    return out


def mix32(h: int) -> int:
    """MurmurHash3's finaliser, 32 bits."""
    h = (h ^ (h >> 16)) * 0x85EBCA6B & MASK32
    h = (h ^ (h >> 13)) * 0xC2B2AE35 & MASK32
    return h ^ (h >> 16)


def signature(text: str, *, num_perm: int = 128, ngram: int = 5) -> list[int]:
    """The least value of each permutation."""
    generator = np.random.RandomState(1)
    a = [int(x) * 2 + 1 & MASK32 for x in generator.randint(0, 2**31, num_perm, dtype=np.uint32)]
    b = [int(x) for x in generator.randint(0, 2**32, num_perm, dtype=np.uint32)]
    hashes = [mix32(h) for h in shingle_hashes(text, ngram)]
    return [min((p * h + q & MASK32 for h in hashes), default=MASK32) for p, q in zip(a, b, strict=True)]


def exact_hash(text: str) -> bytes:
    """Of the text in lower case, ASCII whitespace collapsed."""
    normal = re.sub(r"[ \t\n\v\f\r]+", " ", lower(text)).strip(" ")
    return hashlib.blake2b(normal.encode(), digest_size=16).digest()


def dedup(
    signatures: Sequence[Sequence[int]],
    exact: Sequence[bytes],
    *,
    threshold: float,
    num_bands: int,
    rows_per_band: int,
    bucket_limit: int = 10**9,
) -> list[tuple[str | None, int | None]]:
    """Greedy keep-first over all pairs: a (reason, earliest kept document it matches) a document."""
    kept: list[int] = []
    out: list[tuple[str | None, int | None]] = []

    def band(doc: int, number: int) -> tuple[int, ...]:
        return tuple(signatures[doc][number * rows_per_band : (number + 1) * rows_per_band])

    def candidates(doc: int) -> set[int]:
        found: set[int] = set()
        for number in range(num_bands):
            bucket = [other for other in kept if band(other, number) == band(doc, number)]
            found.update(bucket[:bucket_limit])
        return found

    for doc, row in enumerate(signatures):
        same = next((other for other in kept if exact[other] == exact[doc]), None)
        if same is not None:
            out.append(("exact", same))
            continue
        near = [
            other
            for other in ([] if all(slot == MASK32 for slot in row) else candidates(doc))
            if sum(p == q for p, q in zip(row, signatures[other], strict=True)) / len(row) >= threshold
        ]
        if near:
            out.append(("near", min(near)))
        else:
            kept.append(doc)
            out.append((None, None))
    return out
