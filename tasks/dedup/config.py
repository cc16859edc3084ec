"""What the recipe says about duplicates and the held-out slice, and the nodes it makes of a shard.

A shard has two nodes. *Signatures* depend on the shard alone and are made side by side; *verdicts* depend on
the verdicts of the shard before, and are made in order. A changed threshold or banding therefore re-reads
signatures, never text. Where the recipe decontaminates there is a third, *contamination*, made side by side
too: a changed list of benchmarks leaves signatures alone, and without it verdicts are those they always were.
"""

from functools import lru_cache
from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.store.config import StageConfig
from tasks.store.json import JSON
from tasks.store.node import Node

STAGE = "dedup"
VERSION = 1

SIGNATURES_STAGE = "signatures"
SIGNATURES_VERSION = 1

CONTAMINATION_STAGE = "contamination"
CONTAMINATION_VERSION = 1

Decontaminate = Literal["off", "drop", "flag"]


class SignatureConfig(StageConfig):
    """What shapes a signature."""

    num_perm: int = Field(128, ge=1, le=1024)
    """Slots of a MinHash signature; the error of an estimate is sqrt(J (1 - J) / num_perm)."""

    ngram: int = Field(5, ge=1, le=32)
    """Words a shingle."""


class MatchingConfig(StageConfig):
    """What makes two documents duplicates."""

    threshold: float = Field(0.7, gt=0.0, le=1.0)
    """Estimated Jaccard similarity a pair must reach: the share of equal slots of the two signatures."""

    num_bands: int = Field(25, ge=1)
    """Bands of the LSH: documents that share one are compared."""

    rows_per_band: int = Field(5, ge=1)
    """Slots a band; fewer find more candidates, which the threshold then verifies."""


class DedupConfig(SignatureConfig, MatchingConfig):
    """Duplicates: the same normalised text, or signatures that agree in `threshold` of their slots."""

    decontaminate: Decontaminate = "off"
    """What becomes of domain documents that share 13 words in a row with an item of `evaluation.benchmarks`:
    "drop" (reason `contaminated`), or "flag": kept, counted, and told in the verdicts."""

    @model_validator(mode="after")
    def _bands_fit(self) -> Self:
        needed = self.num_bands * self.rows_per_band
        if needed > self.num_perm:
            raise ValueError(
                f"num_bands={self.num_bands} x rows_per_band={self.rows_per_band} needs {needed} "
                f"permutations, num_perm={self.num_perm}; {_remedy(self.num_perm, self.rows_per_band)}"
            )
        return self


class HeldOutConfig(StageConfig):
    """Documents that are never packed: what bits per byte are measured on."""

    fraction: float = Field(0.005, ge=0.0, le=0.5)
    """Of the documents that are no duplicates."""

    max_documents: int = Field(1000, ge=1)
    """Evaluated at most, in source order; which documents are held out does not depend on it."""


class VerdictConfig(MatchingConfig):
    """All that the verdicts on signatures depend on."""

    held_out_fraction: float = Field(0.005, ge=0.0, le=0.5)
    """`HeldOutConfig.fraction`; `max_documents` belongs to the evaluation."""

    decontaminate: Decontaminate = "off"


def signatures_node(config: DedupConfig, download: Node, filtering: Node) -> Node:
    """The signatures of the documents that the filter kept of one shard."""
    return Node(
        stage=SIGNATURES_STAGE,
        version=SIGNATURES_VERSION,
        config=_signing(config),
        inputs={"filtering": filtering.fingerprint},
        reads={"download": download.path, "filtering": filtering.path},
    )


def contamination_node(download: Node, filtering: Node, benchmarks: Node) -> Node:
    """Which documents that the filter kept of one shard share words with an item of a benchmark."""
    return Node(
        stage=CONTAMINATION_STAGE,
        version=CONTAMINATION_VERSION,
        config={},
        inputs={"filtering": filtering.fingerprint, "benchmarks": benchmarks.fingerprint},
        reads={"download": download.path, "filtering": filtering.path, "benchmarks": benchmarks.path},
    )


def node(
    config: DedupConfig,
    held_out: HeldOutConfig,
    signatures: Node,
    predecessor: Node | None,
    contamination: Node | None = None,
) -> Node:
    """The verdicts on one shard.

    Args:
        config: threshold and bands count here; what shapes a signature stands in `signatures`.
        held_out: its fraction counts.
        signatures: of this shard.
        predecessor: the verdicts on the shard before; None for the first.
        contamination: of this shard; None: no document is looked at for benchmarks, whatever `config` says.
    """
    given = {"signatures": signatures, "predecessor": predecessor, "contamination": contamination}
    before = {name: node for name, node in given.items() if node is not None}
    return Node(
        stage=STAGE,
        version=VERSION,
        config=_matching(config, held_out, "off" if contamination is None else config.decontaminate),
        inputs={name: node.fingerprint for name, node in before.items()},
        reads={name: node.path for name, node in before.items()},
    )


@lru_cache(maxsize=64)
def _signing(config: DedupConfig) -> JSON:
    """The identity of signatures; made once for all shards, not to be written to."""
    return SignatureConfig(num_perm=config.num_perm, ngram=config.ngram).identity()


@lru_cache(maxsize=64)
def _matching(config: DedupConfig, held_out: HeldOutConfig, decontaminate: Decontaminate) -> JSON:
    """The identity of verdicts; made once for all shards, not to be written to."""
    return VerdictConfig(
        threshold=config.threshold,
        num_bands=config.num_bands,
        rows_per_band=config.rows_per_band,
        held_out_fraction=held_out.fraction,
        decontaminate=decontaminate,
    ).identity()


def _remedy(num_perm: int, rows_per_band: int) -> str:
    if rows_per_band > num_perm:
        return f"try rows_per_band={num_perm} or less"
    return f"try num_bands={num_perm // rows_per_band}"
