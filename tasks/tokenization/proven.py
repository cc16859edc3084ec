"""The fast way to a tokenizer's ids for as long as it proves to be the tokenizer's own.

Cutting is derived from the tokenizer (`cuts.py`) and tried on it before use, on `spiece.PROBES` and on every
ASCII pair that is cut; then on the first documents of every shard, before their ids are used. Where it cannot
be derived, or one id differs, documents go to the library whole, from there on: slower, never wrong.
"""

import logging
import threading

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tasks.tokenization.cuts import ascii_probes, derive_cuts
from tasks.tokenization.pieces import PieceEncoder, library_ids
from tasks.tokenization.regex import Unsupported
from tasks.tokenization.spiece import PROBES

logger = logging.getLogger(__name__)

Ids = tuple[NDArray[np.uint16 | np.uint32], NDArray[np.int64]]
"""Ids of documents one after the other's end, and how many each has."""


class ProvenEncoder:
    """Encode by pieces where that is proven, else by the library. Safe to use from many threads."""

    def __init__(self, tokenizer: Tokenizer, dtype: type[np.uint16] | type[np.uint32]) -> None:
        """Nothing is derived before the first document comes.

        Args:
            tokenizer: encodes special tokens as text.
            dtype: of the ids.
        """
        self._tokenizer, self._dtype = tokenizer, dtype
        self._pieces: PieceEncoder | None = None
        self._why_not: str | None = None
        self._deriving = threading.Lock()

    @property
    def how(self) -> str:
        """By what documents are encoded, and why not by pieces."""
        return "pieces" if self._ready() is not None else f"library, whole documents: {self._why_not}"

    def encode(self, text: pa.Array) -> Ids:
        """Encode documents (string or large_string, no nulls) to the ids that the library gives them."""
        pieces = self._ready()
        return self._by_library(text) if pieces is None else pieces.encode(text, self._dtype)

    def prove(self, text: pa.Array) -> None:
        """Compare with the library on these documents; one other id, and pieces are given up."""
        pieces = self._ready()
        if pieces is not None and (difference := self._difference(pieces, text)):
            self._give_up(difference)

    def _ready(self) -> PieceEncoder | None:
        with self._deriving:
            if self._pieces is None and self._why_not is None:
                try:
                    self._pieces = self._derived()
                except Unsupported as err:
                    self._give_up(str(err))
            return self._pieces

    def _derived(self) -> PieceEncoder:
        cuts = derive_cuts(self._tokenizer)
        pieces = PieceEncoder(self._tokenizer, cuts)
        if difference := self._difference(pieces, pa.array([*PROBES, *ascii_probes(cuts)])):
            raise Unsupported(difference)
        return pieces

    def _give_up(self, why: str) -> None:
        self._why_not, self._pieces = why, None
        logger.warning("documents are encoded whole by tokenizers, about ten times slower: %s", why)

    def _difference(self, pieces: PieceEncoder, text: pa.Array) -> str:
        """What is first encoded otherwise than by the library; empty: nothing."""
        ids, lengths = pieces.encode(text, self._dtype)
        wanted, wanted_lengths = self._by_library(text)
        if np.array_equal(ids, wanted) and np.array_equal(lengths, wanted_lengths):
            return ""
        ends, wanted_ends = np.cumsum(lengths), np.cumsum(wanted_lengths)
        same = (
            np.array_equal(ids[a - n : a], wanted[b - m : b])
            for a, n, b, m in zip(ends, lengths, wanted_ends, wanted_lengths, strict=True)
        )
        number = next(n for n, equal in enumerate(same) if not equal)
        return f"by pieces, {text[number].as_py()[:60]!r} has other ids"

    def _by_library(self, text: pa.Array) -> Ids:
        ids, lengths = library_ids(self._tokenizer, text.to_pylist())
        return ids.astype(self._dtype), lengths
