"""Text to flat token ids, exactly as the tokenizer's own library gives them.

In: a folder with `tokenizer.json`, or with SentencePiece's `tokenizer.model` alone (`spiece.py` converts it).
Out: one flat array of ids and a length a document. No BOS; no EOS either, packing closes each document with
one. The text of a special token in a document is text: `encode_special_tokens` keeps `</s>` in a page about
XML from becoming an end.

Documents are encoded by pieces, each once (`pieces.py`), where that is proven to give the library's ids, else
by the library (`proven.py`). Truncation and padding that a tokenizer.json may carry are switched off.

Memory: HF keeps about 120 bytes a token while it encodes a batch of whole documents (measured, Llama-type
32k: 72 MB for 2 MB of text), so batches hold `BATCH_BYTES` of text; one huge document is its own batch
(whole, the 10 MB line of the hard cases: 0.75 GB, 14 s on one core, linear in its length).
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer

from tasks.tokenization import spiece
from tasks.tokenization.facts import Stamps, TokenizerFacts, load_tokenizer, stamps
from tasks.tokenization.proven import ProvenEncoder

BATCH_BYTES = 2_000_000
"""Text encoded at once; larger batches are not faster (measured up to 8 MB)."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """A tokenizer, ready to encode."""

    tokenizer: Tokenizer
    facts: TokenizerFacts
    dtype: type[np.uint16] | type[np.uint32]
    """Of stored ids."""
    unknown_id: int
    """-1 where the tokenizer knows no unknown token."""
    byte_ids: NDArray[np.bool_]
    """(vocab_size,) true for the byte-fallback tokens, but those of tab and line ends: a Llama-type
    vocabulary has no other token for a newline (measured: 7 % of the tokens of plain English prose)."""
    judge: SentencePieceProcessor | None
    """sentencepiece itself, where the tokenizer was converted from its model."""
    folder: Path
    proven: ProvenEncoder

    def encode(self, text: pa.Array) -> tuple[NDArray[np.uint16 | np.uint32], NDArray[np.int64]]:
        """Encode documents, one after the other's end.

        Args:
            text: (num_docs,) string or large_string without nulls.

        Returns:
            ids: (num_tokens,) of `dtype`, all documents' in order.
            lengths: (num_docs,) int64, tokens a document.
        """
        return self.proven.encode(text)

    def require_faithful(self, text: pa.Array) -> None:
        """Compare on these documents: a converted tokenizer with its original, pieces with whole documents.

        Other ids by pieces end encoding by pieces, no more: see `proven.py`.

        Raises:
            SourceError: the converted tokenizer gives another id than the original.
        """
        if self.judge is not None:
            file = self.folder / "tokenizer.model"
            spiece.require_equal(self.tokenizer, self.judge, text.to_pylist(), file)
        self.proven.prove(text)


def load_encoder(folder: Path) -> Encoder:
    """Load a tokenizer's folder; one that did not change is loaded once a process.

    Raises:
        SourceError: see `tokenizer_facts`.
    """
    return _load_once(folder, stamps(folder))


@lru_cache(maxsize=4)
def _load_once(folder: Path, _stamps: Stamps) -> Encoder:
    return read_encoder(folder)


def read_encoder(folder: Path) -> Encoder:
    """Load a tokenizer's folder, now.

    Raises:
        SourceError: see `tokenizer_facts`.
    """
    loaded = load_tokenizer(folder)
    tokenizer, facts = loaded.tokenizer, loaded.facts
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    byte_ids = np.zeros(facts.vocab_size, np.bool_)
    if getattr(tokenizer.model, "byte_fallback", False):
        byte_ids[[vocabulary[name] for name in _BYTE_TOKENS if name in vocabulary]] = True
    unknown = vocabulary.get(str(getattr(tokenizer.model, "unk_token", None)), -1)
    dtype = np.uint16 if facts.vocab_size <= 1 << 16 else np.uint32
    proven = ProvenEncoder(tokenizer, dtype)
    return Encoder(tokenizer, facts, dtype, unknown, byte_ids, loaded.judge, folder, proven)


_BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256) if byte not in b"\t\n\r")
