"""Which nodes of which shards stand, for shards by the thousand.

What looks at a store reads a small file and asks for the size of another, for every node: most of a plan of
10,000 shards. On a local disk a forked process therefore looks at the rest of many, where there is a
core for it and no other thread that a fork could leave with a lock held.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, Protocol

import msgspec

from tasks.store.manifest import Manifest, stands
from tasks.store.node import Node
from tasks.store.paths import Store

MANY = 1000
"""Shards from which on a second process pays: a fork and the way back take 40 ms."""

Standing = dict[str, Manifest]
_decoded = msgspec.msgpack.Decoder(list[Standing]).decode


class HasNodes(Protocol):
    """A shard, as far as it matters here."""

    @property
    def nodes(self) -> dict[str, Node]:
        """By stage."""


def standing(store: Store, shard: HasNodes) -> Standing:
    """The manifests of a shard's nodes that stand, by stage."""
    found = ((stage, stands(store, node.path)) for stage, node in shard.nodes.items())
    return {stage: manifest for stage, manifest in found if manifest is not None}


def standing_of(store: Store, shards: Sequence[HasNodes]) -> Iterator[Standing]:
    """`standing` of each shard, in order."""
    alone = threading.active_count() == 1 and (os.cpu_count() or 1) > 1
    if store.local is None or len(shards) < MANY or not alone:
        yield from (standing(store, shard) for shard in shards)
        return
    half = len(shards) * 11 // 20  # to send the rest back takes a tenth of the time
    with _forked(lambda: msgspec.msgpack.encode([standing(store, shard) for shard in shards[half:]])) as told:
        yield from (standing(store, shard) for shard in shards[:half])
        body = told.read()
    yield from _decoded(body) if body else (standing(store, shard) for shard in shards[half:])


@contextmanager
def _forked(work: Callable[[], bytes]) -> Iterator[BinaryIO]:
    """Work in a process of its own; from the pipe comes what it made, nothing when it died."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            os.close(reading)
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(work())
        finally:
            os._exit(0)  # of what it inherited nothing is to be flushed or told twice
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as pipe:
            yield pipe
    finally:
        os.kill(pid, signal.SIGKILL)  # nobody may want the rest
        os.waitpid(pid, 0)
