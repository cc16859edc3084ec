"""Token ids of others: what is listed, in which order, what is streamed, and what is refused with its row."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.download import tokens
from tasks.download.addresses import id_prefix
from tasks.download.digests import DigestMemory
from tasks.download.tokens import (
    TokenFiles,
    TokenSource,
    common_length,
    grouped,
    iter_tokens,
    list_tokens,
    require_unpadded,
)
from tasks.store.errors import DaptError, RecipeError, SourceError
from tasks.store.paths import Store

IDS = [[1, 2, 3], [4], [5, 6]]


def write(file: Path, rows: list[Any], kind: pa.DataType | None = None, **options: Any) -> Path:
    """A Parquet file of token ids."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"input_ids": pa.array(rows, kind or pa.list_(pa.int32()))}), file, **options)
    return file


def listed(folder: Path, path: str | Path, **more: str) -> TokenFiles:
    memory = DigestMemory(Store(str(folder / "store")))
    return list_tokens(TokenSource(str(path), **more), folder=folder, digests=memory)


def read(found: TokenFiles, *, vocab_size: int = 100, row_length: int | None = None) -> list[Any]:
    """(id, ids) of every row."""
    batches = [
        batch
        for shard in grouped(found.parts)
        for batch in iter_tokens(shard, "input_ids", vocab_size=vocab_size, row_length=row_length)
    ]
    return [(row["id"], row["input_ids"]) for batch in batches for row in batch.to_pylist()]


def test_a_folder_a_glob_and_a_file_are_the_same_rows_named_by_digest_and_row(tmp_path: Path) -> None:
    file = write(tmp_path / "t" / "a.parquet", IDS)
    ways = [read(listed(tmp_path, path)) for path in (tmp_path / "t", "t/*.parquet", file, "t")]
    prefix = id_prefix(listed(tmp_path, file).parts[0].digest)
    assert ways[0] == [(f"{prefix}-{row}", ids) for row, ids in enumerate(IDS)]
    assert all(way == ways[0] for way in ways)


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.int64()), pa.large_list(pa.int32()), pa.list_(pa.uint8()), pa.list_(pa.uint16(), 2)],
)
def test_lists_of_any_integers_come_out_alike_and_null_rows_stay_null(
    tmp_path: Path, kind: pa.DataType
) -> None:
    rows = [[1, 2], None, [3, 4]]
    found = [ids for _, ids in read(listed(tmp_path, write(tmp_path / "a.parquet", rows, kind)))]
    assert found == rows


@pytest.mark.parametrize(("vocab_size", "kind"), [(65536, pa.uint16()), (65537, pa.uint32())])
def test_ids_are_as_wide_as_the_vocabulary(tmp_path: Path, vocab_size: int, kind: pa.DataType) -> None:
    found = listed(tmp_path, write(tmp_path / "a.parquet", IDS))
    (batch,) = iter_tokens(grouped(found.parts)[0], "input_ids", vocab_size=vocab_size, row_length=None)
    assert batch["input_ids"].type.value_type == kind


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ([1, -1], r"a.parquet, row 1003: token 1 is -1, expected an id from 0 to 99"),
        ([100], r"a.parquet, row 1003: token 0 is 100, expected an id from 0 to 99"),
        ([1, 2, None], r"a.parquet, row 1003: token 2 is None, expected an id from 0 to 99"),
    ],
)
def test_a_null_negative_or_unknown_id_is_told_with_file_and_row(
    tmp_path: Path, bad: list[Any], told: str
) -> None:
    file = write(tmp_path / "a.parquet", [*([[7]] * 1001), None, [], bad, [1]], row_group_size=500)
    with pytest.raises(SourceError, match=told):
        read(listed(tmp_path, file))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([[1, 2], [1], [1, 2]], "row 1 has 1 tokens, the first rows have 2 each"),
        ([[1, 2], [1, 2, 3]], "row 1 has 3 tokens"),
        ([*[[1, 2]] * 999, [1], [1, 2]], "row 999 has 1 tokens"),
        ([[1, 2], None, [1, 2]], "row 1 has 0 tokens"),
    ],
)
def test_packed_rows_of_another_length_are_told(tmp_path: Path, rows: list[Any], told: str) -> None:
    with pytest.raises(SourceError, match=told):
        read(listed(tmp_path, write(tmp_path / "a.parquet", rows)), row_length=2)


def test_the_last_packed_row_of_a_file_may_be_short(tmp_path: Path) -> None:
    found = listed(tmp_path, write(tmp_path / "a.parquet", [[1, 2], [3, 4], [5]]))
    assert [ids for _, ids in read(found, row_length=2)] == [[1, 2], [3, 4], [5]]


def test_what_is_no_list_of_integers_is_told_before_anything_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "input_ids": [[1.5]]}), tmp_path / "a.parquet")
    with pytest.raises(
        SourceError, match=r"a.parquet: column 'input_ids' is list<.*double>, expected a list of"
    ):
        listed(tmp_path, "a.parquet")
    with pytest.raises(
        SourceError, match=r"there is no column 'ids'; name one with --column: text, input_ids"
    ):
        listed(tmp_path, "a.parquet", column="ids")


