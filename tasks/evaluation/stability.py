"""The stability gap: a model that begins to learn something new first gets worse, then recovers. Pure.

Source: Guo et al., Efficient Continual Pre-training by Mitigating the Stability Gap, 2024 (arXiv:2406.14833).
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gap:
    """Of a measure that is better when it is lower."""

    dip: int | None
    """Which value is the worst; None: none is worse than the first."""
    depth: float
    """How much worse than the first it is."""
    recovery: float | None
    """Share of the depth that the last has regained, above 1 where it is better than the first."""


def stability_gap(values: Sequence[float]) -> Gap:
    """The worst of some values, in order, against the first and the last; of equals the earliest."""
    dip = max(range(len(values)), key=lambda number: (values[number], -number))
    depth = values[dip] - values[0]
    if depth <= 0:
        return Gap(None, 0.0, None)
    return Gap(dip, depth, (values[dip] - values[-1]) / depth)
