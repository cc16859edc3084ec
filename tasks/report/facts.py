"""`ReportFacts`: everything a report is told, as plain values.

The flow that ran the recipe collects them from manifests; this room reads no other stage's files. What is
unknown is left out (None, an empty list): the report says "not measured" or stays silent. No guesses.
"""

from typing import Literal

from pydantic import Field

from tasks.report.plain import Facts, Row
from tasks.report.scored import Corpus, Delta, GroupChange, Loss, Scores
from tasks.store.json import JSON


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


class Spent(Facts):
    """What a part of the work took; None: none of it, or it is not known.

    A training's by the clock, with the time of the steps kept from before an interruption, and its devices
    for the time of all steps; an evaluation's summed over its units.
    """

    seconds: float | None = None
    gpu_seconds: float | None = None
    """GPUs times the time that they were held."""
    core_seconds: float | None = None
    """Of processors, where no GPU did the work."""
    gpu_joules: float | None = None
    """By the counters of the GPUs that were used."""
    host_joules: float | None = None
    """By the counters of the machine's processors and memory, with all else that ran on them."""


class BaseFacts(Facts):
    """The model before training."""

    scores: Scores = Scores()
    evaluation: Spent = Spent()


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
    """A slice at a moment of a training."""

    fraction: float
    """Of the milestone's steps."""
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
    """In its shards, after everything was dropped."""
    data_seconds: float | None = None
    """Computing time of its shards, in all stages."""
    curve: list[CurvePoint] = []
    measured: list[MeasuredPoint] = []
    """Of its own steps."""
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
