"""What a model scored, and how far two models are apart."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import ConfigDict, model_validator

from tasks.report.plain import Facts

BITS = "bits_per_byte"
"""The key of the held-out measure among the scores; a slice of it is named `bits_per_byte.domain`."""

Corpus = Literal["domain", "general"]


class BenchmarkScore(Facts):
    """One benchmark of one model. What else an evaluation tells is kept for the JSON."""

    model_config = ConfigDict(extra="allow")

    score: float
    stderr: float | None = None
    metric: str = ""
    items: int | None = None
    chance: float | None = None
    """What guessing gives."""
    majority: float | None = None
    """Accuracy of always giving the answer that is most often right."""
    most_chosen: float | None = None
    """Share of items on which the model gave its most frequent answer."""


class HeldOutScore(Facts):
    """Bits per byte of one model on one held-out slice. Lower is better."""

    model_config = ConfigDict(extra="allow")

    bits_per_byte: float
    documents: int | None = None


class Scores(Facts):
    """The scores of one model.

    Read from the shape of `dapt run --json` too, `{<benchmark>: {...}, "bits_per_byte": {"domain": ...}}`,
    where a slice is an object, a bare number, or null (itself or inside) when it was not measured.
    """

    benchmarks: dict[str, BenchmarkScore] = {}
    bits_per_byte: dict[Corpus, HeldOutScore] = {}

    @model_validator(mode="before")
    @classmethod
    def _read_flat(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or "benchmarks" in given:
            return given
        slices = {
            name: {BITS: value} if isinstance(value, int | float) else value
            for name, value in (given.get(BITS) or {}).items()
            if value is not None and not (isinstance(value, Mapping) and value.get(BITS) is None)
        }
        benchmarks = {name: value for name, value in given.items() if name != BITS and value is not None}
        return {"benchmarks": benchmarks, BITS: slices}


class Delta(Facts):
    """A paired difference, milestone minus what it is compared with, with its 95 % interval."""

    difference: float
    low: float
    high: float
    stderr: float
    p: float
    """Two-sided."""
    p_holm: float
    """`p` corrected for all metrics that were compared with it."""
    pairs: int
    """Items or documents that both models answered."""
    smallest: float | None = None
    """The smallest true difference found in 80 % of runs; benchmarks only."""


class GroupChange(Facts):
    """The unweighted mean of a group of benchmarks, and its change against the base, with 95 % intervals."""

    base: float
    score: float
    difference: float
    low: float
    high: float
    p: float
    """Two-sided."""
    p_holm: float
    """`p` corrected for all groups."""
    relative: float | None
    """score / base - 1; None: the base has nothing right."""
    relative_low: float | None
    relative_high: float | None
    benchmarks: list[str]
    """Those of the group that were evaluated."""


class Loss(Facts):
    """What a milestone lost on one metric that has a tolerance, negative where it gained.

    It is beyond the tolerance when its whole 95 % interval is: then it is surely more than what is allowed,
    not just more than nothing, and a model that loses just what is allowed is stopped once in forty.
    """

    milestone: str
    """As people write it."""
    metric: str
    """A benchmark's name, or that of a held-out slice."""
    base: float
    score: float
    loss: float
    """Of a benchmark in accuracy, of a slice the relative growth of bits per byte."""
    low: float
    high: float
    tolerance: float

    @property
    def is_slice(self) -> bool:
        """Whether it is of bits per byte."""
        return self.metric in get_args(Corpus)

    @property
    def beyond(self) -> bool:
        """Whether it is surely more than is allowed."""
        return self.low > self.tolerance
