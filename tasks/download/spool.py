"""A remote file as a sparse local one: the bytes of it that are here, at their own offsets.

Two files in a folder: `<name>.bytes`, as long as the remote file and mostly a hole, and `<name>.have`, a line
a segment (`start end crc32`), written after the segment's bytes. The name stands for what was listed (digest
and length), so another version of a file never meets these bytes. Whoever opens the pair again, after
whatever death, has what is told there and still has its checksum.

Memory: one segment. Disk: what was fetched.
"""

import contextlib
import hashlib
import os
import threading
import zlib
from collections.abc import Iterable
from pathlib import Path

from tasks.store.errors import ResourceError

Span = tuple[int, int]
"""Bytes [start, end) of a file."""


def joined(spans: Iterable[Span], *, gap: int = 0) -> list[Span]:
    """The spans in order, those that meet or lie at most `gap` bytes apart as one; empty ones left out."""
    found: list[Span] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if found and start <= found[-1][1] + gap:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def missing(have: Iterable[Span], start: int, end: int) -> list[Span]:
    """What of [start, end) is in none of the spans; these in order and apart, as `joined` gives them."""
    found: list[Span] = []
    for low, high in have:
        if low >= end:
            break
        if high <= start:
            continue
        if low > start:
            found.append((start, low))
        start = high
    return [*found, (start, end)] if start < end else found


class Spool:
    """The sparse copy of one file; `take` and `missing` from any thread.

    Args:
        folder: where it lies; made if need be.
        digest: what was listed as the file's content.
        size: of the whole file.
    """

    def __init__(self, folder: Path, digest: str, size: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(f"{digest} {size}".encode()).hexdigest()[:16]
        self.path = folder / f"{name}.bytes"
        self._told = folder / f"{name}.have"
        self._lock = threading.Lock()
        self._closed = False
        self._bytes = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(self._bytes, size)
        self._have = joined(self._sound(size))
        self._journal = os.open(self._told, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def _sound(self, size: int) -> Iterable[Span]:
        """The segments told of whose bytes are as they were written."""
        try:
            lines = self._told.read_text("ascii").splitlines()
        except (FileNotFoundError, UnicodeDecodeError):
            return
        for line in lines:
            with contextlib.suppress(ValueError):  # a line that its writer died in
                start, end, checksum = map(int, line.split())
                if 0 <= start < end <= size and zlib.crc32(self.read(start, end)) == checksum:
                    yield start, end

    def missing(self, start: int, end: int) -> list[Span]:
        """What of [start, end) is not here."""
        with self._lock:
            return missing(self._have, start, end)

    def take(self, start: int, data: bytes) -> None:
        """Keep a segment: the file's bytes from `start` on.

        Raises:
            ResourceError: the disk is full.
        """
        end = start + len(data)
        with self._lock:
            if self._closed:
                return
            try:
                _write_all(self._bytes, data, start)
                os.write(self._journal, f"{start} {end} {zlib.crc32(data)}\n".encode())
            except OSError as err:
                raise ResourceError(
                    f"{self.path} cannot be written: {err}; free some, or set DAPT_STORE to a larger disk"
                ) from err
            self._have = joined([*self._have, (start, end)])

    def read(self, start: int, end: int) -> bytes:
        """Bytes that are here."""
        found = os.pread(self._bytes, end - start, start)
        if len(found) < end - start:  # one call reads 2 GB at most
            found = b"".join([found, self.read(start + len(found), end)]) if found else found
        return found

    def close(self) -> None:
        """Let go of the files; they stay."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._bytes)
                os.close(self._journal)

    def discard(self) -> None:
        """Forget all of it: what is here is not what its host lists."""
        self.close()
        self._told.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def _write_all(file: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written
