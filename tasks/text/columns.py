"""A column of text as two numpy arrays, without a Python object per document."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def text_buffers(column: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Offsets and UTF-8 bytes of a string column.

    Args:
        column: string or large_string, slices included; a null is an empty document.

    Returns:
        offsets: (num_docs + 1,) int64, document i is `data[offsets[i]:offsets[i + 1]]`.
        data: (num_bytes,) uint8, a view where Arrow allows one.

    Raises:
        TypeError: the column is no text.
    """
    if pa.types.is_string(column.type):
        width: type[np.int32] | type[np.int64] = np.int32
    elif pa.types.is_large_string(column.type):
        width = np.int64
    else:
        raise TypeError(f"a column of {column.type}, expected string or large_string")
    if column.null_count:
        column = column.fill_null("")  # bytes may lie behind a null
    _, offsets, data = column.buffers()
    if len(column) == 0 or offsets is None:
        return np.zeros(len(column) + 1, np.int64), np.zeros(0, np.uint8)
    at = np.frombuffer(offsets, width)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    data_bytes = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    return at - at[0], data_bytes[at[0] : at[-1]]
