import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.download import shard as shard_module
from tasks.download.config import STAGE, VERSION, SourceConfig, node
from tasks.download.digests import DigestMemory
from tasks.download.docstrings import documents
from tasks.download.shard import build_download
from tasks.download.source import list_source
from tasks.store.errors import SourceError
from tasks.store.manifest import Manifest
from tasks.store.paths import Store
from tasks.store.shard import build_node, read_table

LONG = "A sentence that is long enough to matter, said again and again. " * 5


def downloaded(folder: Path, config: SourceConfig) -> tuple[Store, list[Manifest]]:
    store = Store(str(folder / "store"))
    source = list_source(config, folder=folder, digests=DigestMemory(store))
    made = []
    for number, shard in enumerate(source.shards):
        found = node(config, shard)
        made.append(build_node(store, found, build_download, room="tasks.download", shard=f"{number:05}")[0])
    return store, made


def test_download_conserves_documents_and_tells_text_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "schön"}\n{"text": null}\nbroken\n')
    store, (made,) = downloaded(tmp_path, SourceConfig(files=("a.jsonl",)))
    assert (made.stage, made.version) == (STAGE, VERSION)
    assert (made.documents_in, made.documents_out) == (3, 1)
    assert made.dropped == {"bad_json": 1, "no_text": 1}
    assert made.details.pop("sources") == [str(tmp_path / "a.jsonl")]
    assert made.details == {"text_bytes": 6, "documents_with_replaced_bytes": 0}
    table = read_table(store, made.path)
    assert table.schema == pa.schema([("id", pa.string()), ("source_id", pa.string()), ("text", pa.string())])


def test_empty_file_makes_an_empty_table(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"text": pa.array([], pa.string()), "n": pa.array([], pa.int8())}), tmp_path / "a.parquet"
    )
    store, (made,) = downloaded(tmp_path, SourceConfig(files=("a.parquet",), metadata_columns=("n",)))
    assert made.documents_in == made.documents_out == 0
    assert read_table(store, made.path).schema.field("n").type == pa.int8()


def test_row_groups_are_bounded_in_rows_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_module, "ROW_GROUP_BYTES", 100_000)
    with (tmp_path / "a.jsonl").open("w") as out:
        for number in range(2500):
            out.write(json.dumps({"text": f"{number}"}) + "\n")
    for number in range(6):
        (tmp_path / f"b{number}.txt").write_text(f"{number}" * 30_000)
    store, made = downloaded(tmp_path, SourceConfig(files=("a.jsonl", "b*.txt")))
    groups = []
    for manifest in made:
        metadata = pq.read_metadata(store.local_path(f"{manifest.path}/data.parquet"))
        groups.append([metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)])
    assert groups == [[1000, 1000, 500], [3, 3]]


@pytest.mark.slow
def test_large_jsonl_downloads_to_the_same_rows_whatever_the_shard_size(tmp_path: Path) -> None:
    with (tmp_path / "a.jsonl").open("w") as out:
        for number in range(300):
            out.write(json.dumps({"text": f"{number} " * (number % 7), "id": number}) + "\n")
    tables = []
    for size in (100_000, 1000, 333):
        store, made = downloaded(tmp_path, SourceConfig(files=("a.jsonl",), shard_bytes=size))
        tables.append(
            pa.concat_tables(read_table(store, manifest.path) for manifest in made).combine_chunks()
        )
    assert len(tables[0]) == 300
    assert tables[0] == tables[1] == tables[2]


def test_broken_file_fails_alone_and_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no footer")
    store = Store(str(tmp_path / "store"))
    config = SourceConfig(files=("*.parquet",))
    shards = list_source(config, folder=tmp_path, digests=DigestMemory(store)).shards
    build_node(store, node(config, shards[0]), build_download, room="tasks.download", shard="00000")
    with pytest.raises(SourceError, match=rf"{tmp_path}/b\.parquet cannot be read.*exclude"):
        build_node(store, node(config, shards[1]), build_download, room="tasks.download", shard="00001")


@pytest.mark.slow
def test_memory_is_bounded_by_a_row_group_not_by_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = pa.schema([("text", pa.string())])
    with pq.ParquetWriter(tmp_path / "a.parquet", schema, compression="zstd", use_dictionary=False) as out:
        for number in range(12):
            rows = pa.table({"text": [f"{number} {row} " + "word " * 2000 for row in range(1000)]}, schema)
            out.write_table(rows, row_group_size=1000)
    monkeypatch.setattr(shard_module, "ROW_GROUP_BYTES", 5_000_000)
    pool = pa.default_memory_pool()
    base, peak = pool.bytes_allocated(), 0

    def watch(_writer: Any, *_: Any) -> None:
        nonlocal peak
        peak = max(peak, pool.bytes_allocated() - base)

    monkeypatch.setattr("tasks.store.shard.NodeWriter.progress", watch)
    _, (made,) = downloaded(tmp_path, SourceConfig(files=("a.parquet",), shard_bytes="1GB"))
    assert made.details["text_bytes"] > 120_000_000
    assert 0 < peak < 40_000_000


def test_download_of_known_sources_is_golden(
    tmp_path: Path, golden: Callable[[str, Any], None], logical_digest: Callable[[pa.Table], str]
) -> None:
    pq.write_table(
        pa.table({"id": ["x", "y", "z"], "text": ["one\ntwo", None, "drei ß"], "score": [1, 2, 3]}),
        tmp_path / "a.parquet",
        row_group_size=2,
    )
    # An id holds the file's digest, and a Parquet file's bytes are a library version's: no ids of it.
    (tmp_path / "b.jsonl").write_text(
        '{"text": "j1", "score": 1.5, "id": 1}\n{"text": "j2 \\ud800"}\n{"no": 1}\n'
    )
    (tmp_path / "c.txt").write_bytes(b"plain \xff text\r\n")
    module = f'"""{LONG}"""\ndef f(): "F."\n'
    found: dict[str, Any] = {"module": [list(pair) for pair in documents(module.encode())]}
    for name, columns in (("a.parquet", ["source_id", "text", "score"]), ("b.jsonl", None), ("c.txt", None)):
        metadata = () if name == "c.txt" else ("score",)
        store, made = downloaded(tmp_path, SourceConfig(files=(name,), metadata_columns=metadata))
        found[name] = logical_digest(read_table(store, made[0].path, columns=columns))
    golden("download/documents", {"version": VERSION, "found": found})


def test_hard_cases_are_all_accounted_for(tmp_path: Path, data_folder: Path) -> None:
    config = SourceConfig(files=(f"{data_folder}/hard_cases.parquet",), metadata_columns=("reason",))
    store, (made,) = downloaded(tmp_path, config)
    assert (made.documents_in, made.documents_out, made.dropped) == (43, 42, {"no_text": 1})
    table = read_table(store, made.path)
    assert len(set(table["id"].to_pylist())) == 42
    source = pq.read_table(data_folder / "hard_cases.parquet").filter(pa.compute.field("text").is_valid())
    assert table["text"].to_pylist() == source["text"].to_pylist()
    assert table["source_id"].to_pylist() == source["id"].to_pylist()
