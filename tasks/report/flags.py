"""What a benchmark's score must not hide: that guessing, or one answer to everything, does as well. Pure."""

import math
from typing import Literal

from tasks.report.numbers import decimal_text
from tasks.report.scored import BenchmarkScore

Standing = Literal["above", "at", "below"]

Z_95 = 1.96
"""Standard errors on either side that chance alone exceeds in 5 % of runs."""
ONE_ANSWER = 0.25
"""A model's most frequent answer is told where it gives it on so many more of the items than any answer is
right on. SmolLM2-135M says "A" on 113 of 114 items of MMLU and "no" on 71 of 80 of BoolQ."""


def against_chance(score: BenchmarkScore) -> Standing | None:
    """Where a score stands to guessing; None: it is not known.

    The error is that of guessing on as many items, or the score's own where their number is not known. Below
    chance is a model that prefers answers which are seldom right.
    """
    if score.chance is None:
        return None
    if score.items:
        error = math.sqrt(score.chance * (1 - score.chance) / score.items)
    elif score.stderr is not None:
        error = score.stderr
    else:
        return None
    return _standing(score.score, score.chance, error)


def against_majority(score: BenchmarkScore) -> Standing | None:
    """Where a score stands to always giving the answer that is most often right; None: it is not known."""
    if score.majority is None or score.stderr is None:
        return None
    return _standing(score.score, score.majority, score.stderr)


def says_little(score: BenchmarkScore) -> bool:
    """Whether the model does no better than one that reads no question."""
    return {against_chance(score), against_majority(score)} & {"at", "below"} != set()


def flags_of(score: BenchmarkScore) -> list[str]:
    """What to know of a score, in words."""
    told = []
    chance, majority = against_chance(score), against_majority(score)
    if chance in ("at", "below"):
        told.append(f"{chance} chance")
    if majority == "below":
        told.append(f"below majority class (always the same answer: {decimal_text(score.majority, 4)})")
    elif majority == "at" and chance != "at":
        told.append(f"at majority class (always the same answer: {decimal_text(score.majority, 4)})")
    if score.most_chosen is not None and score.most_chosen >= (score.majority or 0) + ONE_ANSWER:
        told.append(f"{100 * score.most_chosen:.0f}% of answers are the same choice")
    return told


def _standing(score: float, other: float, error: float) -> Standing:
    if abs(score - other) <= Z_95 * error:
        return "at"
    return "above" if score > other else "below"
