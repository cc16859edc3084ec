"""The hot loops of the piece cache: find the pieces of a batch, look them up, copy their ids.

A piece is known by its bytes and by whether it leads its document, and every hit is compared byte by byte:
a hash only says where to look. Threads look up while one of them inserts, without a lock: see `publish`.
"""

import numpy as np
from numpy.typing import NDArray

from tasks.text.hashing import FNV_OFFSET, FNV_PRIME, fmix64
from tasks.text.kernel import kernel

BYTES_AT, KEY, IDS_AT, NUM_IDS = 0, 1, 2, 3
"""Columns of `entries`: where the piece's bytes begin, 2 * their number + (leads its document), where its
ids begin, and their number."""

_TAG_SHIFT = np.uint64(32)
_BLOCK = 128
"""Pieces that are looked up together."""
_FEW_SLOTS = 1 << 13
"""Of the table of new pieces, at first: a warm cache meets few of them."""


@kernel
def _same(
    entries: NDArray[np.int32],
    arena: NDArray[np.uint8],
    number: int,
    data: NDArray[np.uint8],
    start: int,
    key: int,
) -> bool:
    """Whether entry `number` is the piece of that key whose bytes stand in `data` from `start`."""
    if entries[number, KEY] != key:
        return False
    at, size, offset = entries[number, BYTES_AT], key >> 1, 0
    while offset < size and arena[at + offset] == data[start + offset]:
        offset += 1
    return offset == size


@kernel
def find_entry(
    slots: NDArray[np.int64],
    entries: NDArray[np.int32],
    arena: NDArray[np.uint8],
    value: np.uint64,
    data: NDArray[np.uint8],
    start: int,
    key: int,
) -> int:
    """The entry of a piece with hash `value`, or -1 - the free slot where the search ended."""
    mask = len(slots) - 1
    slot = np.int64(value) & mask
    tag = np.int64(value >> _TAG_SHIFT)
    while True:
        seen = slots[slot]
        if seen == 0:
            return int(-1 - slot)
        if (seen >> 32) & 0xFFFFFFFF == tag:
            number = (seen & 0xFFFFFFFF) - 1
            if _same(entries, arena, number, data, start, key):
                return int(number)
        slot = (slot + 1) & mask


@kernel
def _slot(value: np.uint64, number: int) -> int:
    """What a slot holds: the upper half of the hash, and the entry's number from 1."""
    return int((np.int64(value >> _TAG_SHIFT) << 32) | (number + 1))


@kernel
def publish(first: int, end: int, hashes: NDArray[np.uint64], slots: NDArray[np.int64]) -> None:
    """Let readers find the entries `first` to `end`.

    A slot is one aligned 64-bit word, written once, after everything it leads to (the call that wrote that
    has returned to Python in between, which orders memory). A reader finds a piece whole or not at all.
    """
    mask = len(slots) - 1
    for number in range(first, end):
        slot = np.int64(hashes[number]) & mask
        while slots[slot] != 0:
            slot = (slot + 1) & mask
        slots[slot] = _slot(hashes[number], number)


@kernel
def _cut_block(
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    whole: NDArray[np.bool_],
    leads: bool,
    cut: NDArray[np.bool_],
    counts: NDArray[np.int64],
    cursor: NDArray[np.int64],
    starts: NDArray[np.int64],
    keys: NDArray[np.int64],
    values: NDArray[np.uint64],
) -> int:
    """Find the next pieces, as many as there is room for.

    Args:
        offsets: see `find_pieces`, as are the next four.
        data: UTF-8 bytes.
        whole: (num_docs,)
        leads: a document's first piece is encoded otherwise than the others.
        cut: (65536,)
        counts: (num_docs,) each advanced by the document's pieces.
        cursor: (2,) the document, and where in `data` it goes on; advanced.
        starts: (room,) filled with where pieces start.
        keys: (room,) filled with 2 * bytes + (leads its document).
        values: (room,) filled with hashes.

    Returns:
        How many pieces there are; 0 behind the last document.
    """
    size, doc, at = 0, cursor[0], cursor[1]
    while size < len(starts) and doc < len(whole):
        stop = offsets[doc + 1]
        if at == stop:
            doc += 1
            continue
        lead = 1 if at == offsets[doc] and (leads or whole[doc]) else 0
        start = at
        value = (FNV_OFFSET ^ np.uint64(data[at])) * FNV_PRIME
        left = np.int64(data[at]) << 8
        at += 1
        while at < stop:
            right = np.int64(data[at])
            if cut[left | right] and not whole[doc]:
                break
            value = (value ^ np.uint64(right)) * FNV_PRIME
            left = right << 8
            at += 1
        starts[size], keys[size] = start, 2 * (at - start) + lead
        values[size] = fmix64(value ^ np.uint64(lead))
        counts[doc] += 1
        size += 1
    cursor[0], cursor[1] = doc, at
    return size


