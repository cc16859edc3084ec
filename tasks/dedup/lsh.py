"""Locality-sensitive hashing over kept documents: the hot loops of the index.

A *bucket* of a band holds the kept documents with the same values in that band's rows, in the order they were
kept. A document is compared with the documents of its buckets, first to last, and matches the earliest whose
signature agrees in enough slots.

Documents are judged in batches, and a batch band by band. Its documents are sorted by the band's hash, so
that those of one bucket form a *group*; what a group's bucket holds from earlier batches is looked up once,
in hash order (`tasks.dedup.parts`), and stands in `Candidates`. Then the documents are judged one by one;
those kept join the `members` of their groups, where the rest of the batch finds them.

What grows a bucket are kept documents that are alike in places (the boilerplate of a site), for copies never
enter. A bucket therefore holds its first `BUCKET_LIMIT` documents only: a document costs at most num_bands x
BUCKET_LIMIT comparisons, whatever the corpus. The price is a near duplicate whose every bucket in common with
its original was full before the original came: it stays. (An exact copy never does.) Full are the buckets of
bands that are boilerplate through and through. Where pages of a template are alike by t, r rows a band, a
copy alike by s misses its original with a chance of (1 - s^r + t^r)^b instead of (1 - s^r)^b; at the defaults
and t = .6 that is 1e-5 for s = .85, 8e-4 for .8 and .5 % for .77. Templates alike by much more do not fill
buckets: by chance alone their pages match one of a thousand.

Sorted by 32 bits of a hash, a group may hold two buckets (with one limit): the rows themselves are compared,
so that no accident of hashing makes a pair. Answers depend on the kept documents and their order alone, not
on how the work was cut.
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

_NO_LIMIT = 2**31 - 1
_HIGH = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_REMEMBERED_BITS = 14  # 128 KB, which stay in the second-level cache


class Groups(NamedTuple):
    """A batch's documents by bucket; the exact hash is one band more, behind the others."""

    keys: NDArray[np.uint64]
    """(num_bands + 1, batch), sorted: the band's hash above, the document's place in the batch below."""
    first: NDArray[np.int32]
    """(batch, num_bands + 1), where the document's group begins in `keys`, which is also its number."""
    members: NDArray[np.int32]
    """(num_bands + 1, batch), rows of the group's documents that were kept, packed at its beginning."""
    filled: NDArray[np.int32]
    """(num_bands + 1, batch), how many there are, by group."""


class Candidates(NamedTuple):
    """What the buckets of a batch's groups held before it."""

    rows: NDArray[np.int32]
    """(num_candidates,), group after group, in the order they were kept."""
    begins: NDArray[np.int64]
    """(num_bands + 1, batch), where a group's rows begin."""
    counts: NDArray[np.int32]
    """(num_bands + 1, batch), how many there are; of a full bucket the limit."""


class Documents(NamedTuple):
    """Signatures and exact hashes, side by side."""

    signatures: NDArray[np.uint32]
    """(num_docs, num_perm)."""
    exact: NDArray[np.uint64]
    """(num_docs, 2)."""


def group(batch: Documents, num_bands: int, rows_per_band: int) -> Groups:
    """Sort a batch into groups without members."""
    shape = (num_bands + 1, len(batch.exact))
    keys = np.empty(shape, np.uint64)
    _hash_bands(batch, rows_per_band, keys)
    keys.sort(axis=1)
    groups = Groups(
        keys, np.empty(shape[::-1], np.int32), np.empty(shape, np.int32), np.zeros(shape, np.int32)
    )
    _number(groups)
    return groups


def limit_of(band: int, num_bands: int, bucket_limit: int) -> int:
    """Documents a bucket of a band; exact hashes have no limit."""
    return bucket_limit if band < num_bands else _NO_LIMIT


@kernel
def judge(
    batch: Documents,
    groups: Groups,
    candidates: Candidates,
    kept: Documents,
    num_docs: int,
    rows_per_band: int,
    min_equal: int,
    bucket_limit: int,
    verdicts: NDArray[np.uint8],
    matches: NDArray[np.int32],
) -> tuple[int, int]:
    """Judge documents in order; those kept enter `kept` and the members of their groups.

    Args:
        batch: the documents.
        groups: of the batch; members are added.
        candidates: of the groups.
        kept: the index, with room for the batch behind its `num_docs` rows.
        num_docs: rows in use.
        rows_per_band: r.
        min_equal: slots that must agree.
        bucket_limit: documents a bucket.
        verdicts: (batch,), written: KEPT, EXACT or NEAR.
        matches: (batch,), written: the row matched, or for a kept document its own.

    Returns:
        The rows in use now, and the pairs of signatures that were compared.
    """
    compared = 0
    rejected = np.full(2**_REMEMBERED_BITS, -1, np.int64)
    for doc in range(len(batch.exact)):
        match = _find_exact(batch, doc, groups, candidates, kept)
        verdict = EXACT
        if match < 0 and not _is_empty(batch.signatures[doc]):
            verdict = NEAR
            match, pairs = _find_near(
                batch, doc, groups, candidates, kept, num_docs, rows_per_band, min_equal, rejected
            )
            compared += pairs
        if match < 0:
            verdict, match = KEPT, num_docs
            _enter(batch, doc, groups, candidates, kept, num_docs, bucket_limit)
            num_docs += 1
        verdicts[doc], matches[doc] = verdict, match
    return num_docs, compared


