"""Documents to rows of `sequence_length` tokens: concatenate, close each with one EOS, cut.

A document that does not end with its row runs on into the next. What is left behind the last whole row of a
shard is counted, never carried into another shard: a packed shard depends on one tokenized shard alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.uint16 | np.uint32]


@dataclass(frozen=True, slots=True)
class Rows:
    """Packed rows; documents are numbered from 0 in the order they were added to the packer."""

    ids: Ids
    """(num_rows, sequence_length)"""
    starts: NDArray[np.int32]
    """Places in their row at which documents start, all rows' in order."""
    starts_offsets: NDArray[np.int64]
    """(num_rows + 1,) the starts of row r are `starts[starts_offsets[r]:starts_offsets[r + 1]]`."""
    first_document: NDArray[np.int64]
    """(num_rows,) the document of the row's first token."""
    last_document: NDArray[np.int64]
    """(num_rows,) the document of its last."""


class Packer:
    """Packs documents as they come, holding less than `rows_at_once` rows and the batch at hand.

    Args:
        sequence_length: tokens a row.
        eos_id: closes each document.
        dtype: of the ids.
        rows_at_once: rows come in multiples of this, until `finish`.
    """

    def __init__(
        self,
        *,
        sequence_length: int,
        eos_id: int,
        dtype: type[np.uint16] | type[np.uint32],
        rows_at_once: int = 1,
    ) -> None:
        self.sequence_length, self.eos_id, self.rows_at_once = sequence_length, eos_id, rows_at_once
        self._ids: Ids = np.zeros(0, dtype)
        self._begins = np.zeros(0, np.int64)
        """Where the documents of `_ids` begin; the first may have begun before it (a negative number)."""
        self._num_documents = 0

    @property
    def num_documents(self) -> int:
        """Documents added so far."""
        return self._num_documents

    @property
    def leftover_tokens(self) -> int:
        """Tokens held, EOS included; after `finish` those that fill no row."""
        return len(self._ids)

    @property
    def leftover_documents(self) -> int:
        """Documents held of which no token is in a row yet."""
        return int((self._begins >= 0).sum())

    def add(self, ids: Ids, lengths: NDArray[np.int64]) -> Rows:
        """Add documents.

        Args:
            ids: (num_tokens,) of all documents in order, no EOS.
            lengths: (num_docs,) tokens a document.

        Returns:
            The rows now whole, a multiple of `rows_at_once`.
        """
        held, ends = len(self._ids), np.cumsum(lengths + 1)
        joined = np.empty(held + len(ids) + len(lengths), self._ids.dtype)
        joined[:held] = self._ids
        closed = joined[held:]
        closed[ends - 1] = self.eos_id
        # A copy a document: a mask of all places takes four times as long.
        for before, (end, length) in enumerate(zip(ends.tolist(), lengths.tolist(), strict=True)):
            closed[end - 1 - length : end - 1] = ids[end - 1 - length - before : end - 1 - before]
        self._begins = np.concatenate([self._begins, held + ends - lengths - 1])
        self._ids = joined
        self._num_documents += len(lengths)
        whole = len(self._ids) // self.sequence_length
        return self._take(whole - whole % self.rows_at_once)

    def finish(self) -> Rows:
        """The whole rows still held."""
        return self._take(len(self._ids) // self.sequence_length)

    def _take(self, num_rows: int) -> Rows:
        length = self.sequence_length
        size = num_rows * length
        edges = np.arange(num_rows + 1, dtype=np.int64) * length
        number = self._num_documents - len(self._begins)
        cuts = np.searchsorted(self._begins, edges, side="left")
        starts = self._begins[cuts[0] : cuts[-1]]
        rows = Rows(
            ids=self._ids[:size].reshape(num_rows, length),
            starts=(starts - np.repeat(edges[:-1], np.diff(cuts))).astype(np.int32),
            starts_offsets=cuts - cuts[0],
            first_document=np.searchsorted(self._begins, edges[:-1], side="right") - 1 + number,
            last_document=cuts[1:] - 1 + number,
        )
        # The document that the cut goes through is held on, with a negative begin.
        held = (
            len(self._begins)
            if size == len(self._ids)
            else int(np.searchsorted(self._begins, size, "right")) - 1
        )
        self._ids = self._ids[size:].copy()
        self._begins = self._begins[max(held, 0) :] - size
        return rows
