"""The stage: a row a document, in order, counted; the same verdicts whatever the batches; golden values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tasks.filtering.config import FilteringConfig, node
from tasks.filtering.rules import verdict_schema
from tasks.filtering.shard import build_filtering
from tasks.store.fingerprint import combined_digest
from tasks.store.manifest import Manifest
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.shard import NodeWriter, build_node, read_table

PROSE = "\n".join(
    [
        "The chloroplast turns light into chemical energy, and the leaf keeps what it needs.",
        "Water rises from the roots; oxygen leaves through openings of a hair's width.",
        "Sugar made by day is stored as starch and taken down again at night.",
        "Without magnesium the green fades, because each pigment holds one atom of it.",
    ]
)
TEXTS = [
    "",
    "one line",
    PROSE,
    PROSE.replace("\n", "\r\n"),
    "\ufeff" + PROSE,
    "\n".join([PROSE] * 3),
    "\n\n".join([PROSE] * 3),
    "\n".join(["Home", "About", "Contact us", "Privacy", "Imprint", "Login", PROSE[:31]]),
    "\u5149\u5408\u4f5c\u7528\u662f\u7eff\u8272\u690d\u7269\u3002\n" * 4,
    "word " * 300 + "\na\nb",
    PROSE.replace(" ", "\u00a0"),
]


def download_of(store: Store, texts: list[str], times: int = 1) -> Node:
    """A download that holds these texts so many times over, written a row group at a time."""
    inputs = {"texts": combined_digest(texts), "times": str(times)}
    made = Node(stage="download", version=1, config={}, inputs=inputs)
    schema = pa.schema([("id", pa.string()), ("source_id", pa.string()), ("text", pa.string())])

    def write(writer: NodeWriter) -> None:
        ids = [f"{i:016x}-{i}" for i in range(len(texts))]
        nothing = pa.nulls(len(texts), pa.string())
        table = pa.table({"id": ids, "source_id": nothing, "text": texts}, schema)
        with writer.parquet(schema) as out:
            for _ in range(times):
                out.write_table(table, row_group_size=1000)
        writer.documents_in = writer.documents_out = len(texts) * times

    build_node(store, made, write, room="tasks.filtering", shard="00000")
    return made


def filtered(tmp_path: Path, texts: list[str], times: int = 1, **config: Any) -> tuple[Manifest, pa.Table]:
    store = Store(str(tmp_path))
    made = node(FilteringConfig.model_validate(config), download_of(store, texts, times))
    manifest, _ = build_node(store, made, build_filtering, room="tasks.filtering", shard="00000")
    return manifest, read_table(store, made.path)


def test_a_row_a_document_in_order_and_all_are_counted(tmp_path: Path) -> None:
    manifest, table = filtered(tmp_path, TEXTS)
    assert table.schema.equals(verdict_schema(FilteringConfig()))
    assert table["id"].to_pylist() == [f"{i:016x}-{i}" for i in range(len(TEXTS))]
    kept = table["kept"].to_pylist()
    assert [i for i, is_kept in enumerate(kept) if is_kept] == [2, 3, 4, 10]
    assert manifest.documents_in == len(TEXTS)
    assert manifest.documents_out == sum(kept)
    assert manifest.documents_in == manifest.documents_out + sum(manifest.dropped.values())
    assert manifest.dropped["min_lines"] == 2
    sizes = [len(text.encode()) for text in TEXTS]
    assert manifest.details == {
        "text_bytes_in": sum(sizes),
        "text_bytes_out": sum(size for size, is_kept in zip(sizes, kept, strict=True) if is_kept),
    }


def test_verdicts_do_not_depend_on_batches(tmp_path: Path) -> None:
    _, alone = filtered(tmp_path / "a", TEXTS)
    _, many = filtered(tmp_path / "b", TEXTS * 300)
    assert many.slice(len(TEXTS) * 299).drop_columns("id").equals(alone.drop_columns("id"))


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_a_shard_without_text_has_verdicts_too(tmp_path: Path, texts: list[str]) -> None:
    manifest, table = filtered(tmp_path, texts)
    assert table.num_rows == manifest.documents_in == len(texts)
    assert manifest.documents_out == 0
    assert table.schema.equals(verdict_schema(FilteringConfig()))


def peak_arrow_bytes(tmp_path: Path, documents: list[str], times: int) -> int:
    """The most that Arrow held at once while a shard was filtered."""
    store = Store(str(tmp_path))
    made = node(FilteringConfig(), download_of(store, documents, times))
    default = pa.default_memory_pool()
    counted = pa.proxy_memory_pool(default)
    pa.set_memory_pool(counted)
    try:
        build_node(store, made, build_filtering, room="tasks.filtering", shard="00000")
    finally:
        pa.set_memory_pool(default)
    return int(counted.max_memory())


@pytest.mark.slow
def test_memory_does_not_grow_with_the_shard(tmp_path: Path) -> None:
    """Eight times the documents, one batch at a time.

    What Arrow allocates, because it is exact: the resident size of a test process moves by 30 MB by itself.
    In processes of their own, shards of 2, 7, 28 and 112 MB took 174, 147, 154 and 149 MB, compiler included.
    """
    documents = ["\n".join(f"{word:x} line {word} of {page}" for word in range(100)) for page in range(1000)]
    text_bytes = sum(map(len, documents))
    few = peak_arrow_bytes(tmp_path / "few", documents, 2)
    many = peak_arrow_bytes(tmp_path / "many", documents, 16)
    assert few > text_bytes, "nothing was counted"
    assert many - few < text_bytes


def test_identity_holds_the_download_and_what_differs_from_the_defaults() -> None:
    download = Node(stage="download", version=1, config={}, inputs={})
    plain = node(FilteringConfig(), download)
    assert plain.inputs == {"download": download.fingerprint}
    assert plain.reads == {"download": download.path}
    assert plain.fingerprint == node(FilteringConfig(min_lines=3), download).fingerprint
    assert plain.fingerprint != node(FilteringConfig(min_lines=4), download).fingerprint


def test_the_verdicts_are_the_golden_ones(
    tmp_path: Path, golden: Callable[[str, Any], None], logical_digest: Callable[[pa.Table], str]
) -> None:
    _, table = filtered(tmp_path / "a", TEXTS)
    _, full = filtered(tmp_path / "b", TEXTS, quality=True, fineweb=True)
    golden(
        "filtering",
        {
            "digest": logical_digest(table),
            "reasons": table["reason"].to_pylist(),
            "digest_with_all_groups": logical_digest(full),
        },
    )
