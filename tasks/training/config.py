"""What a training is: its config, the identity of a milestone's model and of a base made from the seed.

A milestone's identity holds the config, the seed, the base it starts from and the corpora of every border
up to its own (each segment between two borders is shuffled on its own); where general text is replayed, its
share and the general corpora too. How it is computed (ranks, ZeRO
stage, offload, micro-batch, checkpoints) is told beside the node, in `how`, and recorded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.store.config import StageConfig, how
from tasks.store.json import JSON
from tasks.store.models import ModelFiles
from tasks.store.node import Node
from tasks.training.replay import Replay

STAGE = "training"
VERSION = 1
REFERENCE_STAGE = "reference_loss"
REFERENCE_VERSION = 1

PROFILES: dict[str, JSON] = {
    "paper": {"zero_stage": 3, "offload": "all", "gradient_checkpointing": True},
    "fast": {"zero_stage": "auto", "offload": "none", "gradient_checkpointing": False},
}
"""How to compute, by name: as the paper did, whose hyperparameters are the defaults; and what is fastest on
the devices at hand."""

SPREAD_FIELDS = ("zero_stage", "offload", "gradient_checkpointing")
HOW_FIELDS = (*SPREAD_FIELDS, "micro_batch", "checkpoint_every", "compile")


class Selective(StageConfig):
    """Learn what a reference model finds easier than this one; the loss told is that of these tokens."""

    reference: str = how("")
    """Folder, Hub id or `recipe:` of the reference, of the same tokenizer: a model of text like the one
    wanted. No identity: the digest of its files is."""

    fraction: float = Field(0.6, gt=0, lt=1)
    """Of the tokens of a step: those whose loss exceeds the reference's by most are learned."""


