"""Arrays in files without a name: what an index holds beyond its memory.

The system keeps as much of them in memory as nobody else wants, and takes it back without asking. The file is
unlinked from the start, so nothing is left behind whatever kills the process. Room on the disk is taken
before it is written to: a full disk is an `OSError`, never a killed process.
"""

import math
import mmap
import os
import tempfile
import weakref
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.text.columns import text_buffers

T = TypeVar("T", bound=np.generic)


class ScratchArray(Generic[T]):
    """An array whose first dimension grows, in a file.

    Args:
        dtype: of its values.
        shape: of a row.
        folder: where the file is; None: the system's place for temporary files.
    """

    def __init__(self, dtype: type[T], shape: tuple[int, ...] = (), folder: Path | None = None) -> None:
        self._dtype, self._shape = np.dtype(dtype), shape
        self._row_bytes = self._dtype.itemsize * math.prod(shape)
        with tempfile.TemporaryFile(dir=folder) as file:
            self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)
        self._map: mmap.mmap
        self.array: NDArray[T]
        self._resize(1)

    @property
    def file_bytes(self) -> int:
        """Of the file."""
        return self.array.nbytes

    def reserve(self, rows: int) -> None:
        """Make room for so many rows, by half again at least, so that growing costs O(1) a row.

        `array` is another one then.

        Raises:
            OSError: the disk is full.
        """
        if rows > len(self.array):
            self._resize(max(rows, len(self.array) * 3 // 2))

    def forget(self) -> None:
        """Take its pages out of this process' memory; what was written stays, in the file."""
        self._map.madvise(mmap.MADV_DONTNEED)

    def _resize(self, rows: int) -> None:
        os.posix_fallocate(self._file, 0, rows * self._row_bytes)
        self._map = mmap.mmap(self._file, rows * self._row_bytes)
        self.array = np.frombuffer(self._map, self._dtype).reshape(rows, *self._shape)


class ScratchTexts:
    """A column of strings that grows, in files.

    Args:
        folder: where the files are; None: the system's place for temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._num_rows = 0
        self._ends = ScratchArray(np.int64, (), folder)  # row i ends at i + 1; the first stands for no row
        self._ends.array[0] = 0
        self._data = ScratchArray(np.uint8, (), folder)

    @property
    def file_bytes(self) -> int:
        """Of both files."""
        return self._ends.file_bytes + self._data.file_bytes

    def extend(self, texts: pa.Array) -> None:
        """Append strings."""
        offsets, data = text_buffers(texts)
        rows = self._num_rows + len(texts)
        self._ends.reserve(rows + 1)
        begin = int(self._ends.array[self._num_rows])
        self._data.reserve(begin + len(data))
        self._ends.array[self._num_rows + 1 : rows + 1] = begin + offsets[1:]
        self._data.array[begin : begin + len(data)] = data
        self._num_rows = rows
        self.forget()

    def take(self, rows: NDArray[np.int32]) -> pa.Array:
        """Strings by row."""
        begins, ends = self._ends.array[rows].tolist(), self._ends.array[rows + 1].tolist()
        data = self._data.array.data
        return pa.array([str(data[a:b], "utf-8") for a, b in zip(begins, ends, strict=True)], pa.string())

    def forget(self) -> None:
        """Take their pages out of this process' memory."""
        self._ends.forget()
        self._data.forget()
