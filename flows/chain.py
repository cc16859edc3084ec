"""The data nodes of a corpus, known before anything runs: one chain of nodes a source shard.

A chain is download → filtering → signatures → dedup (which also follows the shard before it) →
tokenization → packing. The general corpus' chain ends at dedup: it is measured. Where it is replayed too, a
second chain goes on from the same nodes, replay: as far as training needs, packed by the domain's tokenizer.
A recipe that decontaminates has one node more in each shard that is trained on, contamination, beside
signatures; it reads the items of the benchmarks, a node of the first shard. Adopted
tokens have packed shards alone: what comes before was done elsewhere, no text is left to hold out. The
tokenizer that models are saved and measured with is a node of the first shard: trained on it, or made of a
given one.
"""

import itertools
from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cached_property

import tasks.dedup.config as dedup
import tasks.download.config as download
import tasks.evaluation.config as evaluation
import tasks.filtering.config as filtering
import tasks.packing.config as packing
import tasks.tokenization.config as tokenization
from flows.adopted import Adopted
from flows.recipe import Recipe
from flows.standing import standing, standing_of
from tasks.download.config import SourceConfig, SourceShard
from tasks.store.manifest import Manifest
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.tokenization.config import TokenizerRef

DOMAIN, GENERAL, REPLAY = "domain", "general", "replay"
_TOKENS_PER_BYTE = 0.25
"""Of text before filtering, for a 32k BPE on English text: 3.2 bytes a token, a fifth dropped."""
_BYTES_PER_DOCUMENT = 5000
ROOMS = {
    "signatures": "tasks.dedup",
    "contamination": "tasks.dedup",
    "benchmarks": "tasks.evaluation",
    "tokenizer": "tasks.tokenization",
    "corpus": "tasks.packing",
    "reference_loss": "tasks.training",
}


def room_of(stage: str) -> str:
    """The package whose code a stage's output depends on."""
    return ROOMS.get(stage, f"tasks.{stage}")


@dataclass(frozen=True, slots=True)
class ShardNodes:
    """The nodes of one source shard, in the order of their stages."""

    position: int
    text_bytes: int
    """An estimate, as the source tells it."""
    read_bytes: int
    nodes: dict[str, Node]

    @property
    def name(self) -> str:
        """How people call the shard: its position."""
        return f"{self.position:05d}"


@dataclass(frozen=True)
class Chain:
    """One corpus' shards, and what fills it."""

    corpus: str
    shards: list[ShardNodes]
    target: int
    """Sequences to pack (domain, replay), documents to hold out (general)."""

    rate_guess: float
    """What a byte of text adds towards the target, before anything was measured."""

    least: int
    """Of the target: less is too little where the sources end."""

    @cached_property
    def _text_before(self) -> list[int]:
        """Bytes of text before each shard, and in the end of all."""
        return list(itertools.accumulate((shard.text_bytes for shard in self.shards), initial=0))

    @property
    def has_text(self) -> bool:
        """Whether its documents can be read, held out and measured."""
        return not self.shards or "download" in self.shards[0].nodes

    def rate(self, whole: int, added: int) -> float:
        """What a byte of text adds towards the target, at the rate of the first shards.

        Args:
            whole: how many shards from the first on are whole.
            added: what they added.
        """
        return added / self._text_before[whole] if added else self.rate_guess

    def expected_shards(self, whole: int, added: int) -> int:
        """Shards that the target needs, at the rate of the first ones; in no time, it is asked for each.

        Args:
            whole: how many shards from the first on are whole.
            added: what they added.
        """
        rate = self.rate(whole, added)
        if added >= self.target or not rate:
            return whole if added >= self.target else len(self.shards)
        needed = self._text_before[whole] + (self.target - added) / rate
        return min(bisect_left(self._text_before, needed, lo=whole), len(self.shards))

    def stage_name(self, stage: str) -> str:
        """As it stands in JSON: the general corpus' stages carry its name."""
        return stage if self.corpus == DOMAIN else f"{GENERAL}:{stage}"

    def amount(self, shard: dict[str, Manifest]) -> int:
        """What a finished shard adds towards the target."""
        if self.corpus == GENERAL:
            return shard["dedup"].dropped.get("held_out", 0)
        return shard["packing"].files[0].rows or 0

    def fills(self, whole: int, added: int) -> bool:
        """Whether the shards that are whole do: the target, or what is enough of it where there are no more.

        Args:
            whole: how many shards from the first on are whole.
            added: what they added.
        """
        return added >= (self.target if whole < len(self.shards) else self.least)


@dataclass(frozen=True, slots=True)
class Walk:
    """How far a corpus stands: the manifests of each shard from the first on, as far as they matter."""

    used: list[dict[str, Manifest]]
    """The whole shards from the start that the target needs."""
    amounts: list[int]
    """What each of them adds to the target."""
    filled: bool

    @property
    def added(self) -> int:
        """What they add together."""
        return sum(self.amounts)