class TrainingConfig(StageConfig):
    """Continued pre-training with AdamW on packed sequences."""

    base_model: str = how(..., min_length=1)
    """Folder or Hub id of the model to start from; a config without weights is initialised from the seed.
    No identity: the digest of its files is."""

    learning_rate: float = Field(1e-4, gt=0)
    """At the end of the warm-up."""

    schedule: Literal["cosine", "wsd", "infinite"] = "cosine"
    """After a linear warm-up: half a cosine; a constant rate that is annealed (wsd); or a cool-down to one
    that is (infinite). All end at min_lr_fraction."""

    warmup_fraction: float = Field(0.1, ge=0, lt=1)
    """Of the steps."""

    cooldown_fraction: float = Field(0.25, ge=0, lt=1)
    """Of the steps, in which an infinite schedule cools down to its constant rate."""

    anneal_fraction: float = Field(0.1, gt=0, lt=1)
    """Of the steps, the last ones: in which wsd and infinite anneal."""

    min_lr_fraction: float = Field(0.1, ge=0, le=1)
    """Of the learning rate, reached at the end."""

    weight_decay: float = Field(0.005, ge=0)
    """Of matrices (embeddings included); norms and biases are not decayed."""

    betas: tuple[float, float] = (0.9, 0.95)
    """Of AdamW; 0.95 is what pre-training uses (GPT-3, Llama), PyTorch's own default is 0.999."""

    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this global norm."""

    global_batch_sequences: int = Field(960, ge=1)
    """Sequences an optimizer step sees, whatever the number of ranks."""

    epochs: int = Field(1, ge=1)
    """Times the corpus is seen, in another order each time."""

    continuation: Literal["restart", "extend"] = "restart"
    """Each milestone is trained from the base, or goes on from the one before: from its state before it was
    annealed (wsd, infinite), from its end (cosine)."""

    precision: Literal["bf16", "fp32"] = "bf16"
    """Of the weights in the forward pass and of the model saved; master weights and AdamW are fp32."""

    shuffle_window_sequences: int = Field(100_000, ge=1)
    """A segment up to this size is permuted whole; a larger one in windows of it, made of random blocks."""

    document_mask: bool = False
    """Each document of a sequence on its own: tokens attend within their document, positions begin anew with
    it, and its first token is not predicted from the one before."""

    selective: Selective | None = None
    """Learn from a share of the tokens only, chosen by a reference model; left out: from all."""

    eval_at: tuple[float, ...] = ()
    """Fractions of a milestone's steps, growing from 0 to 1, at which the held-out slices are measured: the
    stability gap. The models between the first and the last are kept in the model's folder, under at/."""

    profile: Literal["", "paper", "fast"] = how("")
    """Sets those of zero_stage, offload and gradient_checkpointing that are not given: "paper" shares all,
    offloads and recomputes; "fast" takes what fits the devices at the least cost."""

    zero_stage: Literal[0, 1, 2, 3, "auto"] = how(3)
    """What the ranks share: nothing, optimizer states, gradients too, parameters too; "auto": the cheapest
    that fits the devices, with offload and gradient checkpointing where nothing else does."""

    offload: Literal["none", "optimizer", "all"] = how("none")
    """What is kept in host memory; "all" is the optimizer and the parameters."""

    gradient_checkpointing: bool = how(False)
    """Recompute activations in the backward pass: less memory, about a third more compute."""

    micro_batch: int = how(0, ge=0)
    """Sequences a rank computes at once; 0: chosen to fit the memory."""

    checkpoint_every: int = how(200, ge=1)
    """Optimizer steps between two checkpoints."""

    compile: bool = how(False)
    """Compile the decoder layers (torch.compile): faster steps, after a first one that takes a minute; on a
    CPU it needs a C++ compiler."""

    @model_validator(mode="before")
    @classmethod
    def _profiled(cls, given: Any) -> Any:
        profile = PROFILES.get(given.get("profile", "")) if isinstance(given, dict) else None
        return {**profile, **given} if profile else given

    @model_validator(mode="after")
    def _continuing(self) -> "TrainingConfig":
        if self.continuation == "extend" and self.epochs > 1:
            raise ValueError(
                f'epochs={self.epochs} with continuation="extend": a larger milestone would see the smaller '
                'one\'s sequences in another order; use epochs=1, or continuation="restart"'
            )
        cooled = self.cooldown_fraction if self.schedule == "infinite" else 0
        if self.schedule != "cosine" and self.warmup_fraction + cooled + self.anneal_fraction > 1:
            raise ValueError(
                f"warmup_fraction={self.warmup_fraction}, anneal_fraction={self.anneal_fraction}"
                + (f" and cooldown_fraction={cooled}" if cooled else "")
                + " are more than all steps; lower one of them"
            )
        if self.schedule == "infinite" and self.min_lr_fraction == 0:
            raise ValueError(
                "min_lr_fraction=0 with schedule='infinite', whose annealing is exponential and never gets "
                "there; use a small one such as 0.01, or schedule='wsd'"
            )
        return self

    @model_validator(mode="after")
    def _measurable(self) -> "TrainingConfig":
        growing = all(a < b for a, b in zip(self.eval_at, self.eval_at[1:], strict=False))
        if self.eval_at and not (growing and self.eval_at[0] == 0 and self.eval_at[-1] == 1):
            raise ValueError(
                f"eval_at={list(self.eval_at)}: expected fractions of the steps, growing from 0 (what "
                "training starts from) to 1 (the final model), such as [0, 0.01, 0.05, 0.2, 1]"
            )
        return self

    @model_validator(mode="after")
    def _computable(self) -> "TrainingConfig":
        if self.zero_stage == 0 and self.precision == "bf16":
            raise ValueError(
                "zero_stage=0 with precision='bf16' is refused: DeepSpeed 0.19.8 drifts there (2e-2 in the "
                "loss within 20 steps, 7e-4 with any other stage); use zero_stage=1, or precision='fp32'"
            )
        if self.offload != "none" and self.zero_stage == 0:
            raise ValueError(f"offload={self.offload!r} needs zero_stage 1 to 3, found 0")
        if self.offload == "all" and self.zero_stage not in (3, "auto"):
            raise ValueError(
                f"offload='all' needs zero_stage=3, found {self.zero_stage}; use that, or offload='optimizer'"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas={list(self.betas)}: each is at least 0 and below 1")
        return self


@dataclass(frozen=True, slots=True)
class Files:
    """A model's or a tokenizer's folder: what it is, and where this computation finds it."""

    identity: str
    """The digest of its files, or the fingerprint of the node that made them."""
    reads: JSON
    """{"folder", "reference", "revision"} of a resolved one, {"node": path in the store} of one made here."""

    @classmethod
    def of_base(cls, model: ModelFiles) -> "Files":
        """A resolved model, known by the digest of its configuration and weights."""
        reads: JSON = {"folder": str(model.folder), "reference": model.reference, "revision": model.revision}
        return cls(model.model_digest, reads)

    @classmethod
    def of_node(cls, made: Node) -> "Files":
        """What a node of the store holds."""
        return cls(made.fingerprint, {"node": made.path})


def base_node(*, seed: int, model: Files, tokenizer: Files) -> Node:
    """The base made from a config without weights: initialised from the seed, no step trained."""
    return Node(
        stage=STAGE,
        version=VERSION,
        config={"seed": seed, "steps": 0},
        inputs={"model": model.identity, "tokenizer": tokenizer.identity},
        reads={"model": model.reads, "tokenizer": tokenizer.reads},
    )


def node(
    config: TrainingConfig,
    *,
    seed: int,
    base: Files,
    tokenizer: Files,
    corpora: Sequence[Node],
    previous: Node | None = None,
    replay_fraction: float = 0.0,
    replayed: Sequence[Node] = (),
    references: Sequence[Node] = (),
) -> Node:
    """The model of a milestone.

    Args:
        config: how it is trained.
        seed: of the order of sequences, and of dropout where the model has any.
        base: the model's folder, or the node of a base made from the seed.
        tokenizer: of the corpora; saved with the model.
        corpora: the corpus nodes of every milestone up to this one, in order; the last is what is trained on.
        previous: the model of the milestone before, which this one extends.
        replay_fraction: of all sequences, those of general text.
        replayed: the general corpora, one a milestone; none where nothing is replayed.
        references: the reference's losses of each of the last corpus' shards, where tokens are selected.
    """
    assert bool(references) == bool(config.selective), "losses of a reference where tokens are selected"
    assert previous is None or config.continuation == "extend", (
        "what is trained from the base has no previous"
    )
    state = {"previous": previous} if previous else {}
    assert len(replayed) == (len(corpora) if replay_fraction else 0), "a general corpus a milestone"
    share = {"replay_fraction": replay_fraction} if replayed else {}
    borders = {f"corpus-{number}": corpus.fingerprint for number, corpus in enumerate(corpora)}
    borders |= {f"replay-{number}": corpus.fingerprint for number, corpus in enumerate(replayed)}
    return Node(
        stage=STAGE,
        version=VERSION,
        config={"seed": seed, **config.identity(), **share},
        inputs={
            "base": base.identity,
            "tokenizer": tokenizer.identity,
            **borders,
            **{f"{REFERENCE_STAGE}-{number:05}": made.fingerprint for number, made in enumerate(references)},
            **{name: made.fingerprint for name, made in state.items()},
        },
        reads={
            "base": base.reads,
            "tokenizer": tokenizer.reads,
            "corpora": [corpus.path for corpus in corpora],
            **({"replayed": [corpus.path for corpus in replayed]} if replayed else {}),
            **({"references": [made.to_json() for made in references]} if references else {}),
            **{name: made.path for name, made in state.items()},
        },
    )


def reference_node(packed: str, *, model: str, reads: JSON, precision: str, document_mask: bool) -> Node:
    """The losses of one packed shard.

    Args:
        packed: its path in the store.
        model: the digest of the reference's files.
        reads: where they are found.
        precision: of the forward pass.
        document_mask: whether the reference sees each document on its own, as the training does.
    """
    config: JSON = {"precision": precision} | ({"document_mask": True} if document_mask else {})
    return Node(
        stage=REFERENCE_STAGE,
        version=REFERENCE_VERSION,
        config=config,
        inputs={"packing": packed.rsplit("/", 1)[-1], "model": model},
        reads={"packing": packed, "model": reads},
    )


def references_of(training: Node) -> list[Node]:
    """The losses that a training reads, a node a shard of its corpus; none where it selects no tokens."""
    return [Node.from_json(given) for given in training.reads.get("references", [])]


def how_of(config: TrainingConfig, ranks: int, nodes: int = 1) -> JSON:
    """What is told to the task beside the node: how to compute it, by so many ranks on each of the nodes."""
    given: JSON = config.model_dump(mode="json", include=set(HOW_FIELDS))
    return {"ranks": ranks * nodes, "nodes": nodes, **given}


BESIDE_CONFIG = frozenset({"seed", "replay_fraction"})
"""What a training node's config tells beside the fields of `TrainingConfig`."""


def config_of(made: Node, told: JSON) -> tuple[TrainingConfig, int]:
    """The config and the seed of a milestone's node, with how it is to be computed."""
    fields = {name: value for name, value in made.config.items() if name not in BESIDE_CONFIG}
    fields["base_model"] = made.reads["base"].get("reference") or made.reads["base"].get("node")
    fields |= {name: told[name] for name in HOW_FIELDS if name in told}
    return TrainingConfig.model_validate(fields), int(made.config["seed"])


def at_folder(step: int) -> str:
    """Where a training's folder has the model as it was after a step (`eval_at`)."""
    return f"at/step-{step:06d}"


class TrainingJob(BaseModel):
    """What the training processes are told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: TrainingConfig
    seed: int
    base: str
    """The base's folder."""
    store: str
    corpora: tuple[str, ...]
    """Paths in the store: the corpus, and the general one that is replayed."""
    references: tuple[str, ...]
    """Paths of the reference's losses of each of its shards, where tokens are selected."""
    borders: tuple[int, ...]
    """Sequences of each milestone's corpus up to this one."""
    replay: Replay
    micro_batch: int
    """0: chosen to fit the memory."""
    checkpoint: str | None
    """The folder of the checkpoint to go on from."""
    leads: bool
    """Whether this machine's first rank writes checkpoints, model and result: one machine's does."""


class BaseJob(BaseModel):
    """What the process is told that makes a base from a config."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    model: str
    tokenizer: str
