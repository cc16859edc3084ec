from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.store.errors import StoreDamaged
from tasks.store.node import Node
from tasks.store.packed import PackedCorpus
from tasks.store.paths import Store
from tasks.store.shard import NodeWriter, build_node

LENGTH = 6
HELD = [7, 0, 5, 9]
USED = [7, 0, 5, 4]


def build_corpus(store: Store) -> tuple[str, list[Node]]:
    """Four packed shards, three rows a group; row n of all is filled with n. The corpus has the first 16."""
    shards = []
    for number, rows in enumerate(HELD):
        first = sum(HELD[:number])
        node = Node(stage="packing", version=1, config={}, inputs={"n": str(number)})

        def build(writer: NodeWriter, first: int = first, rows: int = rows) -> None:
            schema = pa.schema(
                [
                    ("input_ids", pa.list_(pa.uint16(), LENGTH)),
                    ("doc_starts", pa.list_(pa.int32())),
                    ("doc_ids", pa.list_(pa.string())),
                ]
            )
            numbers = range(first, first + rows)
            columns = {
                "input_ids": [[n] * LENGTH for n in numbers],
                "doc_starts": [list(range(n % 3)) for n in numbers],
                "doc_ids": [[f"d{n}"] * (n % 3) for n in numbers],
            }
            with writer.parquet(schema) as out:
                out.write_table(pa.table(columns, schema=schema), row_group_size=3)

        build_node(store, node, build, room="tasks.packing", shard=str(number))
        shards.append(node)
    corpus = Node(stage="corpus", version=1, config={"sequences": sum(USED)}, inputs={})

    def write(writer: NodeWriter) -> None:
        writer.corpus = {
            "budget": sum(USED) * LENGTH,
            "sequence_length": LENGTH,
            "sequences": sum(USED),
            "shards": [{"path": n.path, "rows": r} for n, r in zip(shards, USED, strict=True)],
        }

    build_node(store, corpus, write, room="tasks.packing", shard="96")
    return corpus.path, shards


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, str]:
    store = Store(str(tmp_path_factory.mktemp("store")))
    return store, build_corpus(store)[0]


@given(indices=st.lists(st.integers(0, sum(USED) - 1), max_size=40), cached=st.integers(1, 4))
@pytest.mark.slow
def test_rows_come_in_the_order_asked_for(built: tuple[Store, str], indices: list[int], cached: int) -> None:
    with PackedCorpus(*built, cached_groups=cached) as corpus:
        rows = corpus.rows(np.array(indices, np.int64))
        assert rows.dtype == np.uint16
        assert rows.shape == (len(indices), LENGTH)
        # The rows of shard 3 begin at 12, as those of its file do: nothing before it is left out.
        assert rows.tolist() == [[n] * LENGTH for n in indices]
        asked = np.array(indices, np.int64)
        assert [s.tolist() for s in corpus.doc_starts(asked)] == [list(range(n % 3)) for n in indices]
        assert corpus.doc_ids(asked) == [[f"d{n}"] * (n % 3) for n in indices]


def test_a_row_beyond_the_corpus_is_refused_though_its_shard_holds_it(built: tuple[Store, str]) -> None:
    with PackedCorpus(*built) as corpus:
        assert len(corpus) == sum(USED)
        for index in (-1, sum(USED)):
            with pytest.raises(IndexError, match="a corpus of 16"):
                corpus.rows(np.array([index]))


def test_no_more_row_groups_are_kept_than_asked_for(built: tuple[Store, str]) -> None:
    with PackedCorpus(*built, cached_groups=2) as corpus:
        corpus.rows(np.arange(len(corpus)))
        assert len(corpus._groups) == 2


def test_a_damaged_shard_is_named_when_it_is_first_read(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    path, shards = build_corpus(store)
    file = store.local_path(f"{shards[2].path}/data.parquet")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with PackedCorpus(store, path) as corpus:
        corpus.rows(np.arange(7))
        with pytest.raises(StoreDamaged, match=shards[2].fingerprint):
            corpus.rows(np.array([8]))


def test_a_corpus_that_does_not_stand_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreDamaged, match="no whole corpus"):
        PackedCorpus(Store(str(tmp_path)), "corpus/ab/abc")


def test_a_remote_store_reads_alike() -> None:
    store = Store("memory://packed-corpus-test")
    with PackedCorpus(store, build_corpus(store)[0]) as corpus:
        assert corpus.rows(np.array([15, 0, 8])).tolist() == [[15] * LENGTH, [0] * LENGTH, [8] * LENGTH]