@kernel
def _touch(
    slots: NDArray[np.int64],
    entries: NDArray[np.int32],
    arena: NDArray[np.uint8],
    values: NDArray[np.uint64],
    seen: NDArray[np.int64],
) -> None:
    """Read what the lookups of a block will read, one table after the other.

    The tables are larger than a processor's caches, and a lookup waits for each of three reads in turn; reads
    for different pieces do not wait for each other (measured: about 1.5 times as fast). What is read is kept
    in `seen`, so that no compiler leaves it out.
    """
    mask = len(slots) - 1
    for piece in range(len(values)):
        seen[piece] = slots[np.int64(values[piece]) & mask]
    for piece in range(len(values)):
        seen[piece] = entries[max((seen[piece] & 0xFFFFFFFF) - 1, 0), BYTES_AT]
    for piece in range(len(values)):
        seen[piece] = arena[seen[piece]]


@kernel
def find_pieces(
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    whole: NDArray[np.bool_],
    leads: bool,
    cut: NDArray[np.bool_],
    slots: NDArray[np.int64],
    entries: NDArray[np.int32],
    arena: NDArray[np.uint8],
    found: NDArray[np.int32],
    counts: NDArray[np.int64],
    new_entries: NDArray[np.int32],
    new_hashes: NDArray[np.uint64],
) -> int:
    """Cut documents into pieces and look each up.

    Args:
        offsets: (num_docs + 1,) of the documents in `data`.
        data: UTF-8 bytes.
        whole: (num_docs,) documents that are one piece.
        leads: a document's first piece is encoded otherwise than the others.
        cut: (65536,) whether to cut between two bytes, at 256 * left + right.
        slots: (power of two,) the table of the cache.
        entries: (capacity, 4) its entries.
        arena: the bytes of its pieces.
        found: (>= pieces,) filled with an entry of the cache, or -1 - a new piece's number.
        counts: (num_docs,) zeros, filled with the pieces of each document.
        new_entries: (>= new pieces, 4) filled like `entries`, the bytes being those of `data`.
        new_hashes: (>= new pieces,) filled.

    Returns:
        The number of different new pieces.
    """
    num_pieces = num_new = 0
    new_slots = np.zeros(_FEW_SLOTS, np.int64)
    cursor = np.zeros(2, np.int64)
    starts, keys = np.empty(_BLOCK, np.int64), np.empty(_BLOCK, np.int64)
    values, seen = np.empty(_BLOCK, np.uint64), np.empty(_BLOCK, np.int64)
    while True:
        size = _cut_block(offsets, data, whole, leads, cut, counts, cursor, starts, keys, values)
        if size == 0:
            break
        _touch(slots, entries, arena, values[:size], seen)
        for piece in range(size):
            value, start, key = values[piece], starts[piece], keys[piece]
            number = find_entry(slots, entries, arena, value, data, start, key)
            if number < 0:
                new = find_entry(new_slots, new_entries, data, value, data, start, key)
                if new < 0:
                    new_slots[-1 - new] = _slot(value, num_new)
                    new_entries[num_new, BYTES_AT] = start
                    new_entries[num_new, KEY] = key
                    new_hashes[num_new] = value
                    new = num_new
                    num_new += 1
                    if 2 * num_new > len(new_slots):
                        new_slots = np.zeros(4 * len(new_slots), np.int64)
                        publish(0, num_new, new_hashes, new_slots)
                number = -1 - new
            found[num_pieces + piece] = number
        num_pieces += size
    return num_new