@pytest.mark.parametrize(
    ("path", "more", "kind", "told"),
    [
        ("none/*.parquet", {}, SourceError, "matches no file"),
        ("a.jsonl", {}, SourceError, "a.jsonl: token ids are read from Parquet files"),
        ("./nothing here", {}, SourceError, "matches no file"),
        ("t", {"revision": "main"}, RecipeError, "--revision is for data sets of the Hub"),
        ("saved", {"split": "train"}, RecipeError, "is one split already"),
        ("splits", {"split": "tset"}, SourceError, "has no split 'tset'; name one with --split: train, test"),
        ("splits", {"subset": "x"}, RecipeError, "--subset is for data sets of the Hub"),
    ],
)
def test_a_source_that_cannot_be_meant_is_told(
    tmp_path: Path, path: str, more: dict[str, str], kind: type[DaptError], told: str
) -> None:
    write(tmp_path / "t" / "a.parquet", IDS)
    (tmp_path / "a.jsonl").write_text('{"input_ids": [1]}\n')
    data = datasets.Dataset.from_dict({"input_ids": IDS})
    data.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict(train=data, test=data).save_to_disk(tmp_path / "splits")
    with pytest.raises(kind, match=told):
        listed(tmp_path, path, **more)


def test_a_saved_data_set_is_read_in_its_order_by_split(tmp_path: Path) -> None:
    train = datasets.Dataset.from_dict({"input_ids": [[n] for n in range(40)]})
    test = datasets.Dataset.from_dict({"input_ids": IDS})
    datasets.DatasetDict(train=train, test=test).save_to_disk(
        tmp_path / "saved", num_shards={"train": 3, "test": 1}
    )
    assert [ids for _, ids in read(listed(tmp_path, "saved"))] == [[n] for n in range(40)]
    assert [ids for _, ids in read(listed(tmp_path, "saved", split="test"))] == IDS
    assert [ids for _, ids in read(listed(tmp_path, "saved/train"))] == [[n] for n in range(40)]


def test_a_large_file_is_cut_at_row_groups_and_keeps_its_row_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    rows = [rng.integers(0, 100, 50).tolist() for _ in range(60)]
    write(tmp_path / "t" / "0.parquet", rows, row_group_size=10)
    write(tmp_path / "t" / "1.parquet", IDS)
    whole = read(listed(tmp_path, "t"))
    monkeypatch.setattr(tokens, "SHARD_BYTES", 1000)
    cut = listed(tmp_path, "t")
    assert len(grouped(cut.parts)) > 3
    assert read(cut) == whole
    assert [ids for _, ids in whole] == [*rows, *IDS]


def test_a_file_that_stands_twice_is_left_out_and_told(tmp_path: Path) -> None:
    write(tmp_path / "t" / "a.parquet", IDS)
    write(tmp_path / "t" / "b.parquet", IDS)
    found = listed(tmp_path, "t")
    assert [Path(part.address).name for part in found.parts] == ["a.parquet"]
    assert "1 file(s) left out" in found.notes[0]


def test_rows_of_one_length_are_told_from_documents(tmp_path: Path) -> None:
    given: list[list[Any]] = [[[1, 2], [3, 4]], IDS, [[1, 2], None]]
    lengths = [
        common_length(listed(tmp_path, write(tmp_path / f"{n}.parquet", rows)).parts[0], "input_ids")
        for n, rows in enumerate(given)
    ]
    assert lengths == [2, None, None]


@pytest.mark.parametrize("write_it", ["parquet", "saved"])
def test_a_batch_is_bounded_whatever_the_file(tmp_path: Path, write_it: str) -> None:
    rows = [[n % 90] * 1000 for n in range(4000)]
    if write_it == "saved":
        datasets.Dataset.from_dict({"input_ids": rows}).save_to_disk(tmp_path / "a")
    else:
        write(tmp_path / "a" / "0.parquet", rows)
    found = listed(tmp_path, "a")
    sizes = [
        batch.nbytes
        for batch in iter_tokens(grouped(found.parts)[0], "input_ids", vocab_size=100, row_length=None)
    ]
    assert sum(sizes) >= 2 * 4000 * 1000
    assert max(sizes) < 2.2 * 1000 * 1000


def test_padding_is_told_with_its_row(tmp_path: Path) -> None:
    columns = {"input_ids": [[1, 2], [3, 0]], "attention_mask": [[1, 1], [1, 0]]}
    pq.write_table(pa.table(columns), tmp_path / "padded.parquet")
    datasets.Dataset.from_dict({**columns, "attention_mask": [[1, 1], [1, 1]]}).save_to_disk(
        tmp_path / "whole"
    )
    with pytest.raises(SourceError, match=r"padded.parquet, row 1 is padded"):
        require_unpadded(listed(tmp_path, "padded.parquet").parts[0])
    require_unpadded(listed(tmp_path, "whole").parts[0])
    require_unpadded(listed(tmp_path, write(tmp_path / "plain.parquet", IDS)).parts[0])
