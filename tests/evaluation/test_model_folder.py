from pathlib import Path

import pytest

from tasks.store.errors import SourceError, StoreDamaged
from tasks.store.folders import local_folder
from tasks.store.models import resolve_model
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.shard import NodeWriter, build_node

NODE = Node(stage="training", version=1, config={}, inputs={"base": "x"})


def found(store: Store, into: Path) -> Path:
    return local_folder(store, {"node": NODE.path}, NODE.fingerprint, weights=True, into=into)


def make_model(store: Store) -> None:
    def write(writer: NodeWriter) -> None:
        writer.file("config.json", b"{}")

    build_node(store, NODE, write, room="tasks.training", shard="1M")


def test_a_trained_model_is_read_where_it_stands(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    make_model(store)
    assert found(store, tmp_path / "fetched") == tmp_path / "store" / NODE.path
    assert not (tmp_path / "fetched").exists()


def test_a_remote_stores_model_is_fetched_once(tmp_path: Path) -> None:
    store = Store("memory://models")
    make_model(store)
    for _ in range(2):
        folder = found(store, tmp_path / "fetched")
        assert [file.name for file in folder.iterdir()] == ["config.json"]


def test_a_damaged_model_is_not_evaluated(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    make_model(store)
    (tmp_path / NODE.path / "config.json").write_text("[]")
    with pytest.raises(StoreDamaged, match="does not hash"):
        found(store, tmp_path / "fetched")
    with pytest.raises(StoreDamaged, match="no whole manifest"):
        found(store, tmp_path / "fetched")


def test_a_base_that_changed_since_it_was_planned_is_refused(tmp_path: Path) -> None:
    store, base = Store(str(tmp_path / "store")), tmp_path / "base"
    address = {"folder": str(base), "reference": str(base), "revision": ""}
    with pytest.raises(SourceError, match="there is no folder"):
        local_folder(store, address, "digest", weights=True, into=tmp_path)
    base.mkdir()
    (base / "config.json").write_text("{}")
    digest = resolve_model(str(base), folder=base, weights=True).model_digest
    assert local_folder(store, address, digest, weights=True, into=tmp_path) == base
    (base / "config.json").write_text('{"vocab_size": 3}')
    with pytest.raises(SourceError, match=r"the model files in .* changed since this was planned"):
        local_folder(store, address, digest, weights=True, into=tmp_path)
