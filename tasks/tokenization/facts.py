"""What a tokenizer's folder holds, known before anything is spent: a plan imports no more than this needs."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from tasks.runtime.imports import Late
from tasks.store.errors import SourceError
from tasks.store.json import JSON
from tasks.store.models import read_json

if TYPE_CHECKING:
    import sentencepiece
    from sentencepiece import SentencePieceProcessor

    from tasks.tokenization import spiece
else:
    sentencepiece, spiece = Late("sentencepiece"), Late("tasks.tokenization.spiece")

Stamps = tuple[tuple[str, int, int], ...]
"""By which a folder's files are known to be the same: name, size, time."""

# tokenizers prints a warning into every process forked after its threads ran, unless this is set either way.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """What can be known of a tokenizer before anything is spent."""

    vocab_size: int
    """The highest id + 1: the rows a model's embedding needs at least."""
    eos_id: int
    """Closes a document."""


@dataclass(frozen=True, slots=True)
class LoadedTokenizer:
    """A tokenizer as its folder holds it, truncation and padding off, special tokens taken for text."""

    tokenizer: Tokenizer
    judge: "SentencePieceProcessor | None"
    """sentencepiece itself, where the tokenizer was converted from its model."""
    facts: TokenizerFacts


def tokenizer_facts(folder: Path) -> TokenizerFacts:
    """Vocabulary and EOS of a tokenizer's folder; of one that did not change once a process.

    Raises:
        SourceError: there is no tokenizer in it, it cannot be read, or it names no EOS.
    """
    return _facts_once(folder, stamps(folder))


@lru_cache(maxsize=4)
def _facts_once(folder: Path, _stamps: Stamps) -> TokenizerFacts:
    return load_tokenizer(folder).facts


def stamps(folder: Path) -> Stamps:
    """Of the files that shape a tokenizer."""
    files = sorted(folder.glob("*.json")) + sorted(folder.glob("*.model"))
    return tuple((path.name, stat.st_size, stat.st_mtime_ns) for path in files if (stat := path.stat()))


def load_tokenizer(folder: Path) -> LoadedTokenizer:
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
        judge = sentencepiece.SentencePieceProcessor(model_file=str(model))
    else:
        raise SourceError(
            f"{folder} holds no tokenizer.json and no tokenizer.model; save one with "
            "AutoTokenizer.from_pretrained(...).save_pretrained(folder)"
        )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    facts = TokenizerFacts(max(vocabulary.values(), default=-1) + 1, _eos_id(folder, vocabulary, judge))
    return LoadedTokenizer(tokenizer, judge, facts)


def _eos_id(folder: Path, vocabulary: dict[str, int], judge: "SentencePieceProcessor | None") -> int:
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
