"""A file of the Hub as a seekable one: just the bytes asked for are fetched, and ahead of who reads them.

`expect` tells what will be read, in order; it is cut in pieces of at most `PIECE_BYTES`, and `CONNECTIONS` of
them are in flight while what came is read. Bytes that nobody expected (a footer) are fetched when they are
read. All lie in a sparse local file (`tasks/download/spool.py`), so what a try brought, the next one has, in
this process or another: no byte is fetched twice, but for segments that were not whole at a kill.

Memory: `CONNECTIONS` segments of 1 MB, whatever is expected. Disk: what is read, until the folder is removed.
"""

import io
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.download.spool import Span, Spool, joined, missing
from tasks.download.transfer import Transfer

if TYPE_CHECKING:
    import pyarrow.parquet as pq

CONNECTIONS = 4
PIECE_BYTES = 4 * 2**20
GAP_BYTES = 2**16
"""Fetched in vain sooner than asked for apart: a request takes as long as this many bytes and more."""


class HubFile(io.RawIOBase):
    """Reads block until the bytes are here.

    Args:
        address: `hf://datasets/owner/name@commit/path`.
        digest: as listed.
        size: of the whole file, as listed.
        folder: where the bytes lie meanwhile.
    """

    def __init__(self, address: str, digest: str, size: int, folder: Path) -> None:
        super().__init__()
        self._size, self._at = size, 0
        self._transfer = Transfer(address, digest, size)
        self._spool = Spool(folder, digest, size)
        self._pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="dapt-range")
        self._pieces: list[tuple[Span, Future[None]]] = []

    @property
    def path(self) -> Path:
        """The sparse local file; whole once all of it was waited for."""
        return self._spool.path

    def expect(self, spans: Iterable[Span]) -> None:
        """Fetch these ahead, in this order: what is read first comes first."""
        asked = joined((piece for piece, _ in self._pieces))
        for span in spans:
            for start, end in missing(asked, *span):
                for gap_start, gap_end in self._spool.missing(start, end):
                    for at in range(gap_start, gap_end, PIECE_BYTES):
                        piece = (at, min(at + PIECE_BYTES, gap_end))
                        self._pieces.append((piece, self._pool.submit(self._fetch, piece)))

    def wait_for(self, start: int, end: int) -> None:
        """Have the bytes [start, end) here.

        Raises:
            SourceError, TransientError: see `tasks.download.transfer.Transfer.fetch`.
        """
        while gaps := self._spool.missing(start, end):
            low, high = gaps[0]
            pending = [(piece, done) for piece, done in self._pieces if piece[0] < high and low < piece[1]]
            if pending:
                pending[0][1].result()
                self._pieces = [entry for entry in self._pieces if entry[1] is not pending[0][1]]
            else:
                high = max(high, min(low + GAP_BYTES, self._size))
                self._fetch(self._spool.missing(low, high)[0])

    def _fetch(self, span: Span) -> None:
        self._transfer.fetch(*span, self._spool.take)

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set where the next read begins."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """As many bytes as asked for, fewer at the end of the file alone."""
        start = min(self._at, self._size)
        end = self._size if size is None or size < 0 else min(start + size, self._size)
        self.wait_for(start, end)
        self._at = end
        return self._spool.read(start, end)

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        """Fill a buffer, less at the end of the file."""
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def close(self) -> None:
        """End what is in flight; the bytes stay for the next."""
        if not self.closed:
            self._transfer.stop()
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._spool.close()
        super().close()

    def discard(self) -> None:
        """Close, and forget the bytes: they are not what was listed."""
        self.close()
        self._spool.discard()


def column_spans(metadata: "pq.FileMetaData", groups: Iterable[int], columns: Sequence[str]) -> list[Span]:
    """Where the column chunks of some row groups lie, in order.

    Args:
        metadata: the file's footer.
        groups: numbers of row groups.
        columns: top-level names.
    """
    found = [metadata.row_group(group) for group in groups]
    chunks = [group.column(number) for group in found for number in range(metadata.num_columns)]
    wanted = [chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns]
    return joined((_span(chunk) for chunk in wanted), gap=GAP_BYTES)


def _span(chunk: "pq.ColumnChunkMetaData") -> Span:
    start = chunk.data_page_offset
    if chunk.dictionary_page_offset:
        start = min(start, chunk.dictionary_page_offset)
    return start, start + chunk.total_compressed_size
