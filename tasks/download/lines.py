"""JSON lines from plain and compressed files, and where a file can be cut between them.

Memory: one block and the longest line, which is bounded: a longer one is passed over and told as None.
"""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from typing import IO

import zstandard

from tasks.store.errors import SourceError

BLOCK_BYTES = 2**20
MAX_LINE_BYTES = 256 * 2**20
_ZSTD_INPUT_BYTES = 2**16
_ZSTD_MAX_WINDOW = 2**31


def blocks(file: IO[bytes], compression: str, address: str) -> Iterator[bytes]:
    """The decompressed contents.

    Args:
        file: open at its beginning.
        compression: "", "gz" or "zst".
        address: the file, for errors.

    Raises:
        SourceError: the compressed data is damaged or ends early.
    """
    if compression == "zst":
        yield from _zstd(file, address)
        return
    plain: IO[bytes] = gzip.open(file) if compression == "gz" else file  # type: ignore[assignment]  # noqa: SIM115 - the file is the caller's
    try:
        while block := plain.read(BLOCK_BYTES):
            yield block
    except (EOFError, zlib.error, gzip.BadGzipFile) as err:
        raise SourceError(f"{address} is damaged gzip: {err}; mend it, or leave it out with exclude") from err


def _zstd(file: IO[bytes], address: str) -> Iterator[bytes]:
    """Frame by frame: the library's own stream reader takes a frame that was cut off for a whole one."""
    maker = zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW)
    frame, begun = maker.decompressobj(), False
    try:
        while data := file.read(_ZSTD_INPUT_BYTES):
            while data:
                begun = True
                yield frame.decompress(data)
                data = frame.unused_data if frame.eof else b""
                if frame.eof:
                    frame, begun = maker.decompressobj(), False
    except zstandard.ZstdError as err:
        raise SourceError(f"{address} is damaged zstd: {err}; mend it, or leave it out with exclude") from err
    if begun:
        raise SourceError(f"{address} is damaged zstd: it ends early; mend it, or leave it out with exclude")


def part(file: IO[bytes], start: int, end: int) -> Iterator[bytes]:
    """The bytes [start, end) of a plain file."""
    file.seek(start)
    left = end - start
    while left > 0 and (block := file.read(min(BLOCK_BYTES, left))):
        left -= len(block)
        yield block


def lines(data: Iterable[bytes], *, limit: int = MAX_LINE_BYTES) -> Iterator[tuple[int, bytes | None]]:
    """Lines without their ends, each with its offset; None for a line longer than `limit`.

    Args:
        data: blocks of bytes, one after another.
        limit: bytes.
    """
    offset, held, length = 0, [], 0
    for block in data:
        at = 0
        while (end := block.find(b"\n", at)) >= 0:
            length += end - at
            if length <= limit:
                held.append(block[at:end])
            yield offset, b"".join(held) if length <= limit else None
            offset, held, length, at = offset + length + 1, [], 0, end + 1
        length += len(block) - at
        if length <= limit:
            held.append(block[at:])
        else:
            held = []
    if length:
        yield offset, b"".join(held) if length <= limit else None


def cuts(file: IO[bytes], size: int, shard_bytes: int) -> list[int]:
    """Where a plain file is cut: 0, the first line start `shard_bytes` or more after each cut, and its size.

    Reads little: a block or so at each cut.
    """
    found = [0]
    while found[-1] + shard_bytes < size:
        # From one byte before, so that a line that starts exactly there is found as such.
        at = found[-1] + shard_bytes - 1
        file.seek(at)
        end = -1
        while end < 0 and (block := file.read(64 * 2**10)):
            end = block.find(b"\n")
            at += end + 1 if end >= 0 else len(block)
        if at >= size:
            break
        found.append(at)
    return [*found, size]
