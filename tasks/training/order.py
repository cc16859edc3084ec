"""Which sequences a step sees: a function of the recipe and the step alone, never of the number of ranks.

A corpus grows by segments: segment k is rows [border k-1, border k). Each is shuffled on its own, so a
larger budget begins with what a smaller one saw. A segment up to the window is permuted whole. A larger one
is cut into blocks of a hundredth of the window; the blocks are permuted over the whole segment, then
gathered, a window's worth at a time, and the rows of each window are permuted: every row can stand
anywhere, what must be at hand at once is a window. Each epoch has an order of its own. Replayed general rows
come on top, at exact positions (`replay.py`), shuffled the same way in an order of their own. The last
incomplete batch is left out.

The position is one integer, the step. Memory: 8 bytes a row of the window in use.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tasks.store.errors import RecipeError
from tasks.training.replay import NO_REPLAY, Replay

Rows = NDArray[np.int64]
Key = tuple[int, ...]
"""What a segment's random numbers follow: the seed, the segment's number, and which stream of it."""

_BLOCKS_A_WINDOW = 100
_REPLAYED = (0, 1)
"""The stream of replayed rows; an epoch of the domain's has one number."""


def _generator(*key: int) -> np.random.Generator:
    """Philox keyed by integers: the same numbers on every machine."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


@lru_cache(maxsize=8)
def segment_window(key: Key, length: int, window: int, number: int) -> Rows:
    """The rows of one window of a segment, in the order they are seen.

    Args:
        key: of the segment's random numbers.
        length: rows of the segment.
        window: rows a window aims at.
        number: of the window, from 0.

    Returns:
        Row numbers within the segment; the windows of a segment hold each row once.
    """
    shuffle = _generator(*key, number + 1)
    if length <= window:
        rows = np.arange(length, dtype=np.int64)
    else:
        block = max(1, window // _BLOCKS_A_WINDOW)
        per_window = max(1, window // block)
        blocks = _generator(*key, 0).permutation(-(-length // block))
        chosen = blocks[number * per_window : (number + 1) * per_window]
        rows = (chosen[:, None] * block + np.arange(block)[None, :]).ravel().astype(np.int64)
        rows = rows[rows < length]
    rows = shuffle.permutation(rows)
    rows.flags.writeable = False  # shared by the cache
    return rows


@lru_cache(maxsize=64)
def window_ends(key: Key, length: int, window: int) -> Rows:
    """Where each window of a segment ends, in rows seen: the shorter last block may fall into any window."""
    if length <= window:
        return np.array([length], dtype=np.int64)
    block = max(1, window // _BLOCKS_A_WINDOW)
    per_window = max(1, window // block)
    blocks = _generator(*key, 0).permutation(-(-length // block))
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
    replay: Replay = NO_REPLAY

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
    def num_sequences(self) -> int:
        """Seen in all epochs, replayed ones among them."""
        return self.replay.total(self.epochs * self.borders[-1])

    @property
    def num_steps(self) -> int:
        """Optimizer steps: whole batches only."""
        return self.num_sequences // self.global_batch

    @property
    def left_out(self) -> int:
        """Sequences of the last incomplete batch."""
        return self.num_sequences - self.num_steps * self.global_batch

    def batch_rows(self, step: int) -> Rows:
        """The rows of a step, (global_batch,): of the domain's corpus, numbered on through the general one.

        Row `borders[-1] + n` is row n of the general corpus.
        """
        assert 0 <= step < self.num_steps, f"step {step} of {self.num_steps}"
        start, end = step * self.global_batch, (step + 1) * self.global_batch
        first, last = self.replay.before(start), self.replay.before(end)
        of_domain = self._of_domain(start - first, end - last)
        if first == last:
            return of_domain
        rows = np.empty(self.global_batch, np.int64)
        replayed = np.zeros(self.global_batch, np.bool_)
        replayed[np.array(self.replay.positions(start, end)) - start] = True
        rows[replayed] = self._replayed(first, last)
        rows[~replayed] = of_domain
        return rows

    def _of_domain(self, start: int, end: int) -> Rows:
        """Domain rows at positions [start, end) of all of them that are seen."""
        total = self.borders[-1]
        parts = [np.empty(0, np.int64)]
        for epoch in range(start // total, (end - 1) // total + 1):
            first = epoch * total
            parts += self._shuffled((epoch,), self.segments, start - first, end - first)
        return np.concatenate(parts)

    def _replayed(self, start: int, end: int) -> Rows:
        """General rows at positions [start, end) of all that are seen, numbered on from the domain's."""
        needed = [self.replay.needed(self.epochs * border) for border in self.borders]
        segments = self.replay.segments(needed)
        seen = np.concatenate(list(self._shuffled(_REPLAYED, segments, start, end)))
        return seen % self.replay.rows + self.borders[-1]

    def _shuffled(
        self, stream: Key, segments: Sequence[tuple[int, int]], start: int, end: int
    ) -> Iterator[Rows]:
        """Rows at positions [start, end) of segments that follow each other, each shuffled on its own."""
        for segment, (low, high) in enumerate(segments):
            key, length = (self.seed, segment, *stream), high - low
            a, b = max(start, low) - low, min(end, high) - low
            if a >= b:
                continue
            ends = window_ends(key, length, self.window)
            number = int(np.searchsorted(ends, a, side="right"))
            while a < b:
                begin = int(ends[number - 1]) if number else 0
                rows = segment_window(key, length, self.window, number)
                stop = min(b, int(ends[number]))
                yield rows[a - begin : stop - begin] + low
                a, number = stop, number + 1


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
