"""What each held-out slice shares with the training text of the other corpus, read from the store."""

from flows.chain import DOMAIN, GENERAL, REPLAY, ShardNodes, Walk
from flows.resolve import Resolved
from tasks.dedup.overlap import count_near
from tasks.store.json import JSON
from tasks.store.node import Node


def overlaps(resolved: Resolved, walks: dict[str, Walk], first_corpus: Node) -> list[JSON]:
    """`Overlap` of each slice that is measured and whose other corpus trains: the general one by replay.

    Args:
        resolved: the recipe on its store.
        walks: how far its corpora stand: whole.
        first_corpus: of the smallest milestone, whose shards hold the domain's slice.
    """
    recipe, domain = resolved.recipe, resolved.chains[DOMAIN]
    if not recipe.held_out.fraction or not domain.has_text or GENERAL not in walks:
        return []
    slices = {GENERAL: (_used(resolved, walks, GENERAL), _used(resolved, walks, DOMAIN))}
    if REPLAY in walks:
        held_out = domain.shards[: len(first_corpus.reads["shards"])]
        slices = {DOMAIN: (held_out, _used(resolved, walks, REPLAY)), **slices}
    found: list[JSON] = []
    for corpus, (held_out, trained) in slices.items():
        documents, near = count_near(
            resolved.store,
            _signed(held_out),
            _signed(trained),
            recipe.dedup,
            max_documents=recipe.held_out.max_documents,
        )
        found.append({"corpus": corpus, "documents": documents, "near": near})
    return found


def _used(resolved: Resolved, walks: dict[str, Walk], corpus: str) -> list[ShardNodes]:
    return resolved.chains[corpus].shards[: len(walks[corpus].used)]


def _signed(shards: list[ShardNodes]) -> list[tuple[str, str]]:
    return [(shard.nodes["signatures"].path, shard.nodes["dedup"].path) for shard in shards]