def domain_chain(recipe: Recipe, shards: list[SourceShard], tokenizer: TokenizerRef | None) -> Chain:
    """The chain of the domain corpus; `tokenizer` None: one is trained on the first shard."""
    found: list[ShardNodes] = []
    off = recipe.dedup.decontaminate == "off"
    benchmarks = None if off else evaluation.items_node(recipe.evaluation)
    for shard in _measured(recipe, recipe.download, shards, benchmarks):
        nodes = dict(shard.nodes)
        fetched, verdicts = nodes["download"], nodes["dedup"]
        if tokenizer is None:
            nodes["tokenizer"] = tokenization.trained_tokenizer_node(recipe.tokenization, fetched, verdicts)
            tokenizer = tokenization.trained_tokenizer_of(nodes["tokenizer"])
        elif not found:
            nodes["tokenizer"] = tokenization.given_tokenizer_node(tokenizer)
        nodes["tokenization"] = tokenization.node(recipe.tokenization, fetched, verdicts, tokenizer)
        nodes["packing"] = packing.node(recipe.packing, nodes["tokenization"])
        found.append(replace(shard, nodes=nodes))
    target = recipe.sequences[-1]
    return Chain(DOMAIN, found, target, _TOKENS_PER_BYTE / recipe.packing.sequence_length, least=target)


def adopted_chain(recipe: Recipe, adopted: Adopted, tokenizer: TokenizerRef) -> Chain:
    """The chain of tokens that were adopted; a shard's size is told in tokens, so estimates are exact."""
    found: list[ShardNodes] = []
    for position, shard in enumerate(adopted.shards):
        nodes = {"packing": shard.node}
        if not found:
            nodes = {"tokenizer": tokenization.given_tokenizer_node(tokenizer), **nodes}
        tokens = shard.sequences * adopted.sequence_length
        found.append(ShardNodes(position, tokens, shard.read_bytes, nodes))
    target = recipe.sequences[-1]
    return Chain(DOMAIN, found, target, 1 / adopted.sequence_length, least=target)


def general_chain(recipe: Recipe, shards: list[SourceShard]) -> Chain:
    """The chain of the general corpus: as far as its held-out slice needs."""
    assert recipe.general is not None
    looked = recipe.replay_fraction and recipe.dedup.decontaminate != "off"
    benchmarks = evaluation.items_node(recipe.evaluation) if looked else None
    shard_nodes = _measured(recipe, recipe.general, shards, benchmarks)
    rate = recipe.held_out.fraction / _BYTES_PER_DOCUMENT
    target = recipe.held_out.max_documents if recipe.held_out.fraction else 0
    return Chain(GENERAL, shard_nodes, target, rate, least=0)


def replay_chain(recipe: Recipe, general: Chain, tokenizer: TokenizerRef) -> Chain:
    """The general corpus' chain gone on with: as far as replay needs, at least once in `max_repeats`.

    Args:
        recipe: that replays.
        general: the chain it goes on from, whose nodes it shares.
        tokenizer: the domain's.
    """
    assert recipe.general is not None
    found: list[ShardNodes] = []
    for shard in general.shards:
        fetched, verdicts = shard.nodes["download"], shard.nodes["dedup"]
        tokenized = tokenization.node(recipe.tokenization, fetched, verdicts, tokenizer)
        packed = packing.node(recipe.packing, tokenized)
        found.append(replace(shard, nodes={**shard.nodes, "tokenization": tokenized, "packing": packed}))
    rate, target = _TOKENS_PER_BYTE / recipe.packing.sequence_length, recipe.replayed[-1]
    return Chain(REPLAY, found, target, rate, least=-(-target // recipe.general.max_repeats))


def _measured(
    recipe: Recipe, source: SourceConfig, shards: list[SourceShard], benchmarks: Node | None = None
) -> list[ShardNodes]:
    found: list[ShardNodes] = []
    predecessor = contamination = None
    for position, shard in enumerate(shards):
        fetched = download.node(source, shard)
        filtered = filtering.node(recipe.filtering, fetched)
        signed = dedup.signatures_node(recipe.dedup, fetched, filtered)
        nodes = {"download": fetched, "filtering": filtered, "signatures": signed}
        if benchmarks is not None:
            contamination = dedup.contamination_node(fetched, filtered, benchmarks)
            nodes |= {} if found else {"benchmarks": benchmarks}
            nodes["contamination"] = contamination
        predecessor = dedup.node(recipe.dedup, recipe.held_out, signed, predecessor, contamination)
        nodes["dedup"] = predecessor
        found.append(ShardNodes(position, shard.text_bytes, shard.read_bytes, nodes))
    return found


def walk(store: Store, chain: Chain) -> Walk:
    """Follow a chain through the store as far as every node stands, up to its target."""
    if chain.target == 0:  # nothing is asked for
        return Walk([], [], filled=True)
    used: list[dict[str, Manifest]] = []
    amounts: list[int] = []
    added = 0
    expected = chain.expected_shards(0, 0)
    ahead = standing_of(store, chain.shards[:expected])
    further = (standing(store, shard) for shard in chain.shards[expected:])
    for shard, whole in zip(chain.shards, itertools.chain(ahead, further), strict=True):
        if len(whole) < len(shard.nodes):
            return Walk(used, amounts, filled=False)
        used.append(whole)
        amounts.append(chain.amount(whole))
        added += amounts[-1]
        if added >= chain.target:
            break
    return Walk(used, amounts, filled=chain.fills(len(used), added))
