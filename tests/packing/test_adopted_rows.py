"""Adopted token ids become rows: one EOS a document, nothing lost, packed rows untouched."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.packing.adopted import cut_at_eos, pack_adopted
from tasks.packing.config import AdoptedConfig, PackingConfig, adopted_node
from tasks.packing.shard import ROWS_PER_GROUP
from tasks.store.manifest import Manifest
from tasks.store.paths import Store
from tasks.store.shard import NodeWriter, build_node, read_table

EOS = 0
Row = list[int] | None


def adopted(
    folder: Path, rows: list[Row], *, length: int, layout: str = "documents", batch: int = 3
) -> tuple[Manifest, pa.Table]:
    """A packed shard of rows that come in batches of a few."""
    store = Store(str(folder))
    config = AdoptedConfig.model_validate({"column": "input_ids", "layout": layout})
    node = adopted_node(
        PackingConfig(sequence_length=length),
        config,
        ["digest"],
        tokenizer_digest="t",
        eos_id=EOS,
        reads={"eos_id": EOS, "vocab_size": 1000},
    )
    table = pa.table(
        {"id": [f"f-{n}" for n in range(len(rows))], "input_ids": pa.array(rows, pa.list_(pa.uint16()))}
    )

    def build(writer: NodeWriter) -> None:
        pack_adopted(writer, table.to_batches(max_chunksize=batch))

    manifest, _ = build_node(store, node, build, room="tasks.packing", shard="00000")
    return manifest, read_table(store, node.path)


def documents(table: pa.Table) -> dict[str, list[int]]:
    """What each document's tokens are in the rows."""
    found: dict[str, list[int]] = {}
    for row in table.to_pylist():
        cuts = sorted({0, *row["doc_starts"], len(row["input_ids"])})
        for name, begin, end in zip(row["doc_ids"], cuts[:-1], cuts[1:], strict=True):
            found.setdefault(name, []).extend(row["input_ids"][begin:end])
    return found


def test_each_document_is_closed_by_exactly_one_eos_and_named_by_its_row_and_place(tmp_path: Path) -> None:
    rows: list[Row] = [[5, 6], [7, EOS], [EOS, 8, EOS, EOS, 9], [EOS], [], None, [4, 4, 4]]
    manifest, table = adopted(tmp_path, rows, length=3)
    assert documents(table) == {
        "f-0": [5, 6, EOS],
        "f-1": [7, EOS],
        "f-2.1": [8, EOS],
        "f-2.4": [9, EOS],
        "f-6": [4, 4, 4],  # its EOS is left over
    }
    assert table["input_ids"].to_pylist() == [[5, 6, 0], [7, 0, 8], [0, 9, 0], [4, 4, 4]]
    assert manifest.dropped == {"empty": 2, "leftover": 0, "null": 1}
    assert (manifest.documents_in, manifest.documents_out, manifest.tokens) == (8, 5, 12)
    told = {
        key: manifest.details[key] for key in ("tokens_in", "eos_added", "surplus_eos", "leftover_tokens")
    }
    assert told == {"tokens_in": 13, "eos_added": 3, "surplus_eos": 3, "leftover_tokens": 1}


def test_an_eos_before_a_document_closes_none_before_it() -> None:
    found = cut_at_eos(np.array([EOS, 5, EOS, 6], np.uint16), np.array([2, 2]), EOS)
    assert found.lengths.tolist() == [1, 1]
    assert (found.eos_added, found.surplus_eos) == (2, 2)
    assert (found.rows.tolist(), found.places.tolist()) == ([0, 1], [1, 1])


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 3), max_size=7), max_size=12))
def test_cutting_keeps_every_token_and_says_what_a_slow_loop_says(rows: list[list[int]]) -> None:
    expected, added, surplus = [], 0, 0
    for number, row in enumerate(rows):
        piece: list[int] = []
        for place, token in enumerate([*row, None]):
            if token == EOS or token is None:
                if piece:
                    expected.append((number, place - len(piece), piece))
                    added += token is None
                else:
                    surplus += token == EOS
                piece = []
            else:
                piece.append(token)
    flat = np.array([token for row in rows for token in row], np.uint16)
    found = cut_at_eos(flat, np.array([len(row) for row in rows], np.int64), EOS)
    pieces = np.split(found.ids, np.cumsum(found.lengths)[:-1]) if len(found.lengths) else []
    got = [
        (row, place, piece.tolist())
        for row, place, piece in zip(found.rows.tolist(), found.places.tolist(), pieces, strict=True)
    ]
    assert got == expected
    assert (found.eos_added, found.surplus_eos) == (added, surplus)


def test_rows_of_the_sequence_s_length_stay_as_they_are(tmp_path: Path) -> None:
    given_rows: list[Row] = [[n % 7, EOS, EOS, 9] for n in range(2 * ROWS_PER_GROUP + 5)]
    manifest, table = adopted(tmp_path, [*given_rows, [5, 5]], length=4, layout="rows", batch=33)
    assert table["input_ids"].to_pylist() == given_rows
    assert table["doc_starts"][1].as_py() == [0, 3]
    assert table["doc_ids"][1].as_py() == ["f-1", "f-1.3"]
    assert (manifest.details["leftover_tokens"], manifest.details["eos_added"]) == (2, 0)
    assert manifest.dropped == {"leftover": 1, "null": 0}
    assert manifest.documents_in == manifest.documents_out + sum(manifest.dropped.values())


def test_the_batches_of_a_source_change_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows: list[Row] = [rng.integers(0, 50, rng.integers(0, 40)).tolist() for _ in range(300)]
    tables = [adopted(tmp_path / str(size), rows, length=16, batch=size)[1] for size in (1, 7, 300)]
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])


@pytest.mark.parametrize("rows", [[], [None], [[EOS]], [[5]]])
def test_a_source_too_small_for_a_row_is_an_empty_shard(tmp_path: Path, rows: list[Row]) -> None:
    manifest, table = adopted(tmp_path, rows, length=8)
    assert (len(table), manifest.tokens) == (0, 0)
    assert manifest.documents_in == sum(manifest.dropped.values())
