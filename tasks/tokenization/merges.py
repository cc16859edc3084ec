"""The ids of pieces by a tokenizer's own merges, in a kernel.

In: tables of a BPE model (`bpe.py`) and pieces. Out: their ids. A piece is split as the pre-tokenizer does,
its characters (or bytes) are looked up and merged: the pair of lowest rank first, the leftmost among equals.
That is what `tokenizers` does with a queue; over the few symbols of a word a plain search for the lowest pair
is faster (a new piece of web text takes 1 us; from Python to `tokenizers` and back, 13 us).

What is not certain is refused, and left to the library: pieces of more than `LONGEST` bytes or that lead
their document, unknown characters, characters that the split may take in a way that is not known here.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.text.hashing import find_or_add, fmix64, hash_bytes
from tasks.text.kernel import kernel
from tasks.tokenization.lookup import BYTES_AT, IDS_AT, KEY, NUM_IDS, find_entry
from tasks.tokenization.regex import BEYOND
from tasks.tokenization.splits import UNKNOWN, Splits, split_characters

LONGEST = 256
"""Bytes of a piece that is merged here: the search for the lowest pair is quadratic in them (random letters
and the Llama-type 32k merges: 6 bytes take 0.4 us, 64 take 5, 256 take 42, still less than the library)."""
POINTS = 0x110000
_NO_RANK = 0xFFFFFFFF


class Merges(NamedTuple):
    """A BPE model as tables (a tuple, so that kernels take it)."""

    symbols: NDArray[np.int32]
    """(256,) ids of bytes or (0x110000,) ids of characters; -1: there is none."""
    byte_ids: NDArray[np.int32]
    """(256,) of a character that has no id of its own; -1: there is none."""
    keys: NDArray[np.uint64]
    """(power of two,) an open-addressing table of pairs, left id << 32 | right id."""
    numbers: NDArray[np.uint32]
    """(power of two,) the rank of each from 1; 0: the slot is free."""
    made: NDArray[np.uint32]
    """(merges,) by rank, the id that a merge makes."""
    whole_slots: NDArray[np.int64]
    """(power of two,) a table, as `lookup.py` has them, of what is a token before any merge."""
    whole: NDArray[np.int32]
    """(tokens, 4) its entries, `IDS_AT` being the id itself."""
    arena: NDArray[np.uint8]
    """Their bytes."""
    splits: Splits


@kernel
def fill_table(pairs: NDArray[np.uint64], keys: NDArray[np.uint64], numbers: NDArray[np.uint32]) -> None:
    """Enter pairs, which differ, in the table by rank."""
    for rank in range(len(pairs)):
        find_or_add(keys, numbers, len(keys), pairs[rank], rank + 1)


@kernel
def _rank(keys: NDArray[np.uint64], numbers: NDArray[np.uint32], left: int, right: int) -> int:
    """The rank of a pair of ids, or `_NO_RANK`."""
    key = (np.uint64(left) << np.uint64(32)) | np.uint64(right)
    mask = np.int64(len(keys) - 1)
    slot = np.int64(fmix64(key) & np.uint64(mask))
    while numbers[slot] != 0:
        if keys[slot] == key:
            return int(np.int64(numbers[slot]) - 1)
        slot = (slot + 1) & mask
    return _NO_RANK


@kernel
def _merge(
    word: NDArray[np.int64],
    size: int,
    ranks: NDArray[np.int64],
    keys: NDArray[np.uint64],
    numbers: NDArray[np.uint32],
    made: NDArray[np.uint32],
) -> int:
    """Merge the first `size` ids of `word` in place; how many are left.

    `ranks` is room for the rank of each id and the next; both arrays have more than `size` entries.
    """
    for at in range(size - 1):
        ranks[at] = _rank(keys, numbers, word[at], word[at + 1])
    while size > 1:
        best = 0
        for at in range(1, size - 1):
            if ranks[at] < ranks[best]:
                best = at
        if ranks[best] == _NO_RANK:
            break
        word[best] = made[ranks[best]]
        size -= 1
        for at in range(best + 1, size):
            word[at], ranks[at] = word[at + 1], ranks[at + 1]
        if best > 0:
            ranks[best - 1] = _rank(keys, numbers, word[best - 1], word[best])
        if best < size - 1:
            ranks[best] = _rank(keys, numbers, word[best], word[best + 1])
    return size


@kernel
def _decode(data: NDArray[np.uint8], at: int, width: int, stop: int) -> int:
    """The character of `width` bytes at `at`; -1: it is none that UTF-8 allows."""
    if width == 1:
        return int(data[at]) if data[at] < BEYOND else -1
    if at + width > stop:
        return -1
    point = np.int64(data[at]) & (0x7F >> width)
    for offset in range(1, width):
        byte = np.int64(data[at + offset])
        if byte >> 6 != 2:
            return -1
        point = point << 6 | (byte & 0x3F)
    least = 0x80 if width == 2 else 0x800 if width == 3 else 0x10000
    if point < least or point >= POINTS or 0xD800 <= point < 0xE000:
        return -1
    return int(point)


class _Room(NamedTuple):
    """Arrays of `LONGEST` + 1 entries that a kernel works in."""

    points: NDArray[np.int64]
    groups: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    begins: NDArray[np.bool_]
    word: NDArray[np.int64]
    ranks: NDArray[np.int64]


@kernel
def _characters(data: NDArray[np.uint8], start: int, stop: int, room: _Room) -> int:
    """Fill `points` and `offsets` with the characters of a piece; their number, or -1 if it is no UTF-8."""
    number, at = 0, start
    while at < stop:
        byte = data[at]
        width = 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
        point = _decode(data, at, width, stop)
        if point < 0:
            return -1
        room.points[number], room.offsets[number] = point, at
        number += 1
        at += width
    room.offsets[number] = stop
    return number


@kernel
def _ids_by_characters(
    merges: Merges, data: NDArray[np.uint8], num: int, room: _Room, out: NDArray[np.uint32]
) -> int:
    """Fill `out` with the ids of a piece that is one word of characters; their number, or -1: refused."""
    size = 0
    for number in range(num):
        symbol = merges.symbols[room.points[number]]
        if symbol >= 0:
            room.word[size] = symbol
            size += 1
            continue
        for at in range(room.offsets[number], room.offsets[number + 1]):
            room.word[size] = merges.byte_ids[data[at]]
            if room.word[size] < 0:
                return -1
            size += 1
    size = _merge(room.word, size, room.ranks, merges.keys, merges.numbers, merges.made)
    for at in range(size):
        out[at] = room.word[at]
    return size


@kernel
def _ids_by_bytes(
    merges: Merges, data: NDArray[np.uint8], num: int, room: _Room, out: NDArray[np.uint32]
) -> int:
    """Fill `out` with the ids of a piece that is split before its bytes are merged; their number, or -1."""
    splits = merges.splits
    for number in range(num):
        point = room.points[number]
        room.groups[number] = splits.groups[point] if point < len(splits.groups) else UNKNOWN
        if room.groups[number] == UNKNOWN:
            return -1
    split_characters(room.groups, num, splits.starts, splits.after, splits.ends, room.begins)
    filled = first = 0
    while first < num:
        behind = first + 1
        while not room.begins[behind]:
            behind += 1
        start, stop = room.offsets[first], room.offsets[behind]
        first = behind
        if len(merges.whole):
            value = hash_bytes(data, start, stop)
            key = 2 * (stop - start)
            entry = find_entry(merges.whole_slots, merges.whole, merges.arena, value, data, start, key)
            if entry >= 0:
                out[filled] = merges.whole[entry, IDS_AT]
                filled += 1
                continue
        for at in range(start, stop):
            room.word[at - start] = merges.symbols[data[at]]
            if room.word[at - start] < 0:
                return -1
        size = _merge(room.word, stop - start, room.ranks, merges.keys, merges.numbers, merges.made)
        for at in range(size):
            out[filled + at] = room.word[at]
        filled += size
    return filled


@kernel
def merge_pieces(
    merges: Merges, data: NDArray[np.uint8], entries: NDArray[np.int32], ids: NDArray[np.uint32]
) -> int:
    """Encode pieces.

    Args:
        merges: what `derive_merges` found.
        data: the bytes of the pieces.
        entries: (num_pieces, 4) as `lookup.py` has them. Where ids begin and how many there are is filled in;
            -1 of them: the piece is left to the library, as is each that leads its document.
        ids: (>= bytes of the pieces,) filled.

    Returns:
        How many ids there are.
    """
    most = LONGEST + 1
    room = _Room(
        np.empty(most, np.int64),
        np.empty(most, np.uint8),
        np.empty(most, np.int64),
        np.empty(most, np.bool_),
        np.empty(most, np.int64),
        np.empty(most, np.int64),
    )
    filled = 0
    for piece in range(len(entries)):
        start, key = int(entries[piece, BYTES_AT]), int(entries[piece, KEY])
        entries[piece, NUM_IDS] = -1
        if key & 1 or key >> 1 > LONGEST:
            continue
        num = _characters(data, start, start + (key >> 1), room)
        if num < 0:
            continue
        if len(merges.symbols) == 256:
            size = _ids_by_bytes(merges, data, num, room, ids[filled:])
        else:
            size = _ids_by_characters(merges, data, num, room, ids[filled:])
        if size >= 0:
            entries[piece, IDS_AT], entries[piece, NUM_IDS] = filled, size
            filled += size
    return filled
