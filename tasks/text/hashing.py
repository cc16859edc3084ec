"""64-bit hashes of bytes and of number pairs, unsalted: the same on every machine.

They stand for the text they were made of. n different texts meet by chance with probability about
n**2 / 2**65: 3e-8 for a document of a million different words, 3e-14 for one of a thousand.
"""

import numpy as np
from numpy.typing import NDArray

from tasks.text.kernel import kernel

FNV_OFFSET = np.uint64(0xCBF29CE484222325)
FNV_PRIME = np.uint64(0x100000001B3)
_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
_HALF = np.uint64(33)


@kernel
def fmix64(value: np.uint64) -> np.uint64:
    """Spread 64 bits so that each depends on all (the finaliser of MurmurHash3): a bijection."""
    value = (value ^ (value >> _HALF)) * _MIX_1
    value = (value ^ (value >> _HALF)) * _MIX_2
    return value ^ (value >> _HALF)


@kernel
def hash_bytes(data: NDArray[np.uint8], start: int, stop: int) -> np.uint64:
    """Hash of `data[start:stop]`: FNV-1a over its bytes, then `fmix64`.

    Source: Fowler, Noll, Vo, RFC 9923; Appleby's MurmurHash3.
    """
    value = FNV_OFFSET
    for at in range(start, stop):
        value = (value ^ np.uint64(data[at])) * FNV_PRIME
    return fmix64(value)


@kernel
def combine(value: np.uint64, other: np.uint64) -> np.uint64:
    """The hash of a sequence that had `value` and goes on with `other`; order counts."""
    return fmix64((value * FNV_PRIME + FNV_OFFSET) ^ other)


@kernel
def table_size(entries: int) -> int:
    """Slots of a table for so many entries: the power of two that leaves at least a quarter of them free."""
    size = 8
    while size * 3 < entries * 4:
        size *= 2
    return size


@kernel
def find_or_add(
    keys: NDArray[np.uint64], numbers: NDArray[np.uint32], size: int, key: np.uint64, number: int
) -> int:
    """The number of `key` in an open-addressing table; a new one is added as `number`.

    Args:
        keys: (>= size,) the keys of the slots that are taken.
        numbers: (>= size,) their numbers from 1; 0: the slot is free.
        size: slots in use, see `table_size`; the table must have been cleared by `numbers[:size] = 0`.
        key: what is looked for. It is mixed here, so counters and pairs do as well as hashes.
        number: what a new key gets.
    """
    slot = np.int64(fmix64(key) & np.uint64(size - 1))
    while numbers[slot] != 0:
        if keys[slot] == key:
            return int(np.int64(numbers[slot]))
        slot = (slot + 1) & (size - 1)
    keys[slot] = key
    numbers[slot] = number
    return number
