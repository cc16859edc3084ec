"""The hash of a document's normalised text: equal hashes are the same document.

Normalised: lower-cased by Unicode's simple case mapping (no NFC: composed and decomposed letters differ),
every run of ASCII whitespace one space, none at either end. Punctuation counts here; two texts that differ in
it alone are near duplicates instead.
"""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.text.columns import text_buffers
from tasks.text.kernel import kernel

HASH_BYTES = 16

_SPACE = np.uint8(32)


def lower_cased(column: pa.Array) -> pa.Array:
    """The column in lower case; ASCII text takes the fast way, with the same result."""
    if pc.all(pc.string_is_ascii(column)).as_py():
        return pc.ascii_lower(column)
    return pc.utf8_lower(column)


def exact_hashes(offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """BLAKE2b of each normalised text.

    Args:
        offsets: (num_docs + 1,), document i is `data[offsets[i]:offsets[i + 1]]`.
        data: (num_bytes,), lower-cased UTF-8.

    Returns:
        (num_docs, 16).
    """
    collapsed = np.empty(len(data), np.uint8)
    ends = np.empty(len(offsets) - 1, np.int64)
    _collapse(offsets, data, collapsed, ends)
    view = collapsed.data
    hashes = b"".join(
        hashlib.blake2b(view[start:end], digest_size=HASH_BYTES).digest()
        for start, end in zip(offsets[:-1].tolist(), ends.tolist(), strict=True)
    )
    return np.frombuffer(hashes, np.uint8).reshape(-1, HASH_BYTES)


def text_hashes(hashes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """What the held-out rule reads: the first eight bytes of the exact hash, little-endian.

    Of the normalised text, so that of copies in other case or spacing the same one answer holds, whichever
    stands first.

    Args:
        hashes: (num_docs, 16), of `exact_hashes`.

    Returns:
        (num_docs,).
    """
    return np.ascontiguousarray(hashes[:, :8]).view("<u8").reshape(-1)


def buffers(column: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Offsets and bytes of a column of text, lower-cased: what both hashes of a document start from."""
    return text_buffers(lower_cased(column))


@kernel
def _collapse(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], out: NDArray[np.uint8], ends: NDArray[np.int64]
) -> None:
    """Copy each document to its own place in `out`, whitespace collapsed; `ends` tells how far it goes."""
    for doc in range(len(offsets) - 1):
        to, after_space = offsets[doc], np.int64(1)
        for at in range(offsets[doc], offsets[doc + 1]):
            byte = data[at]
            space = np.int64(byte == _SPACE or np.uint8(byte - np.uint8(9)) < 5)
            out[to] = _SPACE if space else byte
            to += 1 - (space & after_space)  # without a branch: twice the speed
            after_space = space
        ends[doc] = to - (after_space if to > offsets[doc] else 0)
