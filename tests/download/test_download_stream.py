import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from tasks.download.addresses import told
from tasks.download.config import Format, ReadConfig, SourceConfig, SourceFile, SourceShard
from tasks.download.digests import DigestMemory
from tasks.download.lines import blocks, cuts, lines, part
from tasks.download.source import list_source
from tasks.download.stream import Tally, iter_documents, source_schema
from tasks.store.errors import SourceError, TransientError
from tasks.store.paths import Store


def shard_of(*paths: Path, kind: Format, **options: Any) -> SourceShard:
    memory = DigestMemory(Store(str(paths[0].parent / "store")))
    facts = [(str(path), *memory.of(str(path))) for path in paths]
    return SourceShard(
        files=[
            SourceFile(address=path, format=kind, digest=digest, bytes=size, **options)
            for path, digest, size in facts
        ]
    )


def read(shard: SourceShard, **options: Any) -> tuple[list[dict[str, Any]], Tally]:
    config, tally = ReadConfig(format=shard.format, **options), Tally()
    batches = list(iter_documents(shard, config, tally))
    for batch in batches:
        batch.validate(full=True)
        assert batch.schema == source_schema(shard, config)
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert tally.documents_in == len(rows) + sum(tally.dropped.values())
    return rows, tally


def test_parquet_rows_keep_number_own_id_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"n": [1.5, 2.5, 3.5], "id": [7, 8, 9], "text": ["a", None, "c"]})
    pq.write_table(table, path, row_group_size=2)
    shard = shard_of(path, kind="parquet")
    rows, tally = read(shard, metadata_columns=["n"])
    prefix = shard.files[0].digest[:16]
    assert rows == [
        {"id": f"{prefix}-0", "source_id": "7", "text": "a", "n": 1.5},
        {"id": f"{prefix}-2", "source_id": "9", "text": "c", "n": 3.5},
    ]
    assert tally.dropped == {"no_text": 1}


def test_row_groups_of_a_file_join_to_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"t{number}" for number in range(25)]}), path, row_group_size=10)
    whole, _ = read(shard_of(path, kind="parquet"))
    parts = [read(shard_of(path, kind="parquet", row_groups=span))[0] for span in ((0, 1), (1, 3))]
    assert [*parts[0], *parts[1]] == whole


@pytest.mark.parametrize(
    "wrap", ["string", "large_string", "dictionary", "binary", "large_binary", "string_view"]
)
def test_parquet_text_of_any_type_becomes_valid_strings(tmp_path: Path, wrap: str) -> None:
    raw = [b"fine", b"bad \xff\xfe", None, b"half \xed\xa0\x80 surrogate", "schön".encode()]
    kinds = {"binary": pa.binary(), "large_binary": pa.large_binary()}
    if wrap in kinds:
        column: pa.Array = pa.array(raw, kinds[wrap])
    elif wrap == "large_string":
        column = pa.array(raw, pa.large_binary()).view(pa.large_string())
    elif wrap == "string_view":
        column = pa.array(["fine", "x", None, "y", "schön"], pa.string_view())
    else:
        column = pa.array(raw, pa.binary()).view(pa.string())
        column = column.dictionary_encode() if wrap == "dictionary" else column
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    rows, tally = read(shard_of(tmp_path / "a.parquet", kind="parquet"))
    assert tally.dropped == {"no_text": 1}
    texts = [row["text"] for row in rows]
    if wrap == "string_view":
        assert texts == ["fine", "x", "y", "schön"]
    else:
        assert texts == ["fine", "bad \ufffd\ufffd", "half \ufffd\ufffd\ufffd surrogate", "schön"]
        assert tally.replaced == 2


def test_missing_column_names_file_column_and_what_there_is(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["x"], "url": ["y"]}), tmp_path / "a.parquet")
    with pytest.raises(
        SourceError, match=r"a\.parquet has no column 'text'; its columns are body, url: set text_col"
    ):
        read(shard_of(tmp_path / "a.parquet", kind="parquet"))
    with pytest.raises(SourceError, match=r"has no column 'score'.*set metadata_columns"):
        read(shard_of(tmp_path / "a.parquet", kind="parquet"), text_column="body", metadata_columns=["score"])
    (tmp_path / "a.jsonl").write_text('{"body": "x"}\n')
    with pytest.raises(SourceError, match=r"a\.jsonl has no column 'text'; its columns are body"):
        read(shard_of(tmp_path / "a.jsonl", kind="jsonl"))


