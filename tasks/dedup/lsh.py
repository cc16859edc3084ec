"""Locality-sensitive hashing over kept documents: the hot loops of the index.

Each band has a hash table from the values of its rows (a *bucket*) to the first kept document that had them;
documents of one bucket are chained in the order they were kept. A document is compared with the documents of
its buckets, first to last, and matches the earliest whose signature agrees in enough slots.

What grows a bucket are kept documents that are alike in places (the boilerplate of a site), for copies never
enter. A bucket therefore holds its first `BUCKET_LIMIT` documents only: a document costs at most num_bands x
BUCKET_LIMIT steps, whatever the corpus. The price is a near duplicate whose every bucket in common with its
original was full before the original came: it stays. (An exact copy never does.) Answers depend on the kept
documents and their order alone, not on the tables' size or on how the work was cut.

Slots of a table are uint64: 0 is free, else the document's row + 1 below, 32 bits of the bucket's hash above.
Their place follows from those bits, so a table grows without a look at the signatures. Equal bits are only a
hint: the rows themselves are compared, so that no accident of hashing makes a pair.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.dedup.minhash import EMPTY
from tasks.text.hashing import fmix64
from tasks.text.kernel import kernel

BUCKET_LIMIT = 1000
"""Kept documents a bucket. Pages of one template, alike by .6, fill one after about 13,000 pages."""

KEPT, EXACT, NEAR = 0, 1, 2

_FULL, _FREE = -1, -2
_ROW = np.uint64(0xFFFFFFFF)
_HIGH = np.uint64(32)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Tables(NamedTuple):
    """The arrays of an index; the first `num_docs` rows of each are in use."""

    signatures: NDArray[np.uint32]
    """(capacity, num_perm)."""
    exact: NDArray[np.uint64]
    """(capacity, 2), the exact hash."""
    after: NDArray[np.int32]
    """(capacity, num_bands), the next document of the bucket, -1 where there is none."""
    seen: NDArray[np.int64]
    """(capacity,), the last query that met this document."""
    buckets: NDArray[np.uint64]
    """(num_bands * slots,), the tables of the bands one after the other."""
    same: NDArray[np.int32]
    """(slots,), the table of exact hashes: row + 1, 0 is free."""


@kernel
def resolve(
    tables: Tables,
    num_docs: int,
    num_seen: int,
    rows_per_band: int,
    min_equal: int,
    bucket_limit: int,
    signatures: NDArray[np.uint32],
    exact: NDArray[np.uint64],
    verdicts: NDArray[np.uint8],
    matches: NDArray[np.int32],
) -> int:
    """Judge documents in order; those kept enter the tables, which must have room for all.

    Args:
        tables: changed.
        num_docs: rows in use.
        num_seen: documents judged before, here.
        rows_per_band: r.
        min_equal: slots that must agree.
        bucket_limit: documents a bucket.
        signatures: (batch, num_perm).
        exact: (batch, 2).
        verdicts: (batch,), written: KEPT, EXACT or NEAR.
        matches: (batch,), written: the row matched, or for a kept document its own.

    Returns:
        The rows in use now.
    """
    tails = np.empty(tables.after.shape[1], np.int64)
    for doc in range(len(signatures)):
        match = find_exact(tables, exact[doc])
        verdict = EXACT
        if match < 0:
            verdict = NEAR
            match = find_near(
                tables, signatures[doc], rows_per_band, min_equal, bucket_limit, num_seen + doc, tails
            )
        if match < 0:
            verdict, match = KEPT, num_docs
            insert(tables, num_docs, rows_per_band, signatures[doc], exact[doc], tails)
            num_docs += 1
        verdicts[doc], matches[doc] = verdict, match
    return num_docs


@kernel
def extend(
    tables: Tables,
    num_docs: int,
    rows_per_band: int,
    bucket_limit: int,
    signatures: NDArray[np.uint32],
    exact: NDArray[np.uint64],
) -> int:
    """Enter documents that are known to be kept; as `resolve` would have."""
    tails = np.empty(tables.after.shape[1], np.int64)
    for doc in range(len(signatures)):
        find_near(tables, signatures[doc], rows_per_band, -1, bucket_limit, -1, tails)
        insert(tables, num_docs, rows_per_band, signatures[doc], exact[doc], tails)
        num_docs += 1
    return num_docs


@kernel
def find_exact(tables: Tables, exact: NDArray[np.uint64]) -> int:
    """The row with this exact hash, -1 where there is none."""
    size = len(tables.same)
    slot = _place(exact[0], size)
    while tables.same[slot]:
        row = tables.same[slot] - 1
        if tables.exact[row, 0] == exact[0] and tables.exact[row, 1] == exact[1]:
            return int(row)
        slot = slot + 1 if slot + 1 < size else 0
    return -1


@kernel
def find_near(
    tables: Tables,
    signature: NDArray[np.uint32],
    rows_per_band: int,
    min_equal: int,
    bucket_limit: int,
    query: int,
    tails: NDArray[np.int64],
) -> int:
    """The earliest row of the document's buckets that agrees in `min_equal` slots, -1 where there is none.

    `tails[band]` becomes what `insert` needs: the last document of the bucket, `_FULL`, or where there is no
    such bucket `_FREE` less the slot for it. With `min_equal` -1 nothing is compared: only tails are found.
    """
    num_bands = tables.after.shape[1]
    tails[:] = _FULL
    if _is_empty(signature):
        return -1
    best = len(tables.seen)
    for band in range(num_bands):
        slot, row = _bucket(tables, band, signature, rows_per_band)
        tails[band] = _FREE - slot
        length = 0
        while row >= 0 and row < best:
            length += 1
            if min_equal >= 0 and tables.seen[row] != query:
                tables.seen[row] = query
                if _agree(signature, tables.signatures[row], min_equal):
                    best = row
                    break
            tails[band] = row if length < bucket_limit else _FULL
            row = tables.after[row, band]
    return best if best < len(tables.seen) else -1


@kernel
def insert(
    tables: Tables,
    row: int,
    rows_per_band: int,
    signature: NDArray[np.uint32],
    exact: NDArray[np.uint64],
    tails: NDArray[np.int64],
) -> None:
    """Enter a document as `row`, behind the `tails` that `find_near` left."""
    tables.signatures[row] = signature
    tables.exact[row] = exact
    tables.seen[row] = -1
    enter_exact(tables, row)
    for band in range(tables.after.shape[1]):
        tables.after[row, band] = -1
        if tails[band] >= 0:
            tables.after[tails[band], band] = row
        elif tails[band] <= _FREE:
            mark = _band_hash(signature, band, rows_per_band) >> _HIGH << _HIGH
            tables.buckets[_FREE - tails[band]] = mark | np.uint64(row + 1)


@kernel
def enter_exact(tables: Tables, row: int) -> None:
    """Enter a row's exact hash."""
    size = len(tables.same)
    slot = _place(tables.exact[row, 0], size)
    while tables.same[slot]:
        slot = slot + 1 if slot + 1 < size else 0
    tables.same[slot] = row + 1


