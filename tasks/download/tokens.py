"""Token ids that somebody else made: files listed, rows checked and streamed; no text is looked at.

In: Parquet files (a folder, a glob, a URL, a data set of the Hub pinned to its commit) or what
`datasets.save_to_disk` wrote, with a column of lists of integers. Out: record batches of `id` (16 hex digits
of the file's digest, `-`, the row in the file) and `input_ids`. A null row stays null for whoever counts it;
what would be another text in silence (a null, negative or unknown id, a row of another length) stops the
shard, told with file and row.

Memory: one batch, about 16 MB of ids at the average length of its row group, or one row; of an Arrow file one
of its own batches (1,000 rows as `datasets` writes them).
"""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.download.addresses import expand, id_prefix, told
from tasks.download.config import Format, SourceConfig, SourceFile, SourceShard
from tasks.download.contents import opened
from tasks.download.cutting import runs
from tasks.download.digests import DigestMemory
from tasks.download.hub import list_dataset
from tasks.download.source import LISTING_THREADS, MAX_GROUP_FILES
from tasks.download.stream import bytes_of, opened_parquet
from tasks.store.errors import RecipeError, SourceError

SHARD_BYTES = 64_000_000
"""Ids, as their file stores them before compression, that a source shard aims at."""
BATCH_BYTES = 16_000_000
_MOST_ROWS = 1000
_HUB_ID = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True, slots=True)
class TokenSource:
    """Where token ids come from, as the user names it."""

    path: str
    """A folder, a glob, a URL, a folder of `save_to_disk`, or a data set of the Hub."""
    column: str = "input_ids"
    subset: str = ""
    split: str = ""
    """Of a data set of the Hub or a saved one with several; empty: train."""
    revision: str = ""


@dataclass(frozen=True, slots=True)
class TokenFiles:
    """A source, listed."""

    parts: list[SourceFile]
    """Files and parts of files, in order."""
    revision: str
    """The data set's commit; "" for other sources."""
    notes: list[str]


def list_tokens(source: TokenSource, *, folder: Path, digests: DigestMemory) -> TokenFiles:
    """List the files of a source and look at their footers.

    Args:
        source: what.
        folder: what a relative path is relative to.
        digests: remembers what was learnt; saved here.

    Raises:
        RecipeError: an argument has no meaning for this source.
        SourceError: nothing is found, a file cannot be read, or the column holds no lists of integers.
        TransientError: the network failed.
    """
    try:
        files, revision = _found(source, folder, digests)
        kept = list({file.digest: file for file in reversed(files)}.values())[::-1]
        with ThreadPoolExecutor(LISTING_THREADS) as pool:
            parts = list(pool.map(lambda file: _parts(file, source.column, digests), kept))
    finally:
        digests.save()
    twice = len(files) - len(kept)
    notes = [f"{twice} file(s) left out, whose content stands earlier in the list"] if twice else []
    return TokenFiles([part for of_file in parts for part in of_file], revision, notes)


def _found(source: TokenSource, folder: Path, digests: DigestMemory) -> tuple[list[SourceFile], str]:
    place = folder / Path(source.path).expanduser()
    saved = any((place / name).is_file() for name in ("state.json", "dataset_dict.json"))
    local = "://" in source.path or place.exists() or has_magic(source.path)
    if not local and _HUB_ID.fullmatch(source.path):
        config = SourceConfig(
            dataset=source.path,
            subset=source.subset,
            split=source.split or "train",
            revision=source.revision,
        )
        listed, commit = list_dataset(config, digests)
        return [_file(*facts) for facts in listed], commit
    for name in ("subset", "revision") if saved else ("subset", "split", "revision"):
        if getattr(source, name):
            raise RecipeError(
                f"--{name} is for data sets of the Hub, and {source.path} is read as files; leave it out"
            )
    if saved:
        addresses = [str(file) for file in _saved_files(place, source.split)]
    elif place.is_dir():
        addresses = expand(f"{source.path.rstrip('/')}/*.parquet", folder)
    else:
        addresses = expand(source.path, folder)
    with ThreadPoolExecutor(LISTING_THREADS) as pool:
        known = list(pool.map(digests.of, addresses))
    return [_file(address, *facts) for address, facts in zip(addresses, known, strict=True)], ""


