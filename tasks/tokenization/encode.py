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

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer

from tasks.store.errors import SourceError
from tasks.store.json import JSON
from tasks.store.models import read_json
from tasks.tokenization import spiece
from tasks.tokenization.proven import ProvenEncoder

BATCH_BYTES = 2_000_000
"""Text encoded at once; larger batches are not faster (measured up to 8 MB)."""

# tokenizers prints a warning into every process forked after its threads ran, unless this is set either way.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """What can be known of a tokenizer before anything is spent."""

    vocab_size: int
    """The highest id + 1: the rows a model's embedding needs at least."""
    eos_id: int
    """Closes a document."""

    @property
    def dtype(self) -> type[np.uint16] | type[np.uint32]:
        """Of stored ids."""
        return np.uint16 if self.vocab_size <= 1 << 16 else np.uint32


@dataclass(frozen=True, slots=True)
class Encoder:
    """A tokenizer, ready to encode."""

    tokenizer: Tokenizer
    facts: TokenizerFacts
    unknown_id: int
    """-1 where the tokenizer knows no unknown token."""
    byte_ids: NDArray[np.bool_]
    """(vocab_size,) true for the byte-fallback tokens, but those of tab and line ends: a Llama-type
    vocabulary has no other token for a newline (measured: 7 % of the tokens of plain English prose)."""
    judge: SentencePieceProcessor | None
    """sentencepiece itself, where the tokenizer was converted from its model."""
    folder: Path
    proven: ProvenEncoder

    @property
    def dtype(self) -> type[np.uint16] | type[np.uint32]:
        """Of stored ids."""
        return self.facts.dtype

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


def tokenizer_facts(folder: Path) -> TokenizerFacts:
    """Vocabulary and EOS of a tokenizer's folder, for checks before anything is spent.

    Raises:
        SourceError: there is no tokenizer in it, it cannot be read, or it names no EOS.
    """
    return load_encoder(folder).facts


def load_encoder(folder: Path) -> Encoder:
    """Load a tokenizer's folder; one that did not change is loaded once a process.

    Raises:
        SourceError: see `tokenizer_facts`.
    """
    stamps = tuple(
        (path.name, stat.st_size, stat.st_mtime_ns)
        for path in (sorted(folder.glob("*.json")) + sorted(folder.glob("*.model")))
        if (stat := path.stat())
    )
    return _load_once(folder, stamps)


@lru_cache(maxsize=4)
def _load_once(folder: Path, _stamps: tuple[tuple[str, int, int], ...]) -> Encoder:
    return read_encoder(folder)


def read_encoder(folder: Path) -> Encoder:
    """Load a tokenizer's folder, now.

    Raises:
        SourceError: see `tokenizer_facts`.
    """
    ready, model = folder / "tokenizer.json", folder / "tokenizer.model"
    judge = None
    if ready.is_file():
        try:
            tokenizer = Tokenizer.from_file(str(ready))
        except Exception as err:  # tokenizers raises bare Exception for whatever it cannot parse
            raise SourceError(f"{ready} cannot be read as a tokenizer: {err}") from err
    elif model.is_file():
        tokenizer = spiece.convert(model)
        judge = SentencePieceProcessor(model_file=str(model))
    else:
        raise SourceError(
            f"{folder} holds no tokenizer.json and no tokenizer.model; save one with "
            "AutoTokenizer.from_pretrained(...).save_pretrained(folder)"
        )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    vocab_size = max(vocabulary.values(), default=-1) + 1
    byte_ids = np.zeros(vocab_size, np.bool_)
    if getattr(tokenizer.model, "byte_fallback", False):
        byte_ids[[vocabulary[name] for name in _BYTE_TOKENS if name in vocabulary]] = True
    unknown = vocabulary.get(str(getattr(tokenizer.model, "unk_token", None)), -1)
    facts = TokenizerFacts(vocab_size, _eos_id(folder, vocabulary, judge))
    proven = ProvenEncoder(tokenizer, facts.dtype)
    return Encoder(tokenizer, facts, unknown, byte_ids, judge, folder, proven)


_BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256) if byte not in b"\t\n\r")


def _eos_id(folder: Path, vocabulary: dict[str, int], judge: SentencePieceProcessor | None) -> int:
    """The id that closes a document, by whoever names it first."""
    for file, value in _eos_named(folder):
        if isinstance(value, str):
            if value not in vocabulary:
                raise SourceError(f"{file} names the EOS token {value!r}, which the vocabulary does not hold")
            return vocabulary[value]
        if isinstance(value, int):
            if value not in set(vocabulary.values()):
                raise SourceError(f"{file} names the EOS id {value}, which the vocabulary does not hold")
            return value
    if judge is not None and judge.eos_id() >= 0:
        return int(judge.eos_id())
    raise SourceError(
        f"{folder} names no EOS token, and each document is closed by one; put "
        '{"eos_token": "..."} into its tokenizer_config.json'
    )


def _eos_named(folder: Path) -> Iterator[tuple[Path, object]]:
    for name, key in (
        ("tokenizer_config.json", "eos_token"),
        ("special_tokens_map.json", "eos_token"),
        ("generation_config.json", "eos_token_id"),
        ("config.json", "eos_token_id"),
    ):
        file = folder / name
        if file.is_file():
            body: JSON = read_json(file)
            named = body.get(key)
            if isinstance(named, dict):  # an AddedToken
                named = named.get("content")
            elif isinstance(named, list):  # several ends: the first is the one written
                named = named[0] if named else None
            yield file, named
