"""`ReportFacts`: everything a report is told, as plain values.

The flow that ran the recipe collects them from manifests; this room reads no other stage's files. What is
unknown is left out (None, an empty list): the report says "not measured" or stays silent. No guesses.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

from tasks.store.json import JSON

BITS = "bits_per_byte"
"""The key of the held-out measure among the scores; a slice of it is named `bits_per_byte.domain`."""

Corpus = Literal["domain", "general"]


class Facts(BaseModel):
    """A part of what a report is told. Frozen; unknown keys are refused; no NaN (None says "not finite")."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


class RecipeFacts(Facts):
    """The recipe, as a reader needs it."""

    name: str
    seed: int
    base_model: str
    dataset: str
    """What the domain corpus is, in words."""
    general: str | None = None
    """What the general corpus is; None: the recipe has none."""


class MachineFacts(Facts):
    """Where it ran."""

    platform: str
    cpu_count: int
    memory_bytes: int | None = None
    devices: list[str] = []
    """Accelerators by name; empty: none."""


class StageFacts(Facts):
    """One stage over all shards that the recipe uses of one corpus, those found in the store included."""

    stage: str
    corpus: Corpus = "domain"
    documents_in: int
    documents_out: int
    dropped: dict[str, int] = {}
    text_bytes_in: int | None = None
    text_bytes_out: int | None = None
    tokens: int = 0
    shards: int = 0
    seconds: float = 0.0
    """Summed over shards: computing time, not wall time when shards ran at once."""
    wall_seconds: float | None = None
    """In which at least one of its shards was being made."""
    peak_rss_bytes: int = 0
    """The largest of its shards'."""


class BenchmarkScore(Facts):
    """One benchmark of one model. What else an evaluation tells is kept for the JSON."""

    model_config = ConfigDict(extra="allow")

    score: float
    stderr: float | None = None
    metric: str = ""
    items: int | None = None
    chance: float | None = None
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
    p_holm: float
    """Two-sided `p` corrected for all groups."""
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


class Spent(Facts):
    """What a part of the work took; None: none, or not known.

    A training by the clock, with the time of the steps kept from before an interruption, and its devices for
    that of all steps; an evaluation summed over its units. `core_seconds` where no GPU did the work.
    """

    seconds: float | None = None
    gpu_seconds: float | None = None
    core_seconds: float | None = None
    gpu_joules: float | None = None
    host_joules: float | None = None
    """Of processors and memory, with all else that ran on them."""


class BaseFacts(Facts):
    """The model before training."""

    scores: Scores = Scores()
    evaluation: Spent = Spent()


class Row(Facts):
    """Facts that are a list in JSON, their fields in order: a fifth of the size."""

    @model_validator(mode="before")
    @classmethod
    def _read_row(cls, given: Any) -> Any:
        return dict(zip(cls.model_fields, given, strict=False)) if isinstance(given, list | tuple) else given

    @model_serializer
    def _as_row(self) -> list[float | None]:
        return [getattr(self, name) for name in type(self).model_fields]


class CurvePoint(Row):
    """One optimizer step as training told it."""

    step: int
    tokens: int
    """Tokens that the model has seen by the end of this step, those of the milestones it extends included."""
    loss: float | None
    learning_rate: float | None = None
    grad_norm: float | None = None


class MeasuredPoint(Row):
    """What a run of steps took."""

    tokens: int
    """Seen by the end of it, as `CurvePoint` counts."""
    tokens_per_s: float
    """Over all ranks."""
    mfu: float | None = None
    """The share of the devices' peak; None: it is not known."""
    allocated_bytes: int | None = None
    """In tensors on the first rank's device, at most; None: no such device."""
    reserved_bytes: int | None = None
    """Held by its allocator, at most."""
    rss_bytes: int | None = None
    """Of the first rank's process on the host, at most."""


class StabilityPoint(Facts):
    """A slice after a fraction of a milestone's steps."""

    fraction: float
    tokens: int
    """Trained on for this milestone until then."""
    bits_per_byte: float
    low: float | None = None
    """Of the change since the first point, with `high` its 95 % interval; None: the first, or not paired."""
    high: float | None = None


