"""Which n-grams of a document repeat, for n = 1, 2, 3, ... in turn, in linear time each.

An n-gram can repeat only where the (n-1)-grams at its position and at the next one do. So the words are
numbered once, a pair of numbers of repeating (n-1)-grams is the key of an n-gram, and a level looks only
at the positions that the level below left. Two different n-grams of numbered words never get the same
number: only the words' hashes can collide.
"""

import numpy as np
from numpy.typing import NDArray

from tasks.text.hashing import find_or_add
from tasks.text.kernel import kernel

_HALF = np.uint64(32)


@kernel
def number_words(
    hashes: NDArray[np.uint64],
    count: int,
    numbers: NDArray[np.uint32],
    uses: NDArray[np.int32],
    table_keys: NDArray[np.uint64],
    table_numbers: NDArray[np.uint32],
    size: int,
) -> int:
    """Number the words from 1 in order of their first use.

    Args:
        hashes: (>= count,) a hash a word.
        count: the number of words.
        numbers: (>= count + 1,) filled with the number of each word, 0 behind the last.
        uses: (>= count + 1,) filled with how often each number is used.
        table_keys: see `find_or_add`.
        table_numbers: see `find_or_add`.
        size: `table_size(count)`.

    Returns:
        How many different words there are.
    """
    table_numbers[:size] = 0
    different = 0
    for word in range(count):
        number = find_or_add(table_keys, table_numbers, size, hashes[word], different + 1)
        if number > different:
            different = number
            uses[number] = 0
        numbers[word] = number
        uses[number] += 1
    numbers[count] = 0
    return different


@kernel
def keep_repeating(
    numbers: NDArray[np.uint32], uses: NDArray[np.int32], positions: NDArray[np.int32], count: int
) -> int:
    """Leave only the positions whose n-gram is used more than once; the numbers of the others become 0.

    Returns:
        How many are left at the front of `positions`, ascending as they were.
    """
    kept = 0
    for at in range(count):
        position = positions[at]
        if uses[numbers[position]] > 1:
            positions[kept] = position
            kept += 1
        else:
            numbers[position] = 0
    return kept


@kernel
def number_ngrams(
    numbers: NDArray[np.uint32],
    uses: NDArray[np.int32],
    firsts: NDArray[np.int32],
    positions: NDArray[np.int32],
    count: int,
    table_keys: NDArray[np.uint64],
    table_numbers: NDArray[np.uint32],
    size: int,
) -> tuple[int, int]:
    """Go from (n-1)-grams to n-grams, in place.

    Args:
        numbers: numbers of the (n-1)-grams that repeat, 0 elsewhere; becomes those of the n-grams.
        uses: filled with how often each number is used.
        firsts: filled with the position of its first use.
        positions: where the (n-1)-grams repeat, ascending; becomes where n-grams may.
        count: how many they are.
        table_keys: see `find_or_add`.
        table_numbers: see `find_or_add`.
        size: `table_size(count)`.

    Returns:
        How many positions are left, and how many different n-grams stand there.
    """
    table_numbers[:size] = 0
    left, different = 0, 0
    for at in range(count):
        position = positions[at]
        following = numbers[position + 1]
        if following == 0:
            numbers[position] = 0
            continue
        key = (np.uint64(numbers[position]) << _HALF) | np.uint64(following)
        number = find_or_add(table_keys, table_numbers, size, key, different + 1)
        if number > different:
            different = number
            uses[number] = 0
            firsts[number] = position
        numbers[position] = number
        uses[number] += 1
        positions[left] = position
        left += 1
    return left, different