def test_column_of_numbers_is_no_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="is int64, expected text"):
        read(shard_of(tmp_path / "a.parquet", kind="parquet"))


def test_metadata_types_that_differ_within_a_shard_are_told(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["x"], "n": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["y"], "n": ["many"]}), tmp_path / "b.parquet")
    shard = shard_of(tmp_path / "a.parquet", tmp_path / "b.parquet", kind="parquet")
    with pytest.raises(
        SourceError, match=r"b\.parquet: column 'n' is string, in the shard's first file it is int64"
    ):
        read(shard, metadata_columns=["n"])


@pytest.mark.parametrize("damage", ["footer", "data", "not parquet"])
def test_broken_parquet_file_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"text": [f"text number {n} {n * n}" for n in range(2000)]}), path, compression="zstd"
    )
    data = bytearray(path.read_bytes())
    if damage == "footer":
        data = data[:-100]
    elif damage == "data":
        data[4:204] = bytes(200)
    else:
        data = bytearray(b"<html>404</html>")
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.parquet"):
        read(shard_of(path, kind="parquet"))


def test_file_that_changed_since_listing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("first")
    shard = shard_of(path, kind="txt")
    path.write_text("other")
    with pytest.raises(SourceError, match=r"a\.txt has changed since it was listed"):
        read(shard)
    path.unlink()
    with pytest.raises(SourceError, match=r"a\.txt is not there"):
        read(shard)


LINES = [
    b'\xef\xbb\xbf{"text": "first, after a BOM", "id": 5}',
    b'{"text": "pair \\ud83d\\ude00 and lone \\ud800", "id": "own"}',
    b"",
    b'{"text": "cut off',
    b'{"text": 7}',
    b'{"text": null}',
    b'{"other": "no text"}',
    b'"a string"',
    b'{"text": "raw \xff byte", "meta": {"b": 1, "a": [2]}}\r',
    b"[" * 100_000,
    b'{"text": "", "meta": "plain"}',
]


def test_each_bad_json_line_is_dropped_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(LINES))
    rows, tally = read(shard_of(tmp_path / "a.jsonl", kind="jsonl"), metadata_columns=["meta"])
    assert [row["text"] for row in rows] == [
        "first, after a BOM",
        "pair \U0001f600 and lone \ufffd",
        "raw \ufffd byte",
        "",
    ]
    assert [row["source_id"] for row in rows] == ["5", "own", None, None]
    assert [row["meta"] for row in rows] == [None, None, '{"a": [2], "b": 1}', "plain"]
    assert tally.dropped == {"bad_json": 3, "no_text": 3}
    assert tally.replaced == 2
    offsets = [int(row["id"].split("-")[1]) for row in rows]
    assert offsets[:2] == [0, len(LINES[0]) + 1]


def test_json_array_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"text": "x"}]')
    with pytest.raises(SourceError, match=r"a\.json is a JSON array; expected one JSON object a line"):
        read(shard_of(tmp_path / "a.json", kind="jsonl"))


@pytest.mark.slow
def test_compressed_lines_are_those_of_the_plain_file(tmp_path: Path) -> None:
    plain = b"".join(json.dumps({"text": f"line {number} " * 20}).encode() + b"\n" for number in range(3000))
    (tmp_path / "a.jsonl").write_bytes(plain)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(plain[:100_000]) + gzip.compress(plain[100_000:]))
    compress = zstandard.ZstdCompressor().compress
    (tmp_path / "a.jsonl.zst").write_bytes(compress(plain[:100_000]) + compress(plain[100_000:]))
    whole, _ = read(shard_of(tmp_path / "a.jsonl", kind="jsonl"))
    kinds: list[Format] = ["jsonl.gz", "jsonl.zst"]
    for kind in kinds:
        rows, _ = read(shard_of(tmp_path / f"a.{kind}", kind=kind))
        assert [(row["id"].split("-")[1], row["text"]) for row in rows] == [
            (row["id"].split("-")[1], row["text"]) for row in whole
        ]


@pytest.mark.parametrize("kind", ["jsonl.gz", "jsonl.zst"])
@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_damaged_compression_is_named(tmp_path: Path, kind: Format, damage: str) -> None:
    plain = b"".join(
        json.dumps({"text": f"line {number} {number**3}"}).encode() + b"\n" for number in range(3000)
    )
    data = gzip.compress(plain) if kind == "jsonl.gz" else zstandard.ZstdCompressor().compress(plain)
    path = tmp_path / f"a.{kind}"
    path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"no such format" + data)
    with pytest.raises(SourceError, match=r"a\.jsonl\.\w+ is damaged"):
        read(shard_of(path, kind=kind))