@kernel
def regrow(tables: Tables, old_slots: int, num_docs: int) -> None:
    """Spread both kinds of table over the slots they have now.

    The bands' tables have `old_slots` slots each, packed at the front of the grown array; the last is moved
    first, so that only one is held twice. `tables.same` comes empty.
    """
    num_bands = tables.after.shape[1]
    slots = len(tables.buckets) // num_bands
    for band in range(num_bands - 1, -1, -1):
        old = tables.buckets[band * old_slots : (band + 1) * old_slots].copy()
        tables.buckets[band * slots : (band + 1) * slots] = 0
        for entry in old:
            if entry:
                slot = _place(entry, slots)
                while tables.buckets[band * slots + slot]:
                    slot = slot + 1 if slot + 1 < slots else 0
                tables.buckets[band * slots + slot] = entry
    for row in range(num_docs):
        enter_exact(tables, row)


@kernel
def _bucket(tables: Tables, band: int, signature: NDArray[np.uint32], rows_per_band: int) -> tuple[int, int]:
    """Where a bucket stands or would, and its first document, -1 where there is none."""
    slots = len(tables.buckets) // tables.after.shape[1]
    h = _band_hash(signature, band, rows_per_band)
    slot = _place(h, slots)
    while tables.buckets[band * slots + slot]:
        entry = tables.buckets[band * slots + slot]
        if entry >> _HIGH == h >> _HIGH:
            row = int(np.int64(entry & _ROW)) - 1
            same = True
            for place in range(band * rows_per_band, (band + 1) * rows_per_band):
                same = same and tables.signatures[row, place] == signature[place]
            if same:
                return band * slots + slot, row
        slot = slot + 1 if slot + 1 < slots else 0
    return band * slots + slot, -1


@kernel
def _band_hash(signature: NDArray[np.uint32], band: int, rows_per_band: int) -> np.uint64:
    h = np.uint64(0)
    for place in range(band * rows_per_band, (band + 1) * rows_per_band):
        h = (h + np.uint64(signature[place])) * _GOLDEN
    return fmix64(h)


@kernel
def _place(h: np.uint64, slots: int) -> int:
    """A slot from the high 32 bits, for any number of slots."""
    return int(np.int64(((h >> _HIGH) * np.uint64(slots)) >> _HIGH))


@kernel
def _agree(one: NDArray[np.uint32], other: NDArray[np.uint32], min_equal: int) -> bool:
    """Whether two signatures agree in enough slots; most pairs are told apart by their first quarter."""
    equal, at = 0, 0
    while at < len(one):
        end = min(at + 32, len(one))
        for place in range(at, end):
            equal += one[place] == other[place]
        at = end
        if equal + len(one) - at < min_equal:
            return False
    return equal >= min_equal


@kernel
def _is_empty(signature: NDArray[np.uint32]) -> bool:
    for slot in signature:  # noqa: SIM110 - numba knows no generator expressions
        if slot != EMPTY:
            return False
    return True
