"""`dapt`, with one stage slowed down (SLOW="dedup 20": seconds a node) or broken (BREAK="dedup 00001").

Adopted token shards are small here: each file is one.
"""

import os
import time
from typing import Any

import flows.adoption
import tasks.download.tokens
import tasks.policy
from tasks.store.node import Node

_policy = vars(tasks.policy)
_real = _policy["build_node"]


def _build_node(store: Any, node: Node, build: Any, **options: Any) -> Any:
    stage, _, seconds = os.environ.get("SLOW", "").partition(" ")
    if node.stage == stage:
        time.sleep(float(seconds))
    if f"{node.stage} {options['shard']}" == os.environ.get("BREAK"):
        raise KeyError("nobody expected this")
    return _real(store, node, build, **options)


_policy["build_node"] = _build_node
vars(flows.adoption)["build_node"] = _build_node
vars(tasks.download.tokens)["SHARD_BYTES"] = 1

if __name__ == "__main__":
    from flows.cli import main

    main()