def _saved_files(place: Path, split: str) -> list[Path]:
    """The files that `save_to_disk` wrote, in their order."""
    if (place / "dataset_dict.json").is_file():
        splits = json.loads((place / "dataset_dict.json").read_bytes())["splits"]
        if (split or "train") not in splits:
            raise SourceError(
                f"{place} has no split {split or 'train'!r}; name one with --split: {', '.join(splits)}"
            )
        place = place / (split or "train")
    elif split:
        raise RecipeError(f"{place} is one split already; leave --split out")
    with told(str(place / "state.json")):
        state = json.loads((place / "state.json").read_bytes())
    if state.get("_indices_data_files"):
        raise SourceError(f"{place} is saved with indices beside the data; save it again with datasets >= 2")
    return [place.absolute() / entry["filename"] for entry in state["_data_files"]]


def _file(address: str, digest: str, size: int) -> SourceFile:
    kinds: dict[str, Format] = {".parquet": "parquet", ".arrow": "arrow"}
    kind = kinds.get(Path(address).suffix.lower())
    if kind is None:
        raise SourceError(
            f"{address}: token ids are read from Parquet files and folders of save_to_disk; write it as "
            "Parquet"
        )
    return SourceFile(address=address, format=kind, digest=digest, bytes=size)


def _parts(file: SourceFile, column: str, memory: DigestMemory) -> list[SourceFile]:
    """A file in parts of about `SHARD_BYTES` of ids, where it has row groups to cut at."""
    facts = memory.fact(f"tokens {file.digest} {column!r}", lambda: _facts(file, column))
    if facts["problem"]:
        raise SourceError(f"{file.address}: {facts['problem']}")
    sizes = facts["groups"]
    cut_at = runs(sizes, SHARD_BYTES)
    return [
        msgspec.structs.replace(
            file,
            row_groups=(start, end) if len(cut_at) > 1 else None,
            read_bytes=file.bytes * sum(sizes[start:end]) // max(1, sum(sizes)),
            text_bytes=sum(sizes[start:end]),
        )
        for start, end in cut_at
    ]


def _facts(file: SourceFile, column: str) -> dict[str, Any]:
    """What is wrong with a file's column, "" where nothing is; and its bytes by row group."""
    with opened(file) as data, told(file.address):
        if file.format == "arrow":
            schema, groups = pa.ipc.open_stream(data).schema, [file.bytes]
        else:
            with pq.ParquetFile(data, pre_buffer=False) as parquet:
                schema, groups = parquet.schema_arrow, _group_bytes(parquet.metadata, column)
    if column not in schema.names:
        problem = f"there is no column {column!r}; name one with --column: {', '.join(schema.names)}"
        return {"problem": problem, "groups": []}
    kind = schema.field(column).type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    whole = lists and pa.types.is_integer(kind.value_type)
    problem = (
        "" if whole else f"column {column!r} is {kind}, expected a list of integers: --column names another"
    )
    return {"problem": "" if whole else problem, "groups": groups}


def _group_bytes(metadata: pq.FileMetaData, column: str) -> list[int]:
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return [
        sum(
            group.column(number).total_uncompressed_size
            for number in range(metadata.num_columns)
            if group.column(number).path_in_schema.split(".")[0] == column
        )
        for group in groups
    ]


def grouped(parts: list[SourceFile]) -> list[SourceShard]:
    """Source shards in order: parts taken together up to `SHARD_BYTES`."""
    shards: list[list[SourceFile]] = []
    size = 0
    for part in parts:
        alike = shards and shards[-1][0].format == part.format and len(shards[-1]) < MAX_GROUP_FILES
        if not alike or size + part.text_bytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(part)
        size += part.text_bytes
    return [SourceShard(files=files) for files in shards]


def common_length(file: SourceFile, column: str) -> int | None:
    """The tokens of a file's first rows where all have as many, else None; what says that it is packed."""
    for batch in _batches(file, column):
        lengths = set(pc.list_value_length(batch.column(column)).to_pylist())
        return lengths.pop() if len(lengths) == 1 else None
    return None


def require_unpadded(file: SourceFile) -> None:
    """Look for padding in a file's first rows: what an attention_mask leaves out is no text.

    Raises:
        SourceError: a row is padded; names it.
    """
    for batch in _batches(file, "attention_mask"):
        if "attention_mask" not in batch.schema.names:
            return
        lists = _as_lists(batch.column("attention_mask"))
        at = pc.index(lists.values, pa.scalar(0, lists.values.type)).as_py()
        if at >= 0:
            row = int(np.searchsorted(lists.offsets.to_numpy(), at, side="right")) - 1
            raise SourceError(
                f"{file.address}, row {row} is padded: its attention_mask is 0 somewhere, and a model would "
                "be trained on padding; tokenize without padding, or leave the padding out and the column too"
            )
        return


