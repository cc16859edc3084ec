"""The data stages of recipes, shard after shard in one process without Prefect, and the memory they took.

`python -m tests.contracts.stages STORE RECIPE [STORE RECIPE ...]`: for each pair a line with the peak of the
process' resident set in bytes, beginning anew, and the shards made.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from flows.chain import room_of
from flows.recipe import load_recipe
from flows.resolve import resolve
from tasks.dedup.shard import build_signatures, build_verdicts
from tasks.download.shard import build_download
from tasks.filtering.shard import build_filtering
from tasks.packing.shard import build_packing
from tasks.settings import Settings
from tasks.store.shard import NodeWriter, build_node
from tasks.tokenization.shard import build_tokenization, build_tokenizer

BUILDS: dict[str, Callable[[NodeWriter], None]] = {
    "download": build_download,
    "filtering": build_filtering,
    "signatures": build_signatures,
    "dedup": build_verdicts,
    "tokenizer": build_tokenizer,
    "tokenization": build_tokenization,
    "packing": build_packing,
}


def build_all(store: str, recipe: str) -> int:
    """Build every shard of a recipe; how many there are."""
    resolved = resolve(load_recipe(recipe), Settings(store=store))
    shards = resolved.chains["domain"].shards
    for shard in shards:
        for stage, node in shard.nodes.items():
            build_node(resolved.store, node, BUILDS[stage], room=room_of(stage), shard=shard.name)
    return len(shards)


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    for place, body in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        Path("/proc/self/clear_refs").write_text("5")
        made = build_all(place, body)
        print(peak_bytes(), made, flush=True)  # noqa: T201
