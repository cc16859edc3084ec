from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.packing.config import PackingConfig, corpus_node, node
from tasks.packing.shard import ROWS_PER_GROUP, build_corpus, build_packing
from tasks.store.errors import BudgetError, StoreDamaged
from tasks.store.manifest import Manifest
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.shard import NodeWriter, build_node, read_table

EOS = 2


def tokenized(store: Store, documents: list[list[int] | None], *, vocab_size: int = 1000) -> Node:
    """A tokenization node that stands; None: a document that it dropped."""
    made = Node(
        stage="tokenization", version=1, config={}, inputs={"documents": str((documents, vocab_size))}
    )
    kind = pa.uint16() if vocab_size <= 1 << 16 else pa.uint32()

    def build(writer: NodeWriter) -> None:
        schema = pa.schema(
            [
                ("id", pa.string()),
                ("kept", pa.bool_()),
                ("reason", pa.string()),
                ("input_ids", pa.list_(kind)),
            ]
        )
        columns = {
            "id": [f"doc-{n}" for n in range(len(documents))],
            "kept": [d is not None for d in documents],
            "reason": [None if d is not None else "empty" for d in documents],
            "input_ids": documents,
        }
        with writer.parquet(schema) as out:
            out.write_table(pa.table(columns, schema=schema))
        writer.documents_out = sum(d is not None for d in documents)
        writer.details = {"eos_id": EOS, "vocab_size": vocab_size}

    build_node(store, made, build, room="tasks.tokenization", shard="00000")
    return made


def pack(store: Store, source: Node, length: int) -> tuple[Node, Manifest]:
    made = node(PackingConfig(sequence_length=length), source)
    manifest, _ = build_node(store, made, build_packing, room="tasks.packing", shard="00000")
    return made, manifest


def random_documents(count: int) -> list[list[int] | None]:
    rng = np.random.default_rng(1)
    return [
        None if n % 11 == 4 else rng.integers(3, 1000, rng.integers(1, 90)).tolist() for n in range(count)
    ]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def test_a_packed_shard_is_the_kept_documents_closed_and_cut(store: Store) -> None:
    documents, length = random_documents(1300), 64
    made, manifest = pack(store, tokenized(store, documents), length)
    table = read_table(store, made.path)
    flat, owner = [], []
    for number, document in enumerate(documents):
        if document is not None:
            flat += [*document, EOS]
            owner += [f"doc-{number}"] * (len(document) + 1)
    whole = len(flat) // length
    assert np.concatenate(table["input_ids"].to_pylist()).tolist() == flat[: whole * length]
    cuts = range(0, whole * length, length)
    assert table["doc_ids"].to_pylist() == [list(dict.fromkeys(owner[at : at + length])) for at in cuts]
    starts = [n * length + m for n, marks in enumerate(table["doc_starts"].to_pylist()) for m in marks]
    assert starts == [at for at in range(whole * length) if at == 0 or owner[at] != owner[at - 1]]
    assert manifest.tokens == whole * length
    assert manifest.details == {"leftover_tokens": len(flat) % length, "sequences": whole, "dtype": "uint16"}
    assert manifest.documents_in == manifest.documents_out + sum(manifest.dropped.values()) == len(set(owner))


def test_row_groups_are_small_and_of_one_size(store: Store) -> None:
    made, _ = pack(store, tokenized(store, random_documents(700)), 64)
    metadata = pq.read_metadata(store.local_path(f"{made.path}/data.parquet"))
    sizes = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
    assert len(sizes) > 2
    assert set(sizes[:-1]) == {ROWS_PER_GROUP}
    assert "BYTE_STREAM_SPLIT" in metadata.row_group(0).column(0).encodings


@pytest.mark.parametrize("documents", [[], [None, None], [[5, 6, 7]]])
def test_a_shard_with_no_whole_row_is_an_empty_table(store: Store, documents: list[list[int] | None]) -> None:
    made, manifest = pack(store, tokenized(store, documents), 8)
    table = read_table(store, made.path)
    assert (table.num_rows, manifest.tokens, manifest.documents_out) == (0, 0, 0)
    assert table.schema.field("input_ids").type == pa.list_(pa.uint16(), 8)
    assert manifest.dropped.get("leftover", 0) == manifest.documents_in


def test_a_large_vocabulary_is_packed_in_32_bits(store: Store) -> None:
    made, manifest = pack(store, tokenized(store, [[70_000, 5, 6], [128_000]], vocab_size=128_256), 3)
    assert read_table(store, made.path)["input_ids"].to_pylist() == [[70_000, 5, 6], [EOS, 128_000, EOS]]
    assert manifest.details["dtype"] == "uint32"


def test_packing_what_does_not_stand_is_damage(store: Store) -> None:
    with pytest.raises(StoreDamaged, match="does not stand"):
        pack(store, Node(stage="tokenization", version=1, config={}, inputs={}), 8)


def test_what_is_written_loads_with_datasets(store: Store, tmp_path: Path) -> None:
    made, _ = pack(store, tokenized(store, random_documents(60)), 32)
    file = str(store.local_path(f"{made.path}/data.parquet"))
    loaded = datasets.Dataset.from_parquet(file, cache_dir=str(tmp_path / "cache"))
    assert loaded.features["input_ids"] == datasets.List(datasets.Value("uint16"), length=32)
    assert loaded["input_ids"][0] == read_table(store, made.path)["input_ids"][0].as_py()


def test_a_larger_corpus_begins_with_the_smaller_and_names_only_what_it_needs(store: Store) -> None:
    config = PackingConfig(sequence_length=10)
    shards = [
        (Node(stage="packing", version=1, config={}, inputs={"n": str(n)}), rows)
        for n, rows in enumerate([3, 0, 5, 7])
    ]
    small, large = (corpus_node(shards, config=config, budget=budget) for budget in (41, 121))
    assert small.config == {"sequences": 5}
    assert [shard["rows"] for shard in small.reads["shards"]] == [3, 0, 2]
    assert [shard["rows"] for shard in large.reads["shards"]] == [3, 0, 5, 5]
    assert list(large.inputs.values()) == [shard.fingerprint for shard, _ in shards]
    assert corpus_node(shards[:3], config=config, budget=50).fingerprint == small.fingerprint
    manifest, _ = build_node(store, small, build_corpus, room="tasks.packing", shard="41")
    assert (manifest.budget, manifest.sequence_length, manifest.sequences, manifest.tokens) == (41, 10, 5, 50)
    assert manifest.shards == small.reads["shards"]


def test_a_budget_beyond_the_sources_tells_both_numbers() -> None:
    shards = [(Node(stage="packing", version=1, config={}, inputs={}), 3)]
    with pytest.raises(BudgetError, match=r"hold 30 tokens .* asks for 31"):
        corpus_node(shards, config=PackingConfig(sequence_length=10), budget=31)


def test_output_of_packing_is_golden(
    store: Store, golden: Callable[[str, Any], None], logical_digest: Callable[[pa.Table], str]
) -> None:
    made, manifest = pack(store, tokenized(store, random_documents(200)), 50)
    table = read_table(store, made.path)
    golden(
        "packing", {"tokens": manifest.tokens, "details": manifest.details, "table": logical_digest(table)}
    )
