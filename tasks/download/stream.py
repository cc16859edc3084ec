"""A source shard as a stream of documents: record batches of `id`, `source_id`, `text` and metadata.

Every row (line, file, module) of the source ends up in a batch or in `Tally.dropped` with its reason:
`where` (not wanted), `no_text` (missing, null, or no text), `bad_json` (a line that is no JSON object),
`too_large` (over 256 MB), and those of `tasks/download/docstrings.py`. What is no UTF-8 is replaced
(`tasks/download/text.py`) and counted.

Memory: one batch, at most 1000 rows and about 16 MB of text at the average length of its row group, or one
document; of a Parquet file one page a column; of a compressed or plain file one block. What was fetched of
the Hub lies on the local disk meanwhile, as do whole files of other hosts; of a part of a remote file only
the ranges needed are fetched.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.download import docstrings
from tasks.download.addresses import id_prefix, is_local
from tasks.download.config import COLUMNS, ReadConfig, SourceFile, SourceShard
from tasks.download.contents import opened, require_unchanged, whole_file
from tasks.download.lines import MAX_LINE_BYTES, blocks, lines, part
from tasks.download.remote import GAP_BYTES, HubFile, column_spans
from tasks.download.text import as_strings, decoded, mended, text_array
from tasks.download.transfer import is_pinned
from tasks.download.where import Where, parse, wanted_groups
from tasks.store.errors import SourceError

BATCH_ROWS = 1000
BATCH_BYTES = 16_000_000
MAX_DOCUMENT_BYTES = MAX_LINE_BYTES
_BUFFER_BYTES = 2**20
_REMOTE_BUFFER_BYTES = 8 * 2**20
_BOM = b"\xef\xbb\xbf"
IN_VAIN_FRACTION = 0.1
"""Of a file, at most: what is fetched for the sake of its sha256; or `GAP_BYTES`."""
Ahead = Callable[[Sequence[str], Iterable[int]], None]
"""Told columns and row groups that are read next; fetches them ahead where they are far."""


@dataclass(slots=True)
class Tally:
    """What was met on the way."""

    documents_in: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    replaced: int = 0
    """Documents in which something was no UTF-8."""


def iter_documents(
    shard: SourceShard, config: ReadConfig, tally: Tally, work: Path | None = None
) -> Iterator[pa.RecordBatch]:
    """The documents of a shard, in order.

    Args:
        shard: what to read.
        config: how.
        tally: counted up.
        work: where bytes of the Hub's files lie, for another try to have them; None: in a temporary folder.

    Yields:
        Batches of `source_schema(shard, config)`; `text` is valid UTF-8 without nulls.

    Raises:
        SourceError: a file is broken or changed, or has no such column; names it.
        TransientError: the network failed.
    """
    schema = source_schema(shard, config, work)
    for file in shard.files:
        if file.format == "parquet":
            yield from _parquet(file, config, schema, tally, work)
        elif file.format.startswith("jsonl"):
            yield from _batches(_json_lines(file, config, tally, work), file, schema, tally)
        else:
            yield from _batches(_one_file(file, tally, work), file, schema, tally)


def source_schema(shard: SourceShard, config: ReadConfig, work: Path | None = None) -> pa.Schema:
    """The columns of a shard: metadata of Parquet typed as in the shard's first file, of jsonl as strings.

    Raises:
        SourceError: that file is broken or lacks a column.
    """
    fields = [pa.field(name, pa.string()) for name in COLUMNS]
    if config.metadata_columns and shard.format == "parquet":
        with opened(shard.files[0], work) as data, pq.ParquetFile(data, pre_buffer=False) as parquet:
            source = parquet.schema_arrow
        _require_columns(source.names, config, shard.files[0].address)
        fields += [pa.field(name, _plain(source.field(name).type)) for name in config.metadata_columns]
    else:
        fields += [pa.field(name, pa.string()) for name in config.metadata_columns]
    return pa.schema(fields)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


@contextlib.contextmanager
def bytes_of(file: SourceFile, work: Path | None = None) -> Iterator[IO[bytes]]:
    """A file for reading, checked to be what was listed."""
    if file.is_whole:
        with whole_file(file, work) as path, path.open("rb") as data:
            yield data
        return
    require_unchanged(file)
    with opened(file, work) as data:
        if isinstance(data, HubFile) and file.byte_range:
            data.expect([file.byte_range])
        yield data


@contextlib.contextmanager
def opened_parquet(file: SourceFile, work: Path | None = None) -> Iterator[tuple[pq.ParquetFile, Ahead]]:
    """A Parquet file for reading, checked to be what was listed; and what is told of the columns read next.

    Of a file of the Hub these column chunks are fetched ahead, and nothing else but the footer. Where little
    else is in it, all of it is: then its sha256 can be checked.
    """
    local, hub = is_local(file.address), is_pinned(file.address)
    in_vain = file.bytes - file.read_bytes
    if hub and not (file.is_whole and in_vain <= max(GAP_BYTES, IN_VAIN_FRACTION * file.bytes)):
        source, options = opened(file, work), {"page_checksum_verification": True}
    else:
        source, options = bytes_of(file, work), {}
    buffer = _BUFFER_BYTES if local or file.is_whole or hub else _REMOTE_BUFFER_BYTES
    with source as data, pq.ParquetFile(data, buffer_size=buffer, pre_buffer=False, **options) as parquet:

        def ahead(columns: Sequence[str], groups: Iterable[int]) -> None:
            if isinstance(data, HubFile):
                data.expect(column_spans(parquet.metadata, groups, columns))

        yield parquet, ahead


def _require_columns(names: list[str], config: ReadConfig, address: str) -> None:
    for setting, wanted in (
        ("text_column", [config.text_column]),
        ("metadata_columns", config.metadata_columns),
        ("where", sorted(parse(config.where).columns) if config.where else []),
    ):
        for name in wanted:
            if name not in names:
                raise SourceError(
                    f"{address} has no column {name!r}; its columns are {', '.join(names)}: set {setting}"
                )


def _parquet(
    file: SourceFile, config: ReadConfig, schema: pa.Schema, tally: Tally, work: Path | None
) -> Iterator[pa.RecordBatch]:
    with opened_parquet(file, work) as (parquet, ahead):
        names = parquet.schema_arrow.names
        _require_columns(names, config, file.address)
        columns = [config.text_column, *(["id"] if "id" in names else []), *config.metadata_columns]
        metadata = parquet.metadata
        first, end = file.row_groups or (0, metadata.num_row_groups)
        row = sum(metadata.row_group(group).num_rows for group in range(first))
        where = parse(config.where) if config.where else None
        readable = list(wanted_groups(where, metadata, range(first, end)) if where else range(first, end))
        ahead([*columns, *(where.columns if where else ())], readable)
        for group in range(first, end):
            facts = metadata.row_group(group)
            wanted = None
            if where:
                wanted = _wanted(parquet, group, where) if group in readable else None
                if wanted is None or not pc.any(wanted).as_py():
                    tally.documents_in += facts.num_rows
                    _count(tally, "where", facts.num_rows)
                    row += facts.num_rows
                    continue
            begin = row
            average = facts.total_byte_size / max(1, facts.num_rows)
            size = int(max(1, min(BATCH_ROWS, BATCH_BYTES / max(1.0, average))))
            for batch in parquet.iter_batches(size, row_groups=[group], columns=list(dict.fromkeys(columns))):
                found, rows = batch, np.arange(row, row + batch.num_rows)
                row += batch.num_rows
                if wanted is not None:
                    chosen = wanted.slice(rows[0] - begin, len(rows))
                    tally.documents_in += chosen.false_count
                    _count(tally, "where", chosen.false_count)
                    found, rows = batch.filter(chosen), rows[chosen.to_numpy(zero_copy_only=False)]
                yield _of_columns(found, rows, file=file, config=config, schema=schema, tally=tally)


def _wanted(parquet: pq.ParquetFile, group: int, where: Where) -> pa.BooleanArray:
    """Of each row of a row group whether it is wanted; of its columns just those asked for are read."""
    table = parquet.read_row_group(group, columns=sorted(where.columns))
    return pc.fill_null(where.mask(table).combine_chunks(), False)


def _of_columns(
    batch: pa.RecordBatch,
    rows: NDArray[np.int64],
    *,
    file: SourceFile,
    config: ReadConfig,
    schema: pa.Schema,
    tally: Tally,
) -> pa.RecordBatch:
    """Some rows of a Parquet file, by their numbers in it."""
    text, replaced = text_array(batch.column(config.text_column), file.address, config.text_column)
    too_large = pc.fill_null(pc.greater(pc.binary_length(text), MAX_DOCUMENT_BYTES), False)
    kept = pc.and_(pc.is_valid(text), pc.invert(too_large))
    tally.documents_in += batch.num_rows
    _count(tally, "no_text", text.null_count)
    _count(tally, "too_large", pc.sum(too_large).as_py() or 0)
    tally.replaced += replaced
    prefix = id_prefix(file.digest)
    ids = pa.array([f"{prefix}-{number}" for number in rows.tolist()], pa.string())
    source_ids = (
        as_strings(batch.column("id")) if "id" in batch.schema.names else pa.nulls(len(ids), pa.string())
    )
    columns = [ids, source_ids, text]
    for name in config.metadata_columns:
        try:
            columns.append(batch.column(name).cast(schema.field(name).type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as err:
            raise SourceError(
                f"{file.address}: column {name!r} is {batch.schema.field(name).type}, in the shard's first "
                f"file it is {schema.field(name).type}: {err}; leave it out of metadata_columns"
            ) from err
    found = [column.filter(kept) for column in columns]
    found[2] = found[2].cast(pa.string())
    return pa.RecordBatch.from_arrays(found, schema=schema)


def _count(tally: Tally, reason: str, number: int) -> None:
    if number:
        tally.dropped[reason] += number


Row = tuple[int, str | None, str, list[str | None]]
"""Its number in the file, the source's own id, text, metadata."""


