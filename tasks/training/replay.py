"""Which of a training's sequences are replayed general text: exact counts and positions, in whole numbers.

Of the first n sequences floor(n * fraction) are replayed, whatever n: position i (from 0) is one where that
grows at i + 1. So the share is exact to one sequence in everything that is seen, spread evenly, and a larger
budget begins with what a smaller one saw. D sequences of the domain stand among floor(D / (1 - fraction)).

General rows are seen in passes: each once before any is seen again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Replay:
    """The general text among what a training sees."""

    fraction: float = 0.0
    """Of all sequences, as the decimal that was written: 0.1 is a tenth."""
    rows: int = 0
    """Of the general corpus."""

    def _ratio(self) -> tuple[int, int]:
        return Fraction(str(self.fraction)).as_integer_ratio()

    def total(self, domain: int) -> int:
        """Sequences seen in all, with so many of the domain among them."""
        part, whole = self._ratio()
        return domain * whole // (whole - part)

    def needed(self, domain: int) -> int:
        """General sequences seen along with so many of the domain."""
        return self.total(domain) - domain

    def before(self, position: int) -> int:
        """General sequences among the first so many."""
        part, whole = self._ratio()
        return position * part // whole

    def positions(self, start: int, end: int) -> list[int]:
        """Which of the positions [start, end) are replayed, growing."""
        part, whole = self._ratio()
        numbers = range(self.before(start), self.before(end))
        return [-(-(number + 1) * whole // part) - 1 for number in numbers]

    def segments(self, borders: Sequence[int]) -> list[tuple[int, int]]:
        """[start, end) of what is shuffled on its own, among the general sequences in the order seen.

        They end where a milestone ends, so that a larger one goes on from there, and where all rows were
        seen.

        Args:
            borders: general sequences that each milestone's training sees, growing.
        """
        passes = range(self.rows, borders[-1], self.rows) if self.rows else []
        ends = sorted({*borders, *passes})
        return [(start, end) for start, end in zip((0, *ends), ends, strict=False) if start < end]

    def passes(self, seen: int) -> int:
        """How often the rows seen most were seen, after so many general sequences."""
        return -(-seen // self.rows) if self.rows else 0


NO_REPLAY = Replay()
