"""The same store on a disk, in memory and on an object store: nodes are made, read and rebuilt alike.

The object store is a real server on loopback; its tests are in the flow lane, for its start takes seconds.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from tasks.store.errors import SourceError, StoreDamaged
from tasks.store.failure import failure_path
from tasks.store.manifest import NAME, stands, why_damaged
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.shard import DATA, NodeWriter, build_node, iter_batches, read_table

SCHEMA = pa.schema([("id", pa.string()), ("ids", pa.list_(pa.uint16()))])
NODE = Node(stage="example", version=1, config={}, inputs={"source": "aa"})


@pytest.fixture(scope="module")
def object_server() -> Iterator[str]:
    """The address of an S3-compatible server on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/moto-api/", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, "the object server ended"
                time.sleep(0.05)
        yield address
        server.kill()


@pytest.fixture(params=["disk", "memory", pytest.param("s3", marks=pytest.mark.flow)])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    if request.param == "disk":
        yield Store(str(tmp_path / "store"))
    elif request.param == "memory":
        yield Store(f"memory://{tmp_path.name}")
        fsspec.filesystem("memory").store.clear()
    else:
        monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("object_server"))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        bucket = f"bucket-{os.getpid()}-{abs(hash(tmp_path)) % 10**6}"
        store = Store(f"s3://{bucket}/some/prefix")
        store.fs.mkdir(bucket)
        yield store


def write_rows(writer: NodeWriter) -> None:
    with writer.parquet(SCHEMA) as out:
        for at in range(4):
            batch = {"id": [f"{at}-{n}" for n in range(50)], "ids": [list(range(n)) for n in range(50)]}
            out.write_batch(pa.record_batch(batch, schema=SCHEMA))
    writer.file("notes/of.json", b"{}")


def test_a_node_is_made_read_and_verified_on_every_kind_of_store(store: Store, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    manifest, made = build_node(store, NODE, write_rows, room="tasks.store", shard="0", scratch=str(scratch))
    assert made
    assert build_node(store, NODE, write_rows, room="tasks.store", shard="0") == (manifest, False)
    assert list(scratch.iterdir()) == [], "scratch is given back"
    assert stands(store, NODE.path) == manifest
    assert why_damaged(store, NODE.path) is None
    assert set(store.names(NODE.path)) - {".lock"} == {DATA, NAME, "notes"}
    assert store.names("") == ["example"]
    table = read_table(store, NODE.path)
    assert table.num_rows == 200
    assert table.schema == SCHEMA
    assert sum(batch.num_rows for batch in iter_batches(store, NODE.path, rows=30)) == 200


def test_the_bytes_are_the_same_on_every_kind_of_store(store: Store, tmp_path: Path) -> None:
    manifest, _ = build_node(store, NODE, write_rows, room="tasks.store", shard="0")
    local, _ = build_node(Store(str(tmp_path / "twin")), NODE, write_rows, room="tasks.store", shard="0")
    assert manifest.files == local.files


def test_damage_is_told_set_aside_and_rebuilt_on_every_kind_of_store(store: Store) -> None:
    manifest, _ = build_node(store, NODE, write_rows, room="tasks.store", shard="0")
    path = f"{NODE.path}/{DATA}"
    data = store.read(path)
    store.write(path, data[:99] + bytes([data[99] ^ 1]) + data[100:])
    assert why_damaged(store, NODE.path) == f"{DATA} does not hash to what its manifest says"
    with pytest.raises(StoreDamaged, match=DATA):
        read_table(store, NODE.path)
    assert stands(store, NODE.path) is None
    again, made = build_node(store, NODE, write_rows, room="tasks.store", shard="0")
    assert made
    assert again.files == manifest.files
    store.remove(path)
    assert why_damaged(store, NODE.path) == f"{DATA} is missing"
    with pytest.raises(StoreDamaged, match="missing"):
        read_table(store, NODE.path)


def test_a_failure_stands_until_it_is_made_good_on_every_kind_of_store(store: Store) -> None:
    def fail(writer: NodeWriter) -> None:
        raise SourceError("gone")

    with pytest.raises(SourceError):
        build_node(store, NODE, fail, room="tasks.store", shard="0")
    assert store.names("failures/example") == [f"{NODE.fingerprint}.json"]
    build_node(store, NODE, write_rows, room="tasks.store", shard="0")
    assert store.size(failure_path(NODE)) is None


def test_what_another_process_did_is_seen_at_once(store: Store) -> None:
    """An object store's client that remembers listings would answer from yesterday."""
    store.write("a/one", b"1")
    assert store.names("a") == ["one"]
    another = type(store.fs)(skip_instance_cache=True)
    another.pipe_file(store.inside("a/two"), b"22")
    another.rm(store.inside("a/one"))
    assert (store.size("a/one"), store.size("a/two"), store.names("a")) == (None, 2, ["two"])
