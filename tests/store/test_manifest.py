"""A node stands when its manifest does and its files have their size; `why_damaged` re-hashes them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.store.manifest import NAME, read_manifest, set_aside, stands, why_damaged
from tasks.store.node import Node
from tasks.store.paths import TEMPORARY, Store
from tasks.store.shard import NodeWriter, build_node

NODE = Node(stage="example", version=1, config={}, inputs={"source": "aa"})


def write_two(writer: NodeWriter) -> None:
    writer.file("data.bin", bytes(range(256)))
    writer.file("more.txt", b"more")
    writer.documents_in = 3
    writer.documents_out = 1
    writer.dropped["short"] = 2


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "store"))
    build_node(store, NODE, write_two, room="tasks.store", shard="00000")
    return store


def changed(**fields: object) -> Callable[[Path], object]:
    """Something of a manifest that is another thing than it should be."""
    return lambda file: file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def flip(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])


def test_a_whole_node_stands(store: Store) -> None:
    manifest = stands(store, NODE.path)
    assert manifest is not None
    assert (manifest.path, manifest.documents_in, manifest.dropped) == (NODE.path, 3, {"short": 2})
    assert [(f.name, f.bytes) for f in manifest.files] == [("data.bin", 256), ("more.txt", 4)]
    assert why_damaged(store, NODE.path) is None


def test_a_manifest_says_nothing_that_does_not_apply(store: Store) -> None:
    manifest = stands(store, NODE.path)
    assert manifest is not None
    assert {"budget", "shards", "sequences"}.isdisjoint(manifest.to_json())


@pytest.mark.parametrize(
    ("name", "hurt", "why", "still_stands"),
    [
        ("data.bin", flip, "data.bin does not hash to what its manifest says", True),
        ("data.bin", lambda f: f.write_bytes(b"x"), "data.bin has 1 bytes, its manifest says 256", False),
        ("more.txt", Path.unlink, "more.txt is missing", False),
        (NAME, Path.unlink, "the manifest is missing", False),
        (NAME, lambda f: f.write_text('{"stage": "exa'), "the manifest is not readable", False),
        (NAME, lambda f: f.write_bytes(b"\xff\xfe"), "the manifest is not readable", False),
        (NAME, lambda f: f.write_text("[]"), "the manifest is not readable", False),
        (NAME, changed(files=None), "the manifest is not readable", False),
        (NAME, changed(files=[{"name": "data.bin", "bytes": 256}]), "the manifest is not readable", False),
        (NAME, changed(documents_in="many"), "the manifest is not readable", False),
        (NAME, changed(inputs={"source": 1}), "the manifest is not readable", False),
        (NAME, changed(more=1), "the manifest is not readable", False),
    ],
)
def test_damage_is_told_by_file(
    store: Store, name: str, hurt: Callable[[Path], object], why: str, still_stands: bool
) -> None:
    hurt(store.local_path(f"{NODE.path}/{name}"))
    assert why_damaged(store, NODE.path) == why
    assert (stands(store, NODE.path) is not None) == still_stands


def test_what_was_set_aside_is_built_again(store: Store) -> None:
    set_aside(store, NODE.path)
    assert read_manifest(store, NODE.path) is None
    assert any(TEMPORARY in name for name in store.names(NODE.path))
    _, made = build_node(store, NODE, write_two, room="tasks.store", shard="00000")
    assert made
    assert store.names(NODE.path) == [".lock", "data.bin", NAME, "more.txt"]


def test_setting_aside_what_is_not_there_does_nothing(store: Store) -> None:
    set_aside(store, "example/no/node")
    assert store.names("example/no/node") == []
