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

_BLOCK = 2048


def lower_cased(column: pa.Array) -> pa.Array:
    """The column in lower case.

    Documents whose only letters beyond ASCII have no case, or are small ones of Latin-1, take the fast way,
    with the same result.
    """
    lowered = pc.ascii_lower(column)
    beyond = np.empty(len(column), np.bool_)
    _may_have_capitals(*text_buffers(column), beyond)
    if beyond.any():
        mask = pa.array(beyond)
        lowered = pc.replace_with_mask(lowered, mask, pc.utf8_lower(column.filter(mask)))
    return lowered


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
def _may_have_capitals(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], beyond: NDArray[np.bool_]
) -> None:
    """Tell of each document whether it has a character beyond ASCII that may have a lower case.

    None has: U+0080-U+00BF, U+00E0-U+00FF, U+2000-U+20FF, U+2200-U+247F, U+2500-U+2BFF, U+3000-U+9FFF,
    U+B000-U+DFFF.
    """
    for doc in range(len(beyond)):
        text = data[offsets[doc] : offsets[doc + 1]]
        met = np.uint8(0)
        for place in range(len(text) - 1):  # the last byte leads nothing
            lead, second = text[place], text[place + 1]
            small = np.uint8(lead == 0xC3) & np.uint8(second >= 0xA0)
            symbol = np.uint8(second < 0x84) | (np.uint8(second >= 0x88) & np.uint8(second < 0x92))
            symbol |= np.uint8(second >= 0x94) & np.uint8(second < 0xB0)
            small |= np.uint8(lead == 0xE2) & symbol
            other = np.uint8(lead >= 0xC3) & np.uint8(lead < 0xE3) & (np.uint8(1) - small)
            other |= np.uint8(lead == 0xEA) | np.uint8(lead >= 0xEE)
            met = np.uint8(met | other)
        beyond[doc] = met


@kernel
def _collapse(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], out: NDArray[np.uint8], ends: NDArray[np.int64]
) -> None:
    """Copy each document to its own place in `out`, whitespace collapsed; `ends` tells how far it goes.

    A block at a time: what each byte becomes and whether it stays, in the compiler's vectors, then the move,
    without a branch.
    """
    spaces = np.empty(_BLOCK + 1, np.uint8)
    mapped, stays = np.empty(_BLOCK, np.uint8), np.empty(_BLOCK, np.uint8)
    for doc in range(len(offsets) - 1):
        collapsed = out[offsets[doc] : offsets[doc + 1]]
        spaces[0] = 1
        to = np.uint64(0)  # unsigned: a signed index may count from the end, and numba asks each time
        for begin in range(offsets[doc], offsets[doc + 1], _BLOCK):
            text = data[begin : min(begin + _BLOCK, offsets[doc + 1])]
            here = spaces[1:]
            for place in range(len(text)):
                here[place] = np.uint8(text[place] == 32) | np.uint8(np.uint8(text[place] - 9) < 5)
            for place in range(len(text)):
                mapped[place] = 32 if here[place] else text[place]
                stays[place] = np.uint8(1) - (spaces[place] & here[place])
            for place in range(len(text)):
                collapsed[to] = mapped[place]
                to += np.uint64(stays[place])
            spaces[0] = here[len(text) - 1]
        ends[doc] = offsets[doc] + np.int64(to) - (np.int64(spaces[0]) if to else 0)