@kernel
def count_ids(
    found: NDArray[np.int32],
    counts: NDArray[np.int64],
    entries: NDArray[np.int32],
    new_entries: NDArray[np.int32],
    lengths: NDArray[np.int64],
) -> int:
    """Fill `lengths` with the ids of each document; their sum."""
    at = total = 0
    for doc in range(len(counts)):
        length = 0
        for piece in range(at, at + counts[doc]):
            number = found[piece]
            length += entries[number, NUM_IDS] if number >= 0 else new_entries[-1 - number, NUM_IDS]
        at += counts[doc]
        lengths[doc] = length
        total += length
    return total


@kernel
def copy_ids(
    found: NDArray[np.int32],
    num_pieces: int,
    entries: NDArray[np.int32],
    ids: NDArray[np.uint32],
    new_entries: NDArray[np.int32],
    new_ids: NDArray[np.uint32],
    out: NDArray[np.uint16 | np.uint32],
) -> None:
    """Fill `out` with the ids of all pieces, in order."""
    at = 0
    for piece in range(num_pieces):
        number = found[piece]
        if number >= 0:
            start = entries[number, IDS_AT]
            for offset in range(entries[number, NUM_IDS]):
                out[at] = ids[start + offset]
                at += 1
        else:
            start = new_entries[-1 - number, IDS_AT]
            for offset in range(new_entries[-1 - number, NUM_IDS]):
                out[at] = new_ids[start + offset]
                at += 1


@kernel
def add_entries(
    new_entries: NDArray[np.int32],
    new_hashes: NDArray[np.uint64],
    new_ids: NDArray[np.uint32],
    data: NDArray[np.uint8],
    longest: int,
    fill: NDArray[np.int64],
    slots: NDArray[np.int64],
    entries: NDArray[np.int32],
    hashes: NDArray[np.uint64],
    arena: NDArray[np.uint8],
    ids: NDArray[np.uint32],
) -> None:
    """Write new pieces behind the entries of the cache; no reader sees them before `publish`.

    Args:
        new_entries: (num_new, 4) see `find_pieces`.
        new_hashes: (num_new,)
        new_ids: the ids of the new pieces.
        data: what the new pieces' bytes stand in.
        longest: bytes of the longest piece that is kept.
        fill: (3,) entries, bytes and ids in use; advanced.
        slots: the table of the cache.
        entries: (capacity, 4)
        hashes: (capacity,)
        arena: bytes; a piece that does not fit is left out, as is one when entries or ids are full.
        ids: ids.
    """
    for new in range(len(new_entries)):
        key, num_ids = np.int64(new_entries[new, KEY]), np.int64(new_entries[new, NUM_IDS])
        size, start, ids_start = key >> 1, np.int64(new_entries[new, BYTES_AT]), new_entries[new, IDS_AT]
        number, bytes_at, ids_at = fill[0], fill[1], fill[2]
        fits = number < len(entries) and bytes_at + size <= len(arena) and ids_at + num_ids <= len(ids)
        if not fits or size > longest:
            continue
        if find_entry(slots, entries, arena, new_hashes[new], data, int(start), int(key)) >= 0:
            continue  # another thread was faster
        arena[bytes_at : bytes_at + size] = data[start : start + size]
        ids[ids_at : ids_at + num_ids] = new_ids[ids_start : ids_start + num_ids]
        entries[number, BYTES_AT], entries[number, KEY] = bytes_at, key
        entries[number, IDS_AT], entries[number, NUM_IDS] = ids_at, num_ids
        hashes[number] = new_hashes[new]
        fill[0], fill[1], fill[2] = number + 1, bytes_at + size, ids_at + num_ids
