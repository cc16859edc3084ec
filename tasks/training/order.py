"""Which sequences a step sees: a function of the recipe and the step alone, never of the number of ranks.

A corpus grows by segments: segment k is rows [border k-1, border k). Each is shuffled on its own, so a
larger budget begins with what a smaller one saw. A segment up to the window is permuted whole. A larger one
is cut into blocks of a hundredth of the window; the blocks are permuted over the whole segment, then
gathered, a window's worth at a time, and the rows of each window are permuted: every row can stand
anywhere, what must be at hand at once is a window. Each epoch has an order of its own. The last incomplete
batch is left out.

The position is one integer, the step. Memory: 8 bytes a row of the window in use.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tasks.store.errors import RecipeError

Rows = NDArray[np.int64]

_BLOCKS_A_WINDOW = 100


def _generator(*key: int) -> np.random.Generator:
    """Philox keyed by integers: the same numbers on every machine."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


@lru_cache(maxsize=4)
def segment_window(seed: int, segment: int, epoch: int, length: int, window: int, number: int) -> Rows:
    """The rows of one window of a segment, in the order they are seen.

    Args:
        seed: of the recipe.
        segment: its number.
        epoch: from 0.
        length: rows of the segment.
        window: rows a window aims at.
        number: of the window, from 0.

    Returns:
        Row numbers within the segment; the windows of a segment hold each row once.
    """
    shuffle = _generator(seed, segment, epoch, number + 1)
    if length <= window:
        rows = np.arange(length, dtype=np.int64)
    else:
        block = max(1, window // _BLOCKS_A_WINDOW)
        per_window = max(1, window // block)
        blocks = _generator(seed, segment, epoch, 0).permutation(-(-length // block))
        chosen = blocks[number * per_window : (number + 1) * per_window]
        rows = (chosen[:, None] * block + np.arange(block)[None, :]).ravel().astype(np.int64)
        rows = rows[rows < length]
    rows = shuffle.permutation(rows)
    rows.flags.writeable = False  # shared by the cache
    return rows


@lru_cache(maxsize=64)
def window_ends(seed: int, segment: int, epoch: int, length: int, window: int) -> Rows:
    """Where each window of a segment ends, in rows seen: the shorter last block may fall into any window."""
    if length <= window:
        return np.array([length], dtype=np.int64)
    block = max(1, window // _BLOCKS_A_WINDOW)
    per_window = max(1, window // block)
    blocks = _generator(seed, segment, epoch, 0).permutation(-(-length // block))
    sizes = np.minimum(length - blocks * block, block)
    return np.add.reduceat(sizes, np.arange(0, len(blocks), per_window)).cumsum().astype(np.int64)


@dataclass(frozen=True, slots=True)
class SequenceOrder:
    """The order of a training.

    Raises:
        RecipeError: a milestone adds less than one batch.
    """

    seed: int
    borders: tuple[int, ...]
    """Sequences of each milestone's corpus, growing."""
    global_batch: int
    window: int
    epochs: int = 1

    def __post_init__(self) -> None:
        for number, (start, end) in enumerate(self.segments):
            if end - start < self.global_batch:
                raise RecipeError(
                    f"milestone {number + 1} adds {end - start} sequences, less than one batch "
                    f"(training.global_batch_sequences={self.global_batch}); raise the milestone, or lower "
                    f"the batch to {max(1, end - start)} or less"
                )

    @property
    def segments(self) -> list[tuple[int, int]]:
        """[start, end) of each segment."""
        return list(zip((0, *self.borders[:-1]), self.borders, strict=True))

    @property
    def num_steps(self) -> int:
        """Optimizer steps: whole batches only."""
        return self.epochs * self.borders[-1] // self.global_batch

    @property
    def left_out(self) -> int:
        """Sequences of the last incomplete batch."""
        return self.epochs * self.borders[-1] - self.num_steps * self.global_batch

    def batch_rows(self, step: int) -> Rows:
        """The corpus rows of a step, (global_batch,)."""
        assert 0 <= step < self.num_steps, f"step {step} of {self.num_steps}"
        return self._seen(step * self.global_batch, (step + 1) * self.global_batch)

    def _seen(self, start: int, end: int) -> Rows:
        """Rows at positions [start, end) of all that is seen."""
        parts: list[Rows] = []
        total = self.borders[-1]
        for epoch in range(start // total, (end - 1) // total + 1):
            for segment, (low, high) in enumerate(self.segments):
                ends = window_ends(self.seed, segment, epoch, high - low, self.window)
                first = epoch * total + low
                a, b = max(start, first) - first, min(end, first + high - low) - first
                if a >= b:
                    continue
                number = int(np.searchsorted(ends, a, side="right"))
                while a < b:
                    begin = int(ends[number - 1]) if number else 0
                    rows = segment_window(self.seed, segment, epoch, high - low, self.window, number)
                    stop = min(b, int(ends[number]))
                    parts.append(rows[a - begin : stop - begin] + low)
                    a, number = stop, number + 1
        return np.concatenate(parts)


def divide_batch(global_batch: int, ranks: int, micro_batch: int = 0) -> int:
    """Sequences a rank computes in a step, where they divide evenly.

    Args:
        global_batch: sequences a step sees.
        ranks: processes that share it.
        micro_batch: sequences a rank computes at once; 0: to be chosen, so any divisor will do.

    Raises:
        RecipeError: they do not divide; names the nearest that do.
    """
    unit = ranks * max(1, micro_batch)
    if global_batch % unit == 0:
        return global_batch // ranks
    below, above = global_batch // unit * unit, (global_batch // unit + 1) * unit
    nearest = above if below == 0 or above - global_batch <= global_batch - below else below
    each = f" of {micro_batch} sequences at once (training.micro_batch)" if micro_batch else ""
    raise RecipeError(
        f"training.global_batch_sequences={global_batch} does not divide by {ranks} ranks{each}; the nearest "
        f"that does is {nearest}, or set DAPT_RANKS to a divisor of {global_batch}"
    )


def largest_divisor(number: int, at_most: int) -> int:
    """The largest divisor of a number that is not above a bound; 1 where there is no other."""
    return max(d for d in range(1, number + 1) if number % d == 0 and (d <= at_most or d == 1))