def test_text_file_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\x00\n")
    (tmp_path / "b.txt").write_bytes(b"")
    shard = shard_of(tmp_path / "a.txt", tmp_path / "b.txt", kind="txt")
    rows, _ = read(shard)
    assert [(row["id"], row["source_id"], row["text"]) for row in rows] == [
        (f"{shard.files[0].digest[:16]}-0", None, "one\r\ntwo\x00\n"),
        (f"{shard.files[1].digest[:16]}-0", None, ""),
    ]


@given(data=st.binary(max_size=200).map(lambda raw: raw.replace(b"a", b"\n")), size=st.integers(1, 60))
def test_cut_file_holds_the_lines_of_the_whole_for_any_shard_size(data: bytes, size: int) -> None:
    at = cuts(io.BytesIO(data), len(data), size)
    assert at[0] == 0
    assert at[-1] == len(data)
    assert at == sorted(set(at)) or not data
    assert all(data[start - 1 : start] == b"\n" for start in at[1:-1])
    joined = [
        (start + offset, line)
        for start, end in pairwise(at)
        for offset, line in lines(part(io.BytesIO(data), start, end))
    ]
    assert joined == list(lines([data]))
    # Python's own idea of lines, as the reference.
    assert [line for _, line in joined] == [line.removesuffix(b"\n") for line in io.BytesIO(data)]


@given(data=st.binary(max_size=200).map(lambda raw: raw.replace(b"a", b"\n")), block=st.integers(1, 20))
def test_lines_do_not_depend_on_blocks(data: bytes, block: int) -> None:
    split = [data[start : start + block] for start in range(0, len(data), block)]
    assert list(lines(split, limit=9)) == list(lines([data], limit=9))


def test_line_over_the_limit_is_passed_over() -> None:
    assert list(lines([b"12345\n", b"123456", b"7\n1\n"], limit=5)) == [(0, b"12345"), (6, None), (14, b"1")]


def test_blocks_of_a_plain_stream_join_to_it() -> None:
    assert b"".join(blocks(io.BytesIO(b"x" * 3_000_000), "", "a")) == b"x" * 3_000_000


class _Versions(MemoryFileSystem):
    """fsspec's memory, telling an ETag as object stores do."""

    protocol = "versions"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("versions://", "memory://")))

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        facts = dict(super().info(path, **options))
        if facts["type"] == "file":
            facts["ETag"] = f'"{hashlib.md5(self.cat_file(path)).hexdigest()}"'
        return facts


@pytest.fixture
def objects() -> Iterator[_Versions]:
    fsspec.register_implementation("versions", _Versions, clobber=True)
    yield _Versions()
    _Versions.store.clear()
    _Versions.pseudo_dirs[:] = [""]


def test_objects_are_known_by_etag_and_read_by_parts(tmp_path: Path, objects: _Versions) -> None:
    objects.pipe_file("/b/a.jsonl", b"".join(b'{"text": "%d"}\n' % number for number in range(50)))
    objects.pipe_file("/b/b.jsonl.gz", gzip.compress(b'{"text": "z"}\n'))
    config = SourceConfig(files=("versions://b/*.jsonl*",), shard_bytes=200)
    source = list_source(config, folder=tmp_path, digests=DigestMemory(Store(str(tmp_path / "store"))))
    assert [len(shard.files) for shard in source.shards] == [1] * 5
    digest = source.shards[0].files[0].digest
    assert digest.startswith("etag:")
    rows = [row for shard in source.shards for row in read(shard)[0]]
    assert [row["text"] for row in rows] == [*map(str, range(50)), "z"]
    assert rows[0]["id"] == f"{hashlib.sha256(digest.encode()).hexdigest()[:16]}-0"
    objects.pipe_file("/b/a.jsonl", b"another")
    objects.pipe_file("/b/b.jsonl.gz", b"another")
    for shard in (source.shards[1], source.shards[-1]):
        with pytest.raises(SourceError, match="has changed since it was listed"):
            read(shard)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionResetError("reset"), TransientError),
        (TimeoutError(), TransientError),
        (PermissionError("403"), SourceError),
        (OSError("Corrupt snappy"), SourceError),
    ],
)
def test_fault_of_the_network_is_told_from_one_of_the_file(error: Exception, kind: type[Exception]) -> None:
    with pytest.raises(SourceError, match="some://where") as caught, told("some://where"):
        raise error
    assert type(caught.value) is kind
