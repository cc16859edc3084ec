"""What an evaluation is: one node a (model, benchmark), one a (model, held-out slice), one a model's samples.

A model is known by its content (the digest of a base model's files, or the fingerprint of the training that
made it), a benchmark by its lm-eval name and lm-eval's version, a slice by the verdicts that chose its
documents. Two recipes with the same base therefore share the base's scores, and a new milestone evaluates
only the new checkpoint. Precision is no field: every score is computed in float32, on a CPU or a GPU.
"""

import importlib.metadata
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from tasks.store.config import StageConfig, how
from tasks.store.json import JSON
from tasks.store.node import Node

STAGE = "evaluation"
VERSION = 1

ITEMS_STAGE = "benchmarks"
ITEMS_VERSION = 1

ALL_ITEMS = 0
"""`limit` for all items of a benchmark."""
OWN_FEWSHOT = -1
"""`num_fewshot` for what the benchmark's own definition says."""

SAMPLES = "samples"
"""The name of the unit that writes instead of scoring: it is no score."""
_SAMPLES, _OF_FIRST = 10, 100
_PROMPT_TOKENS, _NEW_TOKENS = 32, 48

GROUPS = {
    "educational": ["mmlu", "arc_challenge", "arc_easy", "hellaswag"],
    "general": ["winogrande", "boolq", "piqa"],
}
"""Benchmarks near to educational text and others: what is told together unless the recipe says otherwise."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+:-]*")


def _require_names(names: list[str]) -> list[str]:
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no lm-eval task name; expected one such as 'arc_easy'")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} stands more than once in the list; name each benchmark once")
    return names


def _require_loss(loss: float) -> float:
    if loss < 0:
        raise ValueError(f"{loss:g} is no loss; expected 0 or more, and 0 allows none")
    return loss


class EvaluationConfig(StageConfig):
    """What is measured on the base and on every milestone, besides the held-out slices."""

    benchmarks: Annotated[list[str], AfterValidator(_require_names)] = Field(default=[])
    """Official lm-eval task names; may be empty. Each is one unit a model."""

    limit: int = Field(ALL_ITEMS, ge=0)
    """Items a benchmark, its first ones (of a group such as mmlu: of each subject, by size); 0: all."""

    num_fewshot: int = Field(OWN_FEWSHOT, ge=-1)
    """Examples before each question; -1: what the benchmark's own definition says (for most: none)."""

    tolerance: dict[str, Annotated[float, AfterValidator(_require_loss)]] = how({})
    """The largest loss allowed against the base: of a benchmark, by its name, in accuracy; of a held-out
    slice (domain, general) as relative growth of bits per byte. A run that loses more ends with 4."""

    groups: dict[str, list[str]] = how(GROUPS)
    """Benchmarks whose unweighted mean is told too, by the group's name; those not evaluated do not count."""

    @model_validator(mode="after")
    def _groups_of_benchmarks(self) -> Self:
        known = {*self.benchmarks, *(name for members in GROUPS.values() for name in members)}
        for group, members in self.groups.items():
            unknown = [repr(name) for name in members if name not in known]
            if unknown:
                them = "it" if len(unknown) == 1 else "them"
                raise ValueError(
                    f"groups.{group} names {', '.join(unknown)}, which benchmarks does not list; "
                    f"add {them} there, or leave {them} out of the group"
                )
            if not members or len(set(members)) < len(members):
                raise ValueError(f"groups.{group} is {members}; expected one benchmark or more, each once")
        return self


class BenchmarkUnit(StageConfig):
    """The identity of one benchmark on one model, besides the model."""

    kind: Literal["benchmark"]
    benchmark: str
    lm_eval: str
    """lm-eval's version: it fixes the benchmark's definition."""
    limit: int = ALL_ITEMS
    num_fewshot: int = OWN_FEWSHOT


class BenchmarkItems(StageConfig):
    """The identity of the texts of benchmarks' items: that of the benchmarks in an evaluation."""

    benchmarks: list[str]
    """In alphabetical order: an n-gram of several benchmarks counts as the first one's."""
    lm_eval: str
    """lm-eval's version."""


class HeldOutUnit(StageConfig):
    """The identity of bits per byte on one slice, besides the model and the slice's verdicts."""

    kind: Literal["held_out"]
    max_documents: int = Field(ge=0)
    context: int = Field(ge=1)
    """Tokens a window; the model's own limit where that is smaller."""
    eos_id: int = Field(ge=0)
    """The token before a document's first, as in the packed rows."""
    step: int = 0
    """Of the model's training, whose weights it kept; 0: the final ones."""