def _batches(
    rows: Iterator[Row], file: SourceFile, schema: pa.Schema, tally: Tally
) -> Iterator[pa.RecordBatch]:
    """Rows gathered to batches."""
    prefix = id_prefix(file.digest)
    held: list[list[Any]] = []
    size = 0
    for number, source_id, text, metadata in rows:
        if held and (len(held) == BATCH_ROWS or size + len(text) > BATCH_BYTES):
            yield _table_of(held, schema)
            held, size = [], 0
        sound, replaced = mended(text)
        tally.replaced += replaced
        held.append([f"{prefix}-{number}", source_id and mended(source_id)[0], sound, *metadata])
        size += len(text)
    if held:
        yield _table_of(held, schema)


def _table_of(rows: list[list[Any]], schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        pa.array(column, kind.type) for column, kind in zip(zip(*rows, strict=True), schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _one_file(file: SourceFile, tally: Tally, work: Path | None) -> Iterator[Row]:
    """A text file, or a module's docstrings."""
    if file.bytes > MAX_DOCUMENT_BYTES:
        tally.documents_in += 1
        _count(tally, "too_large", 1)
        return
    with bytes_of(file, work) as data:
        content = data.read()
    if file.format == "txt":
        text, replaced = decoded(content.removeprefix(_BOM))
        tally.documents_in += 1
        tally.replaced += replaced
        yield 0, None, text, []
        return
    for number, (found, reason) in enumerate(docstrings.documents(content)):
        tally.documents_in += 1
        if found is None:
            _count(tally, reason, 1)
        else:
            yield number, None, found, []


def _json_lines(file: SourceFile, config: ReadConfig, tally: Tally, work: Path | None) -> Iterator[Row]:
    start, end = file.byte_range or (0, file.bytes)
    compression = file.format.removeprefix("jsonl").removeprefix(".")
    where = parse(config.where) if config.where else None
    seen: dict[str, None] = {}
    has_column, records = False, 0
    with bytes_of(file, work) as data:
        stream = blocks(data, compression, file.address) if compression else part(data, start, end)
        for offset, line in lines(stream):
            record = _record(line, start + offset, file, tally)
            if record is None:
                continue
            records += 1
            has_column = has_column or config.text_column in record
            if not has_column and len(seen) < BATCH_ROWS:
                seen |= dict.fromkeys(record)
            text = record.get(config.text_column)
            if where and not where.holds(record):
                _count(tally, "where", 1)
            elif not isinstance(text, str):
                _count(tally, "no_text", 1)
            elif (
                len(text) > MAX_DOCUMENT_BYTES // 4
                and len(text.encode(errors="replace")) > MAX_DOCUMENT_BYTES
            ):
                _count(tally, "too_large", 1)
            else:
                metadata = [_as_json(record.get(name)) for name in config.metadata_columns]
                yield start + offset, _own_id(record.get("id")), text, metadata
    # A part of a file may lack it by chance; a thousand records do not.
    if seen and not has_column and (file.is_whole or records >= BATCH_ROWS):
        _require_columns(list(seen), config, file.address)


def _record(line: bytes | None, offset: int, file: SourceFile, tally: Tally) -> dict[str, Any] | None:
    """The object on a line; None for what was counted as dropped, and for a blank line, which is no row."""
    if line is None:
        tally.documents_in += 1
        _count(tally, "too_large", 1)
        return None
    if offset == 0:
        line = line.removeprefix(_BOM)
        if line.lstrip()[:1] == b"[":
            raise SourceError(
                f"{file.address} is a JSON array; expected one JSON object a line: write it as jsonl"
            )
    if not line.strip():
        return None
    tally.documents_in += 1
    text, replaced = decoded(line)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        _count(tally, "bad_json", 1)
        return None
    tally.replaced += replaced
    return record


def _own_id(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value)


def _as_json(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value and mended(value)[0]
    return json.dumps(value, ensure_ascii=True, sort_keys=True)
