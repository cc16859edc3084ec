import gzip
import json
import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.download import source as source_module
from tasks.download.config import SourceConfig, SourceShard, node
from tasks.download.digests import NAME, RECENT_NS, DigestMemory
from tasks.download.source import Source, list_source
from tasks.store.errors import SourceError
from tasks.store.paths import Store


def listed(folder: Path, *files: str, **options: Any) -> Source:
    config = SourceConfig(files=files, **options)
    return list_source(config, folder=folder, digests=DigestMemory(Store(str(folder / "store"))))


def names(source: Source) -> list[list[str]]:
    return [[Path(file.address).name for file in shard.files] for shard in source.shards]


def fingerprints(shards: list[SourceShard]) -> list[str]:
    return [node(SourceConfig(files=("x",)), shard).fingerprint for shard in shards]


def write_texts(folder: Path, *sizes: int, prefix: str = "t") -> None:
    for number, size in enumerate(sizes):
        (folder / f"{prefix}{number:03}.txt").write_text(f"{prefix}{number:03} ".ljust(size, "x"))


def write_parquet(path: Path, rows: int, *, group: int, words: int = 50) -> None:
    # Words that do not repeat: a dictionary would hide the size of the text.
    texts = [" ".join(f"{path.stem}{row}w{word}" for word in range(words)) for row in range(rows)]
    pq.write_table(pa.table({"text": texts, "n": range(rows)}), path, row_group_size=group)


def test_listing_keeps_the_order_given_and_sorts_globs(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "z.txt"):
        (tmp_path / name).write_text(name)
    assert names(listed(tmp_path, "z.txt", "[ab].txt", shard_bytes=5)) == [["z.txt"], ["a.txt"], ["b.txt"]]


def test_listing_groups_small_files_in_order_up_to_the_shard_size(tmp_path: Path) -> None:
    write_texts(tmp_path, 40, 40, 40, 90, 10, 200, 10)
    found = listed(tmp_path, "*.txt", shard_bytes=100)
    assert [[shard.text_bytes, len(shard.files)] for shard in found.shards] == [
        [80, 2],
        [40, 1],
        [100, 2],
        [200, 1],
        [10, 1],
    ]
    assert found.num_files == 7
    assert found.revision == ""


def test_appended_files_leave_all_shards_but_the_last_group(tmp_path: Path) -> None:
    write_texts(tmp_path, 40, 40, 40, 90, 10, 20)
    before = fingerprints(listed(tmp_path, "*.txt", shard_bytes=100).shards)
    write_texts(tmp_path, 50, 60, 70, prefix="u")
    after = fingerprints(listed(tmp_path, "*.txt", shard_bytes=100).shards)
    assert after[: len(before) - 1] == before[:-1]
    assert len(after) > len(before)


def test_listing_never_groups_two_formats(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.jsonl").write_text('{"text": "b"}\n')
    (tmp_path / "c.txt").write_text("c")
    assert names(listed(tmp_path, "*.txt", "*.jsonl")) == [["a.txt", "c.txt"], ["b.jsonl"]]
    assert names(listed(tmp_path, "a.txt", "b.jsonl", "c.txt")) == [["a.txt"], ["b.jsonl"], ["c.txt"]]


def test_listing_bounds_the_files_of_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "MAX_GROUP_FILES", 2)
    write_texts(tmp_path, 20, 20, 20)
    assert names(listed(tmp_path, "*.txt")) == [["t000.txt", "t001.txt"], ["t002.txt"]]


