"""The data stages without Prefect: what the corpus flow makes, one node after another."""

from collections.abc import Callable

from flows.chain import room_of
from flows.milestones import corpus_nodes, replay_nodes
from flows.outcome import save_record, walks_of
from flows.resolve import Resolved
from tasks.dedup.decontaminate import build_contamination
from tasks.dedup.shard import build_signatures, build_verdicts
from tasks.download.shard import build_download
from tasks.evaluation.unit import build_items
from tasks.filtering.shard import build_filtering
from tasks.packing.shard import build_corpus, build_packing
from tasks.store.node import Node
from tasks.store.shard import NodeWriter, build_node
from tasks.tokenization.shard import build_tokenization, build_tokenizer

BUILDS: dict[str, Callable[[NodeWriter], None]] = {
    "download": build_download,
    "filtering": build_filtering,
    "signatures": build_signatures,
    "benchmarks": build_items,
    "contamination": build_contamination,
    "dedup": build_verdicts,
    "tokenizer": build_tokenizer,
    "tokenization": build_tokenization,
    "packing": build_packing,
    "corpus": build_corpus,
}


def make_corpora(resolved: Resolved) -> list[str]:
    """Make every shard that the corpora need, the corpora, and the record; the paths made now, in order."""
    made: list[str] = []

    def make(node: Node, shard: str) -> None:
        room = room_of(node.stage)
        if build_node(resolved.store, node, BUILDS[node.stage], room=room, shard=shard)[1]:
            made.append(node.path)

    for corpus, chain in resolved.chains.items():
        for shard in chain.shards:
            if walks_of(resolved)[corpus].filled:
                break
            for node in shard.nodes.values():
                make(node, shard.name)
    walks = walks_of(resolved)
    for node in [*corpus_nodes(resolved, walks["domain"]), *replay_nodes(resolved, walks)]:
        make(node, str(node.reads["budget"]))
    save_record(resolved)
    return made
