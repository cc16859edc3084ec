from pathlib import Path

import pyarrow as pa
import pytest

from tasks.evaluation.documents import read_slice
from tasks.store.errors import StoreDamaged
from tasks.store.node import Node
from tasks.store.paths import Store
from tests.evaluation.slices import make_shard

FIRST: dict[str, tuple[str, str | None]] = {
    "a-0": ("kept", None),
    "a-1": ("first held out", "held_out"),
    "a-2": ("filtered", "gone"),
    "a-3": ("near", "near"),
    "a-4": ("second held out, ünïcode", "held_out"),
}
SECOND: dict[str, tuple[str, str | None]] = {"b-0": ("third", "held_out"), "b-1": ("fourth", "held_out")}


def chosen(store: Store, shards: list[tuple[Node, Node]], max_documents: int) -> pa.Table:
    reads = [{"download": download.path, "dedup": dedup.path} for download, dedup in shards]
    return read_slice(store, reads, max_documents)


def test_the_slice_is_the_first_held_out_documents_in_source_order(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    shards = [make_shard(store, "one", FIRST), make_shard(store, "two", SECOND)]
    assert chosen(store, shards, 3).to_pylist() == [
        {"id": "a-1", "text": "first held out"},
        {"id": "a-4", "text": "second held out, ünïcode"},
        {"id": "b-0", "text": "third"},
    ]
    assert chosen(store, shards, 100)["id"].to_pylist() == ["a-1", "a-4", "b-0", "b-1"]


def test_shards_behind_the_last_document_are_not_opened(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    shards = [make_shard(store, "one", FIRST), (Node(stage="download", version=1, config={}, inputs={}),) * 2]
    assert len(chosen(store, shards, 2)) == 2


def test_nothing_held_out_is_an_empty_slice(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    shards = [make_shard(store, "one", {"a-0": ("kept", None)})]
    assert len(chosen(store, shards, 10)) == 0
    assert len(chosen(store, [], 10)) == 0
    assert len(chosen(store, shards, 0)) == 0


def test_a_verdict_without_its_document_is_damage(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    download, _ = make_shard(store, "one", FIRST)
    _, verdicts = make_shard(store, "two", SECOND)
    with pytest.raises(StoreDamaged, match="lacks documents"):
        chosen(store, [(download, verdicts)], 10)