def test_large_parquet_file_splits_by_row_groups_of_text(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", 100, group=10)
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    sizes = [metadata.row_group(number).column(0).total_uncompressed_size for number in range(10)]
    found = listed(tmp_path, "a.parquet", shard_bytes=3 * max(sizes))
    assert [shard.files[0].row_groups for shard in found.shards] == [(0, 3), (3, 6), (6, 9), (9, 10)]
    assert sum(shard.text_bytes for shard in found.shards) == sum(sizes)
    whole = listed(tmp_path, "a.parquet", shard_bytes=sum(sizes))
    assert [shard.files[0].row_groups for shard in whole.shards] == [None]


def test_parts_of_a_large_file_never_stand_in_a_group(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", 10, group=10)
    write_parquet(tmp_path / "b.parquet", 200, group=10)
    write_parquet(tmp_path / "c.parquet", 11, group=10)
    found = listed(tmp_path, "*.parquet", shard_bytes=20_000)
    assert names(found)[0] == ["a.parquet"]
    assert names(found)[-1] == ["c.parquet"]
    assert all(len(shard.files) == 1 for shard in found.shards)


def test_compressed_file_is_one_shard(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl.gz").write_bytes(gzip.compress(json.dumps({"text": name}).encode()))
    assert names(listed(tmp_path, "*.gz")) == [["a.jsonl.gz"], ["b.jsonl.gz"]]


def test_broken_parquet_file_is_a_shard_and_not_the_end_of_listing(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", 5, group=5)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no footer")
    write_parquet(tmp_path / "c.parquet", 6, group=5)
    assert names(listed(tmp_path, "*.parquet")) == [["a.parquet"], ["b.parquet"], ["c.parquet"]]


def test_repeated_content_is_left_out_and_told(tmp_path: Path) -> None:
    write_texts(tmp_path, 20, 20)
    (tmp_path / "z.txt").write_text((tmp_path / "t000.txt").read_text())
    found = listed(tmp_path, "*.txt")
    assert names(found) == [["t000.txt", "t001.txt"]]
    assert "1 file(s) left out" in found.notes[0]
    assert f"{tmp_path}/z.txt (as {tmp_path}/t000.txt)" in found.notes[0]


@pytest.mark.parametrize("pattern", ["t001.txt", "sub/t001.txt", "*001*", "{folder}/sub/t001.txt"])
def test_exclude_leaves_files_out(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "sub").mkdir()
    write_texts(tmp_path / "sub", 20, 21, 22)
    found = listed(tmp_path, "sub/*.txt", exclude=(pattern.format(folder=tmp_path), "no-such"))
    assert names(found) == [["t000.txt", "t002.txt"]]
    assert found.notes[0].endswith("leaves out 1 file(s)")
    assert found.notes[1] == "exclude 'no-such' matches no file"


def test_file_of_unknown_format_can_be_excluded(tmp_path: Path) -> None:
    write_texts(tmp_path, 20)
    (tmp_path / "readme.md").write_text("about")
    assert names(listed(tmp_path, "*.*", exclude=("*.md",))) == [["t000.txt"]]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["none-*.txt"], r"'none-\*\.txt' matches no file"),
        (["absent.txt"], r"'absent\.txt' matches no file"),
        (["."], "is a folder, expected files"),
        (["a.csv"], r"a\.csv: its format is not known by its name; expected \.parquet"),
        (["nope://x/y.txt"], r"nope://x/y\.txt"),
    ],
)
def test_listing_names_what_cannot_be_listed(tmp_path: Path, files: list[str], message: str) -> None:
    (tmp_path / "a.csv").write_text("a,b")
    with pytest.raises(SourceError, match=message):
        listed(tmp_path, *files)


def test_excluding_everything_is_an_error(tmp_path: Path) -> None:
    write_texts(tmp_path, 20)
    with pytest.raises(SourceError, match="leaves out all"):
        listed(tmp_path, "*.txt", exclude=("*",))


def test_text_column_that_no_file_has_is_told_by_listing(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", 5, group=5)
    with pytest.raises(
        SourceError, match=r"a\.parquet has no column 'body'; its columns are text, n: set text_column"
    ):
        listed(tmp_path, "*.parquet", text_column="body")
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "b.parquet")
    assert len(listed(tmp_path, "*.parquet", text_column="body").shards) == 2


def test_metadata_of_plain_text_is_refused(tmp_path: Path) -> None:
    write_texts(tmp_path, 20)
    with pytest.raises(SourceError, match="plain text and has no columns"):
        listed(tmp_path, "*.txt", metadata_columns=("url",))


def test_listing_reads_an_object_store_of_any_kind(tmp_path: Path) -> None:
    memory = Store(f"memory://{tmp_path.name}")
    memory.write("a.txt", b"some text")
    # Nothing that fsspec's memory tells would change with the contents: refused rather than guessed.
    with pytest.raises(SourceError, match="tells neither a version nor an ETag"):
        listed(tmp_path, f"memory://{tmp_path.name}/*.txt")


@pytest.mark.slow
def test_thousands_of_known_files_list_in_a_moment(tmp_path: Path) -> None:
    write_texts(tmp_path, *[30] * 1000)
    old = time.time_ns() - 2 * RECENT_NS
    for file in tmp_path.glob("*.txt"):
        os.utime(file, ns=(old, old))
    first = listed(tmp_path, "*.txt")
    assert (tmp_path / "store" / NAME).exists()
    clock = time.process_time()
    assert listed(tmp_path, "*.txt") == first
    assert time.process_time() - clock < 2.0


def test_digest_memory_notices_a_changed_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    store = Store(str(tmp_path / "store"))
    file.write_text("one")
    memory = DigestMemory(store)
    before = memory.of(str(file))
    file.write_text("two")
    assert memory.of(str(file)) != before
    memory.save()
    assert DigestMemory(store).of(str(file)) == memory.of(str(file))


def test_damaged_digest_memory_is_forgotten(tmp_path: Path) -> None:
    write_texts(tmp_path, 20)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / NAME).write_text("{not json")
    assert len(listed(tmp_path, "*.txt").shards) == 1


@pytest.mark.slow
def test_more_files_than_threads_take_in_one_turn_keep_their_order(tmp_path: Path) -> None:
    """From 640 on a thread takes several at a time."""
    for number in range(700):
        (tmp_path / f"{number:03}.txt").write_text(f"{number}\n" * 3)
    assert [one for shard in names(listed(tmp_path, "*.txt", shard_bytes=1)) for one in shard] == [
        f"{number:03}.txt" for number in range(700)
    ]