class SamplesUnit(StageConfig):
    """The identity of sample continuations of held-out documents, besides the model and the verdicts."""

    kind: Literal["samples"]
    documents: int = Field(ge=1)
    """Continued at most: the first that are longer than a prompt."""
    of_first: int = Field(ge=1)
    """Held-out documents that are looked at for them."""
    prompt_tokens: int = Field(ge=1)
    """A document's first; half the model's context where that is smaller."""
    new_tokens: int = Field(ge=1)
    """Written after each, as far as the context goes."""
    eos_id: int = Field(ge=0)
    """The token before a document's first, as in the packed rows."""


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """A model as an evaluation sees it. Digests are identity, addresses say where to find it.

    An address is {"folder", "reference", "revision"} of a resolved model or tokenizer
    (`tasks.store.models`), or {"node": path} of one made here, with "inside" for a folder of that node.
    """

    digest: str
    """Of a base model's files, or the fingerprint of the training that made it."""
    address: JSON
    tokenizer_digest: str
    """Of the tokenizer's files, or the fingerprint of the node that made it."""
    tokenizer_address: JSON
    eos_id: int
    """What closes a document under this tokenizer (`eos_id` of a tokenization's details)."""


def benchmark_node(config: EvaluationConfig, benchmark: str, model: EvaluatedModel) -> Node:
    """The node of one benchmark on one model.

    Args:
        config: of the recipe.
        benchmark: one of `config.benchmarks`.
        model: what is evaluated.
    """
    unit = BenchmarkUnit(
        kind="benchmark",
        benchmark=benchmark,
        lm_eval=importlib.metadata.version("lm_eval"),
        limit=config.limit,
        num_fewshot=config.num_fewshot,
    )
    return Node(
        stage=STAGE,
        version=VERSION,
        config=unit.identity(),
        inputs={"model": model.digest, "tokenizer": model.tokenizer_digest},
        reads=_reads(model),
    )


def items_node(config: EvaluationConfig) -> Node:
    """The node of the texts of all items of the benchmarks; neither `limit` nor `num_fewshot` counts."""
    chosen = BenchmarkItems(
        benchmarks=sorted(config.benchmarks), lm_eval=importlib.metadata.version("lm_eval")
    )
    return Node(stage=ITEMS_STAGE, version=ITEMS_VERSION, config=chosen.identity(), inputs={})


def held_out_node(
    model: EvaluatedModel, shards: Sequence[tuple[Node, Node]], *, max_documents: int, context: int
) -> Node:
    """The node of bits per byte of one model on one slice (domain or general).

    The slice is the first `max_documents` held-out documents of `shards` in order. Its name is no identity:
    where the general corpus of one recipe is the domain of another, the scores are the same.

    Args:
        model: what is evaluated.
        shards: (download, dedup) nodes in source order; for the domain those of the first milestone.
        max_documents: of `held_out`.
        context: tokens a window, the recipe's `packing.sequence_length`.
    """
    unit = HeldOutUnit(kind="held_out", max_documents=max_documents, context=context, eos_id=model.eos_id)
    slice_inputs = {f"dedup_{position:05d}": dedup.fingerprint for position, (_, dedup) in enumerate(shards)}
    return Node(
        stage=STAGE,
        version=VERSION,
        config=unit.identity(),
        inputs={"model": model.digest, "tokenizer": model.tokenizer_digest, **slice_inputs},
        reads={
            **_reads(model),
            "slice": [{"download": download.path, "dedup": dedup.path} for download, dedup in shards],
        },
    )


def at_step(unit: Node, step: int, *, inside: str) -> Node:
    """The same slice under the same model as it was at a step of its training.

    Args:
        unit: of the final model, one that was trained here.
        step: steps done.
        inside: the folder of the training's node that has the model of that step.
    """
    model = {**unit.reads["model"], "inside": inside}
    return Node(
        stage=unit.stage,
        version=unit.version,
        config={**unit.config, "step": step},
        inputs=unit.inputs,
        reads={**unit.reads, "model": model},
    )


def samples_node(unit: Node) -> Node:
    """The node of the same model's continuations of the same slice's first documents.

    Args:
        unit: of the model on the slice, by `held_out_node`.
    """
    asked = SamplesUnit(
        kind="samples",
        documents=_SAMPLES,
        of_first=_OF_FIRST,
        prompt_tokens=_PROMPT_TOKENS,
        new_tokens=_NEW_TOKENS,
        eos_id=unit.config["eos_id"],
    )
    return Node(stage=STAGE, version=VERSION, config=asked.identity(), inputs=unit.inputs, reads=unit.reads)


def _reads(model: EvaluatedModel) -> JSON:
    return {"model": model.address, "tokenizer": model.tokenizer_address, "eos_id": model.eos_id}