class Stability(Facts):
    """How a slice fared on the way from the model that a milestone started from to its own."""

    points: list[StabilityPoint]
    """Growing; the first is what training started from, the last the model."""
    dip: float | None
    """The fraction where the slice was worst; None: nowhere worse than at the start."""
    depth: float
    """Bits per byte that it was worse there than at the start."""
    recovery: float | None
    """Share of the depth that was regained by the end, above 1: better than at the start; None: no dip."""


class MilestoneFacts(Facts):
    """One budget: its corpus, its training, its scores."""

    budget: int
    tokens: int
    """Of its corpus, after packing."""
    sequences: int
    shards: int
    steps: int
    tokens_trained: int
    sequences_left_out: int = 0
    """A last incomplete batch is not trained on."""
    tokens_before: int = 0
    """Seen before, in the state of the smaller milestone that it goes on from; 0: it starts from the base."""
    documents: int | None = None
    """Left of its shards."""
    data_seconds: float | None = None
    """Computing time of its shards, in all stages."""
    curve: list[CurvePoint] = []
    measured: list[MeasuredPoint] = []
    training: Spent = Spent()
    tokens_per_s: float | None = None
    ranks: int = 1
    peak_rss_bytes: int | None = None
    checkpoint: str = ""
    scores: Scores = Scores()
    deltas: dict[str, Delta] = {}
    """Against the base, by metric: a benchmark's name, `bits_per_byte.domain`, `bits_per_byte.general`."""
    previous: dict[str, Delta] = {}
    """Against the milestone before; empty for the first."""
    groups: dict[str, GroupChange] = {}
    """Against the base, by the group's name."""
    losses: list[Loss] = []
    """What has a tolerance."""
    stability: dict[Corpus, Stability] = {}
    """By slice; empty where the recipe evaluates the end alone."""
    evaluation: Spent = Spent()

    @property
    def tokens_seen(self) -> int:
        """By its model, those of the milestones that it extends included."""
        return self.tokens_before + self.tokens_trained

    @property
    def own_curve(self) -> list[CurvePoint]:
        """Without what the milestone that it goes on from was trained on."""
        return [point for point in self.curve if point.tokens > self.tokens_before]


class Sample(Facts):
    """A held-out document: its beginning, and what was written after it."""

    id: str
    prompt: str
    original: str
    """How the document goes on."""
    continuations: dict[str, str]
    """What each model wrote, by its label: "base", "400M"."""


class Prediction(Facts):
    """What the plan said of one thing, and what happened."""

    what: str
    unit: Literal["s", "tokens", "bytes", "documents", "shards"]
    predicted: float
    happened: float | None = None


class Overlap(Facts):
    """What a held-out slice shares with the training text of the other corpus."""

    corpus: Corpus
    """Of the slice."""
    documents: int
    near: int
    """Those of them that have a near-duplicate there."""


class SourceFacts(Facts):
    """Where text came from."""

    name: str
    corpus: Corpus = "domain"
    revision: str | None = None
    files: int | None = None
    bytes: int | None = None
    notes: list[str] = []


class Lineage(Facts):
    """From the report back to everything it stands on."""

    generated_at: str | None = None
    """The only date a report carries."""
    fingerprints: dict[str, str] = {}
    """By name: "corpus 1M", "training 1M", ..."""
    config: JSON = {}
    """The resolved recipe."""
    code: dict[str, list[str]] = {}
    """By stage: version and commit of the code that made what the report tells of."""
    drift: dict[str, str] = {}
    """Source hash of each room's code as the report was written."""
    environment: JSON = {}


class ReportFacts(Facts):
    """Everything a report is told."""

    recipe: RecipeFacts
    versions: dict[str, str] = {}
    """Of the libraries that matter, by name."""
    machine: MachineFacts
    funnel: list[StageFacts] = []
    """In the order of the stages, the domain's first."""
    base: BaseFacts | None = None
    """None: there was nothing to compare with."""
    milestones: list[MilestoneFacts] = Field(default=[])
    """Growing."""
    samples: list[Sample] = []
    plan: list[Prediction] = []
    sources: list[SourceFacts] = []
    overlaps: list[Overlap] = []
    """None of a slice whose other corpus trains nothing."""
    lineage: Lineage = Lineage()
