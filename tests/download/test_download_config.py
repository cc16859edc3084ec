import shutil
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from tasks.download.config import SourceConfig, SourceFile, SourceShard, node
from tasks.download.digests import DigestMemory
from tasks.download.source import list_source
from tasks.store.paths import Store


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "none of them; expected one of dataset, files, source and adopted"),
        ({"dataset": "a/b", "files": ["x.txt"]}, "dataset and files"),
        ({"source": "docstrings"}, 'subset is \'\'; expected "stdlib" or "installed"'),
        ({"source": "docstrings", "subset": "stdlib", "packages": ["numpy"]}, "packages are chosen with"),
        ({"source": "docstrings", "subset": "stdlib", "text_column": "x"}, "text_column is for a dataset"),
        ({"files": ["x.txt"], "revision": "main"}, "revision is for a dataset"),
        ({"files": ["x.txt"], "split": "test"}, "split is for a dataset"),
        ({"files": ["x.jsonl"], "metadata_columns": ["id"]}, "every shard has already"),
        ({"files": ["x.jsonl"], "metadata_columns": ["a", "a"]}, "names a column twice"),
        ({"files": ["x.txt"], "shard_bytes": "many"}, "is no amount"),
    ],
)
def test_source_config_refuses_what_has_no_meaning(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SourceConfig(**given)


def test_node_is_known_by_contents_and_columns_alone() -> None:
    file = SourceFile(address="/a/x.parquet", format="parquet", digest="d" * 64, bytes=10, row_groups=(0, 5))
    config = SourceConfig(files=("/a/*",))
    made = node(config, SourceShard(files=[file]))
    elsewhere = node(
        SourceConfig(dataset="some/data", revision="main", shard_bytes="1MB"),
        SourceShard(
            files=[msgspec.structs.replace(file, address="hf://datasets/x@y/z.parquet", text_bytes=7)]
        ),
    )
    assert made.fingerprint == elsewhere.fingerprint
    assert made.config == {}
    assert made.inputs == {"file-00000": "d" * 64 + " row groups 0-5"}
    for changed in (
        node(SourceConfig(files=("/a/*",), text_column="body"), SourceShard(files=[file])),
        node(SourceConfig(files=("/a/*",), metadata_columns=("url",)), SourceShard(files=[file])),
        node(config, SourceShard(files=[msgspec.structs.replace(file, row_groups=(0, 6))])),
        node(config, SourceShard(files=[msgspec.structs.replace(file, digest="e" * 64)])),
        node(config, SourceShard(files=[msgspec.structs.replace(file, format="jsonl", row_groups=None)])),
    ):
        assert changed.fingerprint != made.fingerprint


def test_node_reads_round_trip_to_the_shard() -> None:
    file = SourceFile(address="/a/x.jsonl", format="jsonl", digest="d" * 64, bytes=10, byte_range=(2, 9))
    shard = SourceShard(files=[file])
    assert msgspec.convert(node(SourceConfig(files=("/a/*",)), shard).reads["shard"], SourceShard) == shard


def test_node_of_plain_text_ignores_the_column_name() -> None:
    file = SourceFile(address="/a/x.txt", format="txt", digest="d" * 64, bytes=10)
    nodes = [
        node(SourceConfig(files=("x",), text_column=name), SourceShard(files=[file]))
        for name in ("text", "b")
    ]
    assert nodes[0].fingerprint == nodes[1].fingerprint


def test_same_files_in_another_folder_are_the_same_nodes(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    for number in range(3):
        pq.write_table(
            pa.table({"text": [f"document {number}"] * 50}), first / f"{number}.parquet", row_group_size=9
        )
    shutil.copytree(first, second)
    found = []
    for folder in (first, second):
        config = SourceConfig(files=("*.parquet",), shard_bytes=100)
        source = list_source(config, folder=folder, digests=DigestMemory(Store(str(tmp_path / folder.name))))
        found.append([node(config, shard).fingerprint for shard in source.shards])
    assert found[0] == found[1]
    assert len(set(found[0])) > 3
