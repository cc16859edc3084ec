"""Encode by pieces: each distinct piece of text once; every other time from a cache.

In: a column of text, a tokenizer, and where it may be cut (`cuts.py`). Out: the ids that the library gives
for whole documents. Real text repeats itself: of the pieces of web text a few in a hundred are new. Those are
merged here where the tokenizer allows it (`bpe.py`), which needs neither the GIL nor an object a piece; what
is left goes to the library. The cache is bounded (`CacheSize`); when it is full, what is not in it is encoded
each time, with the same result. One cache serves all shards and threads of a process.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tasks.text.columns import text_buffers
from tasks.text.hashing import table_size
from tasks.tokenization.bpe import derive_merges
from tasks.tokenization.cuts import Cuts
from tasks.tokenization.lookup import (
    BYTES_AT,
    IDS_AT,
    KEY,
    NUM_IDS,
    add_entries,
    copy_ids,
    count_ids,
    find_pieces,
    publish,
)
from tasks.tokenization.merges import Merges, merge_pieces
from tasks.tokenization.regex import Unsupported

logger = logging.getLogger(__name__)

_LONGEST_BYTES = 512
"""Of a piece that is kept: longer ones do not come twice."""


@dataclass(frozen=True, slots=True)
class CacheSize:
    """What a cache may hold; memory is taken as it fills."""

    entries: int = 1 << 20
    piece_bytes: int = 1 << 24
    ids: int = 1 << 23

    @property
    def slots(self) -> int:
        """Of its table: at most half of them are taken."""
        return table_size(2 * self.entries)

    @property
    def most_bytes(self) -> int:
        """Of memory, when it is full (the default: 90 MB)."""
        return 8 * self.slots + (16 + 8) * self.entries + self.piece_bytes + 4 * self.ids


class PieceEncoder:
    """A tokenizer and the pieces it has encoded so far.

    Safe to use from many threads: lookups take no lock, insertion takes one.
    """

    def __init__(self, tokenizer: Tokenizer, cuts: Cuts, size: CacheSize | None = None) -> None:
        """Start with an empty cache.

        Args:
            tokenizer: encodes the pieces that lead their document.
            cuts: where documents are cut, and what encodes the other pieces.
            size: most that is kept.
        """
        size = size or CacheSize()
        self._tokenizer, self._cuts = tokenizer, cuts
        self._merges: Merges | None = None
        try:
            self._merges = derive_merges(cuts.inner)
        except Unsupported as err:
            logger.info("pieces that are new are encoded by tokenizers: %s", err)
        self._slots = np.zeros(size.slots, np.int64)
        self._entries = np.zeros((size.entries, 4), np.int32)
        self._hashes = np.zeros(size.entries, np.uint64)
        self._arena = np.zeros(size.piece_bytes, np.uint8)
        self._ids = np.zeros(size.ids, np.uint32)
        self._fill = np.zeros(3, np.int64)
        self._inserting = threading.Lock()

    @property
    def num_pieces(self) -> int:
        """Pieces in the cache."""
        return int(self._fill[0])

    def encode(
        self, text: pa.Array, dtype: type[np.uint16] | type[np.uint32]
    ) -> tuple[NDArray[np.uint16 | np.uint32], NDArray[np.int64]]:
        """Encode documents, one after the other's end.

        Args:
            text: (num_docs,) string or large_string without nulls; under 2 GB.
            dtype: of the ids.

        Returns:
            ids: (num_tokens,) of `dtype`.
            lengths: (num_docs,) int64, ids a document.
        """
        offsets, data = text_buffers(text)
        # One slot a byte is more than there can be pieces; untouched pages of it cost nothing.
        most = len(data) + 1
        found, counts = np.empty(most, np.int32), np.zeros(len(text), np.int64)
        new_entries, new_hashes = np.empty((most, 4), np.int32), np.empty(most, np.uint64)
        num_new = find_pieces(
            offsets,
            data,
            self._whole(text),
            self._cuts.leads,
            self._cuts.table,
            self._slots,
            self._entries,
            self._arena,
            found,
            counts,
            new_entries,
            new_hashes,
        )
        new_entries, new_hashes = new_entries[:num_new], new_hashes[:num_new]
        new_ids = self._encode_new(data, new_entries)
        lengths = np.zeros(len(text), np.int64)
        ids = np.empty(count_ids(found, counts, self._entries, new_entries, lengths), dtype)
        copy_ids(found, int(counts.sum()), self._entries, self._ids, new_entries, new_ids, ids)
        if num_new:
            self._insert(data, new_entries, new_hashes, new_ids)
        return ids, lengths

    def _whole(self, text: pa.Array) -> NDArray[np.bool_]:
        """Documents with the text of an added token in them: the library looks for it before all else."""
        if not self._cuts.literals:
            return np.zeros(len(text), np.bool_)
        found: NDArray[np.bool_] = pc.match_substring_regex(text, self._cuts.literals).to_numpy(
            zero_copy_only=False
        )
        return found

    def _encode_new(self, data: NDArray[np.uint8], new_entries: NDArray[np.int32]) -> NDArray[np.uint32]:
        """Encode new pieces, by our own merges where there are any, and note where the ids of each stand."""
        num_bytes = int((new_entries[:, KEY] >> 1).sum())
        merged, filled = np.zeros(num_bytes, np.uint32), 0
        left = np.arange(len(new_entries))
        if self._merges is not None:
            filled = merge_pieces(self._merges, data, new_entries, merged)
            left = np.flatnonzero(new_entries[:, NUM_IDS] < 0)
        parts = [merged[:filled]]
        leads = (new_entries[left, KEY] & 1).astype(np.bool_)
        for tokenizer, chosen in ((self._tokenizer, left[leads]), (self._cuts.inner, left[~leads])):
            starts = new_entries[chosen, BYTES_AT].astype(np.int64)
            spans = zip(starts.tolist(), (starts + (new_entries[chosen, KEY] >> 1)).tolist(), strict=True)
            ids, lengths = library_ids(tokenizer, [data[a:b].tobytes().decode() for a, b in spans])
            new_entries[chosen, IDS_AT] = filled + np.cumsum(lengths) - lengths
            new_entries[chosen, NUM_IDS] = lengths
            parts.append(ids)
            filled += len(ids)
        return np.concatenate(parts)

    def _insert(
        self,
        data: NDArray[np.uint8],
        new_entries: NDArray[np.int32],
        new_hashes: NDArray[np.uint64],
        new_ids: NDArray[np.uint32],
    ) -> None:
        with self._inserting:
            first = int(self._fill[0])
            add_entries(
                new_entries,
                new_hashes,
                new_ids,
                data,
                _LONGEST_BYTES,
                self._fill,
                self._slots,
                self._entries,
                self._hashes,
                self._arena,
                self._ids,
            )
            publish(first, int(self._fill[0]), self._hashes, self._slots)


def library_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Ids of all texts as the library gives them, one after the other's end, and how many each has."""
    encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    parts = [encoding.ids for encoding in encodings]
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    return np.fromiter(chain.from_iterable(parts), np.uint32, int(lengths.sum())), lengths
