"""A predicate wants the same rows of Parquet and of JSON, and no row group is left unread that holds one."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.download.config import ReadConfig, SourceConfig, SourceFile, SourceShard, node
from tasks.download.digests import DigestMemory
from tasks.download.source import list_source
from tasks.download.stream import Tally, iter_documents
from tasks.download.where import canonical, parse, wanted_groups
from tasks.store.errors import SourceError
from tasks.store.paths import Store

ROWS = [
    {"text": "a", "score": 1.0, "lang": "en", "ok": True},
    {"text": "b", "score": 3.0, "lang": "de", "ok": False},
    {"text": "c", "score": None, "lang": "en", "ok": None},
    {"text": "d", "score": 4.5, "lang": None, "ok": True},
    {"text": "e", "score": 3.5, "lang": "fr", "ok": False},
    {"text": None, "score": 5.0, "lang": "en", "ok": True},
]
CASES = {
    "score >= 3": "bde",
    "3 <= score": "bde",
    "2 < score < 4": "be",
    "score >= 3 and lang == 'en'": "",
    "score >= 4 or lang == 'en'": "acd",
    "not score >= 3": "a",
    "not (lang == 'en')": "be",
    "lang != 'en'": "be",
    "lang in ['en', 'fr']": "ace",
    "lang not in ('en', 'fr')": "b",
    "score is null": "c",
    "score is not None and lang is null": "d",
    "ok": "ad",
    "not ok": "be",
    "score == 3": "b",
    "score > -1.5": "abde",
}


def parquet(path: Path, rows: list[dict[str, Any]] = ROWS, *, groups: int = 2) -> SourceFile:
    schema = pa.schema(
        [("text", pa.string()), ("score", pa.float64()), ("lang", pa.string()), ("ok", pa.bool_())]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=groups)
    digest, size = DigestMemory(Store(str(path.parent / "store"))).of(str(path))
    return SourceFile(address=str(path), format="parquet", digest=digest, bytes=size)


def texts(file: SourceFile, where: str) -> tuple[str, Tally]:
    tally = Tally()
    config = ReadConfig(format=file.format, where=where)
    batches = list(iter_documents(SourceShard(files=[file]), config, tally))
    found = [row for batch in batches for row in batch.to_pylist()]
    assert tally.documents_in == len(found) + sum(tally.dropped.values())
    numbers = [int(row["id"].rpartition("-")[2]) for row in found]
    if file.format == "parquet":
        assert [ROWS[number]["text"] for number in numbers] == [row["text"] for row in found]
    return "".join(row["text"] for row in found), tally


@pytest.mark.parametrize(("where", "wanted"), CASES.items())
def test_parquet_and_json_lines_give_the_rows_that_are_wanted(
    tmp_path: Path, where: str, wanted: str
) -> None:
    found, tally = texts(parquet(tmp_path / "a.parquet"), where)
    lines = tmp_path / "a.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    digest, size = DigestMemory(Store(str(tmp_path / "store"))).of(str(lines))
    of_json, other = texts(SourceFile(address=str(lines), format="jsonl", digest=digest, bytes=size), where)
    assert found == of_json == wanted
    assert tally.dropped == other.dropped
    assert tally.documents_in == len(ROWS)


def test_json_of_mixed_kinds_drops_what_does_not_compare(tmp_path: Path) -> None:
    lines = tmp_path / "a.jsonl"
    rows: list[dict[str, Any]] = [
        {"text": t, "score": s} for t, s in zip("abcd", (4, "4", True, [4]), strict=True)
    ]
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    digest, size = DigestMemory(Store(str(tmp_path / "store"))).of(str(lines))
    file = SourceFile(address=str(lines), format="jsonl", digest=digest, bytes=size)
    assert texts(file, "score >= 1")[0] == "a"
    assert texts(file, "not score >= 5")[0] == "a"


def test_the_columns_of_a_row_group_that_cannot_match_are_not_read(tmp_path: Path) -> None:
    file = parquet(
        tmp_path / "a.parquet",
        [{"text": t * 5000, "score": float(n)} for n, t in enumerate("abcd")],
        groups=1,
    )
    data = bytearray(Path(file.address).read_bytes())
    metadata = pq.read_metadata(file.address)
    for group in (0, 1):  # what is not wanted is broken: whoever reads it fails
        chunk = metadata.row_group(group).column(0)
        begin = chunk.dictionary_page_offset or chunk.data_page_offset
        data[begin : begin + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    Path(file.address).write_bytes(data)
    digest, size = DigestMemory(Store(str(tmp_path / "other"))).of(file.address)
    broken = SourceFile(address=file.address, format="parquet", digest=digest, bytes=size)
    tally = Tally()
    config = ReadConfig(where="score >= 2")
    found = list(iter_documents(SourceShard(files=[broken]), config, tally))
    assert sum(len(batch) for batch in found) == 2
    assert (tally.documents_in, tally.dropped["where"]) == (4, 2)
    with pytest.raises(SourceError):
        list(iter_documents(SourceShard(files=[broken]), ReadConfig(), Tally()))


values = st.one_of(st.none(), st.integers(-3, 3), st.floats(-3, 3))


@given(
    rows=st.lists(st.tuples(values, st.one_of(st.none(), st.sampled_from("xyz"))), min_size=1, max_size=12),
    where=st.sampled_from(
        [
            *("a >= 1", "a < 0.5", "a == 2", "a != 2", "not a > 1", "a in [1, 2]", "a not in [1, 2]"),
            *("s == 'y'", "s > 'x' and a <= 0", "s != 'x' or a > 2", "-1 < a <= 2", "s is null"),
            "not (a > 0 and s == 'x')",
        ]
    ),
)
def test_statistics_never_rule_out_a_wanted_row(rows: list[tuple[Any, Any]], where: str) -> None:
    table = pa.table(
        {"a": pa.array([a for a, _ in rows], pa.float64()), "s": pa.array([s for _, s in rows], pa.string())}
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=3)
    predicate = parse(where)
    mask = [bool(wanted) for wanted in predicate.mask(table).to_pylist()]
    assert mask == [bool(predicate.holds(row)) for row in table.to_pylist()]
    metadata = pq.read_metadata(sink)
    groups = set(wanted_groups(predicate, metadata, range(metadata.num_row_groups)))
    assert {row // 3 for row, wanted in enumerate(mask) if wanted} <= groups


@pytest.mark.parametrize(
    "where",
    [
        "score >=",
        "3 >= 2",
        "score >= other",
        "f(score)",
        "score + 1 > 2",
        "a.b == 1",
        "lang == None",
        "x in []",
    ],
)
def test_what_is_no_predicate_is_refused_with_what_was_expected(where: str) -> None:
    with pytest.raises(ValidationError, match="expected comparisons of columns"):
        SourceConfig(files=("a.parquet",), where=where)


def test_a_predicate_is_refused_where_there_are_no_columns(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="where is for a dataset or files"):
        SourceConfig(source="docstrings", subset="stdlib", where="score > 1")
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(SourceError, match="plain text and has no columns; leave where out"):
        list_source(
            SourceConfig(files=(str(tmp_path / "a.txt"),), where="score > 1"),
            folder=tmp_path,
            digests=DigestMemory(Store(str(tmp_path / "store"))),
        )


def test_listing_tells_a_missing_column_and_one_of_another_kind(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a.parquet")
    memory = DigestMemory(Store(str(tmp_path / "store")))
    with pytest.raises(
        SourceError, match="no column 'quality'; its columns are text, score, lang, ok: set where"
    ):
        list_source(SourceConfig(files=(file.address,), where="quality > 1"), folder=tmp_path, digests=memory)
    with pytest.raises(SourceError, match="column 'score' is double and does not compare with 'high'"):
        list_source(
            SourceConfig(files=(file.address,), where="score == 'high'"), folder=tmp_path, digests=memory
        )


def test_shards_aim_at_the_text_that_can_be_wanted(tmp_path: Path) -> None:
    rows = [{"text": f"{number} " * 5000, "score": float(number // 4)} for number in range(16)]
    file = parquet(tmp_path / "a.parquet", rows, groups=4)

    def listed(where: str) -> list[SourceShard]:
        config = SourceConfig(files=(file.address,), where=where, shard_bytes=40_000)
        return list_source(
            config, folder=tmp_path, digests=DigestMemory(Store(str(tmp_path / "store")))
        ).shards

    assert len(listed("")) == 4
    assert len(listed("score >= 3")) == 1
    assert sum(shard.text_bytes for shard in listed("score >= 3")) < sum(s.text_bytes for s in listed("")) / 3


def test_a_predicate_is_identity_however_it_is_spaced(tmp_path: Path) -> None:
    shard = SourceShard(files=[parquet(tmp_path / "a.parquet")])
    plain = node(SourceConfig(files=("a",)), shard)
    spaced = node(SourceConfig(files=("a",), where=" (score>=3) "), shard)
    assert spaced.fingerprint == node(SourceConfig(files=("a",), where="score >= 3"), shard).fingerprint
    assert plain.fingerprint != spaced.fingerprint
    assert "where" not in plain.config
    assert canonical("") == ""
