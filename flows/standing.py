"""Which nodes of which shards stand, for shards by the thousand.

What looks at a store reads a small file and asks for the size of another, for every node: most of a plan of
10,000 shards. So where a recipe has thousands, a process forked at the command's start looks at what stood
when it was last run, while this one imports and finds out what the recipe stands on now (`reading_ahead`).
What that process saw is as fresh as what is read here, and is used for just the nodes that are asked for.
"""

import json
import os
import signal
import threading
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Protocol

import msgspec

from tasks.store.manifest import Manifest, stands
from tasks.store.node import Node
from tasks.store.paths import DEFAULT_ROOT, Store

MANY_BYTES = 500_000
"""Of a record, from which on a second process pays: a thousand shards."""
SHARE = 0.9
"""Of the shards, the first ones: what is looked at ahead. This process has the rest, beside its own work."""

Standing = dict[str, Manifest]
_decoded = msgspec.msgpack.Decoder(dict[str, Manifest]).decode
CHUNK = 4000
"""Nodes that are told at once: what was seen is decoded here while more is looked at there."""
_ahead: dict[str, Iterator[bytes]] = {}
"""What was seen ahead, as it comes, by the root of the store."""


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
    if store.root not in _ahead:
        yield from (standing(store, shard) for shard in shards)
        return
    first = int(len(shards) * SHARE)
    rest = [standing(store, shard) for shard in shards[first:]]
    seen: dict[str, Manifest] = {}
    for chunk in _ahead.pop(store.root):
        seen |= _decoded(chunk)
    for shard in shards[:first]:
        found = {
            stage: seen.get(node.path) or stands(store, node.path) for stage, node in shard.nodes.items()
        }
        yield {stage: manifest for stage, manifest in found.items() if manifest is not None}
    yield from rest


@contextmanager
def reading_ahead(words: Sequence[str]) -> Iterator[None]:
    """Have another process look at what a recipe stood on, for the first `standing_of` within.

    Only where that pays, on a local disk with a core to spare; and only in a process without other threads,
    whose locks a fork would leave held. The recipe and the store are taken from the command's words and the
    environment as they are: a wrong guess costs time alone.

    Args:
        words: of the command line.
    """
    store = Path(os.environ.get("DAPT_STORE", DEFAULT_ROOT)).expanduser().absolute()
    record = _largest_record(store / "recipes" / _recipe_name(words))
    if record is None or threading.active_count() > 1 or (os.cpu_count() or 1) == 1:
        yield
        return
    root = str(store)

    def look() -> Iterator[bytes]:
        local, paths = Store(root), _read_paths(record)
        for first in range(0, len(paths), CHUNK):
            found = {path: stands(local, path) for path in paths[first : first + CHUNK]}
            yield msgspec.msgpack.encode({path: m for path, m in found.items() if m is not None})

    with _forked(look) as seen:
        _ahead[root] = seen
        try:
            yield
        finally:
            _ahead.clear()


def _recipe_name(words: Sequence[str]) -> str:
    """The name of the recipe that a command line is about, as far as that is seen at a glance."""
    name = ""
    for word in words:
        if word.endswith(".toml"):
            with suppress(OSError, ValueError):
                name = str(tomllib.loads(Path(word).read_text()).get("name", name))
        elif word.startswith("name="):
            name = word.removeprefix("name=")
    return name or "-"


def _largest_record(folder: Path) -> Path | None:
    """The record of a name that tells of most nodes, if it has so many bytes."""
    sizes = {path: path.stat().st_size for path in folder.glob("*.json")}
    largest = max(sizes, key=sizes.__getitem__, default=None)
    return largest if largest and sizes[largest] >= MANY_BYTES else None


def _read_paths(record: Path) -> list[str]:
    """The nodes of a record, of each stage the first share."""
    nodes = json.loads(record.read_bytes())["nodes"]
    return [path for of_stage in nodes.values() for path in of_stage[: int(len(of_stage) * SHARE) + 1]]


@contextmanager
def _forked(work: Callable[[], Iterator[bytes]]) -> Iterator[Iterator[bytes]]:
    """Work in a process of its own; here comes what it made, as it makes it, and the end when it died.

    It lies in a file, of which a pipe tells how far it is written: the other never waits for its reader.
    """
    reading, writing = os.pipe()
    with TemporaryFile() as file:
        pid = os.fork()
        if not pid:
            try:
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, signal.SIG_DFL)
                os.close(reading)
                for made in work():
                    file.write(made)
                    file.flush()
                    os.write(writing, len(made).to_bytes(8))
            finally:
                os._exit(0)  # of what it inherited nothing is to be flushed or told twice
        os.close(writing)
        try:
            yield _pieces(file.fileno(), reading)
        finally:
            os.kill(pid, signal.SIGKILL)  # nobody may want the rest
            os.waitpid(pid, 0)
            os.close(reading)


def _pieces(file: int, sizes: int) -> Iterator[bytes]:
    at = 0
    while told := os.read(sizes, 8):
        size = int.from_bytes(told)
        yield os.pread(file, size, at)
        at += size
