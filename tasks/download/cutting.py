"""A file as the parts it is read in, with estimates of what they hold.

A Parquet file is known by its footer: the uncompressed size of the text column of each row group. A plain
jsonl file is cut at the first line start after each `shard_bytes`. All else is one part.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from tasks.download.addresses import told
from tasks.download.config import SourceConfig, SourceFile
from tasks.download.contents import opened
from tasks.download.digests import DigestMemory
from tasks.download.docstrings import TEXT_FRACTION
from tasks.download.lines import cuts
from tasks.download.where import canonical, parse, wanted_groups
from tasks.runtime.imports import Late
from tasks.store.errors import SourceError, TransientError

if TYPE_CHECKING:
    import pyarrow.parquet as pq
else:
    pq = Late("pyarrow.parquet")  # a footer is read once

COMPRESSION_RATIO = 3.0
"""Text in a byte of compressed jsonl, for estimates. Textbook pages: gzip -6 and zstd -3 both 3.1."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A file as it is read."""

    parts: list[SourceFile]
    """In order, at least one."""
    alone: bool = False
    """Each part is a shard of its own, whatever its size."""
    columns: tuple[str, ...] = ()
    """Those there are, where the text column or one that is asked for is not among them."""


def cut(file: SourceFile, config: SourceConfig, memory: DigestMemory) -> Cut:
    """Cut one file; one that cannot be read is a part alone, so that its download fails and nothing else.

    Args:
        file: as listed, whole.
        config: `shard_bytes` and the text column.
        memory: knows what was cut before.

    Raises:
        TransientError: the network failed.
    """
    if file.format == "parquet":
        return _cut_parquet(file, config, memory)
    if file.format == "jsonl" and file.bytes > config.shard_bytes:
        return _cut_lines(file, config.shard_bytes, memory)
    ratio = {"docstrings": TEXT_FRACTION, "jsonl.gz": COMPRESSION_RATIO, "jsonl.zst": COMPRESSION_RATIO}
    text = int(file.bytes * ratio.get(file.format, 1.0))
    part = msgspec.structs.replace(file, text_bytes=text, read_bytes=file.bytes)
    return Cut([part], alone=file.format in ("jsonl.gz", "jsonl.zst") or text > config.shard_bytes)


def _cut_lines(file: SourceFile, shard_bytes: int, memory: DigestMemory) -> Cut:
    def find() -> list[int]:
        with opened(file) as data:
            return cuts(data, file.bytes, shard_bytes)

    at = memory.fact(f"cuts {file.digest} {shard_bytes}", find)
    found = [
        msgspec.structs.replace(
            file,
            byte_range=(start, end) if len(at) > 2 else None,
            text_bytes=end - start,
            read_bytes=end - start,
        )
        for start, end in pairwise(at)
    ]
    return Cut(found, alone=True)


def _cut_parquet(file: SourceFile, config: SourceConfig, memory: DigestMemory) -> Cut:
    asked = parse(config.where).columns if config.where else frozenset()
    columns = sorted({config.text_column, "id", *config.metadata_columns, *asked})
    told_where = f" where {canonical(config.where)}" if config.where else ""
    whole = msgspec.structs.replace(file, text_bytes=file.bytes, read_bytes=file.bytes)
    try:
        facts = memory.fact(
            f"footer {file.digest} {config.text_column!r} {columns}{told_where}",
            lambda: _footer(file, config.text_column, columns, config.where),
        )
    except TransientError:
        raise
    except SourceError:
        return Cut([whole], alone=True)  # its download fails and says why
    if facts["missing"]:
        return Cut([whole], alone=True, columns=tuple(facts["missing"]))
    if "refused" in facts:
        raise SourceError(f"{file.address}: {facts['refused']}")
    text, read = facts["text"], facts["read"]
    cut_at = runs(text, config.shard_bytes)
    parts = [
        msgspec.structs.replace(
            file,
            row_groups=(start, end) if len(cut_at) > 1 else None,
            text_bytes=sum(text[start:end]),
            read_bytes=sum(read[start:end]),
        )
        for start, end in cut_at
    ]
    return Cut(parts, alone=len(parts) > 1 or sum(text) > config.shard_bytes)


def runs(sizes: list[int], limit: int) -> list[tuple[int, int]]:
    """Consecutive row groups that together stay within `limit`, or one with text alone that does not."""
    runs, start, total = [], 0, 0
    for number, size in enumerate(sizes):
        if total and total + size > limit:
            runs.append((start, number))
            start, total = number, 0
        total += size
    return [*runs, (start, len(sizes))]


def _footer(file: SourceFile, text_column: str, columns: list[str], asked: str) -> dict[str, Any]:
    """By row group: bytes of text, and compressed bytes of the columns read; or the columns there are.

    Of row groups that hold no wanted row both are 0.
    """
    with opened(file) as data, told(file.address), pq.ParquetFile(data, pre_buffer=False) as parquet:
        metadata, schema = parquet.metadata, parquet.schema_arrow
    where = parse(asked) if asked else None
    if not {text_column, *(where.columns if where else ())} <= set(schema.names):
        return {"missing": schema.names}
    wanted = set(range(metadata.num_row_groups))
    if where:
        try:
            where.mask(schema.empty_table())
        except SourceError as err:
            return {"missing": [], "refused": str(err)}
        wanted = set(wanted_groups(where, metadata, range(metadata.num_row_groups)))
    text: list[int] = []
    read: list[int] = []
    for group in range(metadata.num_row_groups):
        chunks = [metadata.row_group(group).column(number) for number in range(metadata.num_columns)]
        text.append(
            sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == text_column)
        )
        read.append(
            sum(
                chunk.total_compressed_size
                for chunk in chunks
                if chunk.path_in_schema.split(".")[0] in columns
            )
        )
    text = [size if group in wanted else 0 for group, size in enumerate(text)]
    read = [size if group in wanted else 0 for group, size in enumerate(read)]
    return {"missing": [], "text": text, "read": read}
