"""How tokens become rows, and the nodes of packed shards and of a corpus."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from tasks.store.config import StageConfig, identity_of
from tasks.store.errors import BudgetError
from tasks.store.json import JSON
from tasks.store.node import Node

STAGE = "packing"
VERSION = 1

CORPUS_STAGE = "corpus"
CORPUS_VERSION = 1


class PackingConfig(StageConfig):
    """How long a sequence is."""

    sequence_length: int = Field(2000, ge=2)
    """Tokens a row; the paper packs to 2,000."""


class AdoptedConfig(StageConfig):
    """How token ids that somebody else made become rows; in a node's config as `adopted`."""

    column: str
    """Where they stand."""
    layout: Literal["documents", "rows"]
    """A document a row, to be packed; or rows of sequence_length, taken as they are."""


def node(config: PackingConfig, tokenization: Node) -> Node:
    """Pack one tokenized shard."""
    return Node(
        stage=STAGE,
        version=VERSION,
        config=identity_of(config),
        inputs={"tokenization": tokenization.fingerprint},
        reads={"tokenization": tokenization.path},
    )


def adopted_node(
    config: PackingConfig,
    adopted: AdoptedConfig,
    contents: Sequence[str],
    *,
    tokenizer_digest: str,
    eos_id: int,
    reads: JSON,
) -> Node:
    """Rows made of token ids that were not made here.

    Args:
        config: how long a row is.
        adopted: how the ids lie in their files.
        contents: digests of the files, with the part that is meant, in order.
        tokenizer_digest: of the tokenizer's files that made the ids.
        eos_id: closes documents under it.
        reads: where the files are.
    """
    files = {f"file-{number:05d}": content for number, content in enumerate(contents)}
    return Node(
        stage=STAGE,
        version=VERSION,
        config={**config.identity(), "adopted": adopted.model_dump()},
        inputs={**files, "tokenizer": tokenizer_digest, "eos": str(eos_id)},
        reads=reads,
    )


def corpus_node(packed: Sequence[tuple[Node, int]], *, config: PackingConfig, budget: int) -> Node:
    """The corpus of a budget: the first ceil(budget / sequence_length) rows of packed shards, in order.

    Its identity is the fingerprints of the shards up to the one that fills it, and the number of sequences;
    not the budget, which only says how many these are.

    Args:
        packed: shards in source order, each with the rows it holds; what is not needed is not looked at.
        config: whose sequence_length made them.
        budget: tokens asked for.

    Raises:
        BudgetError: they hold less; both numbers.
    """
    sequences = -(-budget // config.sequence_length)
    inputs: dict[str, str] = {}
    shards: list[JSON] = []
    missing = sequences
    for number, (shard, rows) in enumerate(packed):
        if not missing:
            break
        taken = min(rows, missing)
        inputs[f"packing-{number:05}"] = shard.fingerprint
        shards.append({"path": shard.path, "rows": taken})
        missing -= taken
    if missing:
        held = (sequences - missing) * config.sequence_length
        raise BudgetError(
            f"the sources hold {held} tokens once packed, the milestone asks for {budget}; add sources or "
            "lower it"
        )
    return Node(
        stage=CORPUS_STAGE,
        version=CORPUS_VERSION,
        config={"sequences": sequences},
        inputs=inputs,
        reads={"budget": budget, "sequence_length": config.sequence_length, "shards": shards},
    )