@kernel
def enter(
    batch: Documents,
    groups: Groups,
    candidates: Candidates,
    kept: Documents,
    num_docs: int,
    bucket_limit: int,
) -> int:
    """Enter documents that are known to be kept, as `judge` would have."""
    for doc in range(len(batch.exact)):
        _enter(batch, doc, groups, candidates, kept, num_docs, bucket_limit)
        num_docs += 1
    return num_docs


@kernel
def _enter(
    batch: Documents,
    doc: int,
    groups: Groups,
    candidates: Candidates,
    kept: Documents,
    row: int,
    bucket_limit: int,
) -> None:
    kept.signatures[row] = batch.signatures[doc]
    kept.exact[row] = batch.exact[doc]
    num_bands = len(groups.keys) - 1
    empty = _is_empty(batch.signatures[doc])
    for band in range(num_bands + 1):
        first = groups.first[doc, band]
        filled = groups.filled[band, first]
        room = not empty and candidates.counts[band, first] + filled < bucket_limit
        if room or band == num_bands:
            groups.members[band, first + filled] = row
            groups.filled[band, first] = filled + 1


@kernel
def _find_exact(batch: Documents, doc: int, groups: Groups, candidates: Candidates, kept: Documents) -> int:
    """The row with the document's exact hash, -1 where there is none."""
    band = len(groups.keys) - 1
    first = groups.first[doc, band]
    before = candidates.counts[band, first]
    for at in range(before + groups.filled[band, first]):
        row = _row(groups, candidates, band, first, at, before)
        if kept.exact[row, 0] == batch.exact[doc, 0] and kept.exact[row, 1] == batch.exact[doc, 1]:
            return row
    return -1


@kernel
def _find_near(
    batch: Documents,
    doc: int,
    groups: Groups,
    candidates: Candidates,
    kept: Documents,
    num_docs: int,
    rows_per_band: int,
    min_equal: int,
    rejected: NDArray[np.int64],
) -> tuple[int, int]:
    """The earliest row of the document's buckets that agrees in `min_equal` slots, -1 where there is none.

    `rejected` remembers pairs of this batch that do not agree; most documents that share one bucket share
    more. Also returned: how many pairs were compared.
    """
    best, compared = num_docs, 0
    signature = batch.signatures[doc]
    for band in range(len(groups.keys) - 1):
        first = groups.first[doc, band]
        before = candidates.counts[band, first]
        for at in range(before + groups.filled[band, first]):
            row = _row(groups, candidates, band, first, at, before)
            if row >= best:
                break
            pair = (np.int64(doc) << 32) | row
            place = np.int64((np.uint64(row) * _GOLDEN) >> np.uint64(64 - _REMEMBERED_BITS))
            if rejected[place] == pair:
                continue
            other = kept.signatures[row]
            if not _same_band(signature, other, band, rows_per_band):
                continue
            compared += 1
            if _agree(signature, other, min_equal):
                best = row
                break
            rejected[place] = pair
    return (best if best < num_docs else -1), compared


@kernel
def _row(groups: Groups, candidates: Candidates, band: int, first: int, at: int, before: int) -> int:
    """A document of a group's bucket: `before` are from earlier batches, the rest from this one."""
    if at < before:
        return int(np.int64(candidates.rows[candidates.begins[band, first] + at]))
    return int(np.int64(groups.members[band, first + at - before]))


@kernel
def _hash_bands(batch: Documents, rows_per_band: int, keys: NDArray[np.uint64]) -> None:
    """`Groups.keys`, not yet sorted."""
    num_bands = len(keys) - 1
    for doc in range(len(batch.exact)):
        for band in range(num_bands):
            h = np.uint64(0)
            for place in range(band * rows_per_band, (band + 1) * rows_per_band):
                h = (h + np.uint64(batch.signatures[doc, place])) * _GOLDEN
            keys[band, doc] = (fmix64(h) & ~_LOW) | np.uint64(doc)
        keys[num_bands, doc] = (fmix64(batch.exact[doc, 0]) & ~_LOW) | np.uint64(doc)


@kernel
def _number(groups: Groups) -> None:
    """`Groups.first`, from the sorted keys."""
    for band in range(len(groups.keys)):
        first = 0
        for at in range(groups.keys.shape[1]):
            key = groups.keys[band, at]
            if at and key >> _HIGH != groups.keys[band, at - 1] >> _HIGH:
                first = at
            groups.first[np.int64(key & _LOW), band] = first


@kernel
def _same_band(one: NDArray[np.uint32], other: NDArray[np.uint32], band: int, rows_per_band: int) -> bool:
    for place in range(band * rows_per_band, (band + 1) * rows_per_band):
        if one[place] != other[place]:
            return False
    return True


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