def iter_tokens(
    shard: SourceShard, column: str, *, vocab_size: int, row_length: int | None
) -> Iterator[pa.RecordBatch]:
    """The rows of a shard, in order.

    Args:
        shard: what to read.
        column: of lists of integers.
        vocab_size: ids are below it.
        row_length: tokens that every row has, a file's last may have fewer; None: any number.

    Yields:
        Batches of `id` and `input_ids` (lists of uint16 or uint32, null where the row is).

    Raises:
        SourceError: a file is broken or changed, or a row is not what it has to be; names file and row.
        TransientError: the network failed.
    """
    kind = pa.uint16() if vocab_size <= 1 << 16 else pa.uint32()
    for file in shard.files:
        prefix, row = id_prefix(file.digest), _first_row(file)
        short: tuple[int, int] | None = None
        for batch in _batches(file, column):
            lists = _as_lists(batch.column(column))
            _require_ids(lists, file.address, row, vocab_size)
            if row_length is not None:
                short = _require_length(lists, file.address, row, row_length, short)
            offsets, values = lists.offsets, lists.values.cast(kind)
            ids = pa.array([f"{prefix}-{n}" for n in range(row, row + len(lists))], pa.string())
            cast = pa.ListArray.from_arrays(offsets, values, mask=lists.is_null())
            yield pa.RecordBatch.from_arrays([ids, cast], names=["id", "input_ids"])
            row += len(lists)


def _as_lists(column: pa.Array) -> pa.ListArray:
    """Lists with 32-bit offsets that begin at 0 and hold nothing where a row is null."""
    whole = column.cast(pa.list_(column.type.value_type))
    lengths = pc.fill_null(whole.value_lengths(), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    if whole.null_count:
        return pa.ListArray.from_arrays(pa.array(offsets), whole.flatten(), mask=whole.is_null())
    return pa.ListArray.from_arrays(pa.array(offsets), whole.flatten())


def _require_ids(lists: pa.ListArray, address: str, first: int, vocab_size: int) -> None:
    """Refuse null, negative and unknown ids."""
    values = lists.values
    outside = pc.or_kleene(pc.less(values, 0), pc.greater_equal(values, vocab_size))
    at = pc.index(pc.or_kleene(pc.is_null(values), outside), True).as_py()
    if at < 0:
        return
    offsets = lists.offsets.to_numpy()
    row = int(np.searchsorted(offsets, at, side="right")) - 1
    raise SourceError(
        f"{address}, row {first + row}: token {at - int(offsets[row])} is {values[at].as_py()}, expected an "
        f"id from 0 to {vocab_size - 1}; name the tokenizer that made them with --tokenizer, or mend the file"
    )


def _require_length(
    lists: pa.ListArray, address: str, first: int, wanted: int, short: tuple[int, int] | None
) -> tuple[int, int] | None:
    """Refuse rows of another length; a short one stands until a row follows it: the last of a file may be."""
    lengths = np.diff(lists.offsets.to_numpy())
    other = np.flatnonzero(lengths != wanted)
    if short is None and len(other):
        short = (first + int(other[0]), int(lengths[other[0]]))
    if short is not None and len(lists) and (short[1] > wanted or short[0] != first + len(lists) - 1):
        raise SourceError(
            f"{address}, row {short[0]} has {short[1]} tokens, the first rows have {wanted} each, as packed "
            "ones do; give another --sequence-length to have rows packed as documents, or mend the file"
        )
    return short


def _first_row(file: SourceFile) -> int:
    if not file.row_groups or not file.row_groups[0]:
        return 0
    with opened_parquet(file) as (parquet, _):
        return sum(parquet.metadata.row_group(group).num_rows for group in range(file.row_groups[0]))


def _batches(file: SourceFile, column: str) -> Iterator[pa.RecordBatch]:
    if file.format == "arrow":
        with bytes_of(file) as data, told(file.address):
            yield from pa.ipc.open_stream(data)
        return
    with opened_parquet(file) as (parquet, ahead), told(file.address):
        sizes = _group_bytes(parquet.metadata, column)
        groups = range(*(file.row_groups or (0, parquet.metadata.num_row_groups)))
        ahead([column], groups)
        for group in groups:
            # what is 2 bytes in the file may be 8 in memory
            average = 4 * sizes[group] / max(1, parquet.metadata.row_group(group).num_rows)
            rows = int(max(1, min(_MOST_ROWS, BATCH_BYTES / max(1.0, average))))
            yield from parquet.iter_batches(rows, row_groups=[group], columns=[column])
