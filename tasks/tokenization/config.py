"""What tokenization is asked to do, and the nodes it makes."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from tasks.runtime.imports import Late
from tasks.store.config import StageConfig, how
from tasks.store.errors import SourceError
from tasks.store.json import JSON
from tasks.store.models import ModelFiles
from tasks.store.node import Node

if TYPE_CHECKING:
    from tasks.tokenization import facts
else:
    facts = Late("tasks.tokenization.facts")  # one that is trained is not read

STAGE = "tokenization"
VERSION = 1

TOKENIZER_STAGE = "tokenizer"
TOKENIZER_VERSION = 1

SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>")
"""Of a trained tokenizer, by id: where LlamaConfig expects bos (1) and eos (2)."""
TRAINED_EOS_ID = SPECIAL_TOKENS.index("</s>")
_SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)


class TokenizationConfig(StageConfig):
    """Which tokenizer, and how badly a document may fit it before it is dropped.

    Measured on the 178 MB of educational text this was developed on, with a Llama-type 32k vocabulary and a
    byte-level one of 2,048; the figures stand beside each default.
    """

    tokenizer: str = how("")
    """Hub id or folder; empty: the base model's. The digest of its files is identity, its name is not."""

    train_vocab_size: int = Field(0, ge=0)
    """Train a byte-level BPE of this many ids on the first source shard's kept documents; 0: none is
    trained."""

    max_unknown_fraction: float = Field(0.1, ge=0, le=1)
    """Unknown tokens of all (0 in every real document with either vocabulary)."""

    max_byte_fallback_fraction: float = Field(0.5, ge=0, le=1)
    """Byte-fallback tokens of all, line ends and tabs aside (English: none above .2; Telugu and Malayalam,
    which a Llama-type vocabulary lacks: .55-.67; emoji: .80)."""

    min_bytes_per_token: float = Field(1.05, ge=0)
    """Bytes of text a token (real: 99.9 % above it at 2,048 ids, 1.3 at 32k; one digit a token: 1.00)."""

    max_run_fraction: float = Field(0.3, ge=0, le=1)
    """Longest run of one token, of all tokens (real: none above .07; one word or letter over and over:
    .93-1)."""

    @model_validator(mode="after")
    def _one_tokenizer(self) -> Self:
        if self.train_vocab_size and self.tokenizer:
            raise ValueError(
                f"tokenizer={self.tokenizer!r} and train_vocab_size={self.train_vocab_size} exclude each "
                "other; leave one out"
            )
        if 0 < self.train_vocab_size < _SMALLEST_VOCABULARY:
            raise ValueError(
                f"train_vocab_size={self.train_vocab_size} holds not even the 256 bytes and "
                f"{len(SPECIAL_TOKENS)} special tokens; at least {_SMALLEST_VOCABULARY}, 0 trains none"
            )
        return self


@dataclass(frozen=True, slots=True)
class TokenizerRef:
    """A tokenizer as a node sees it: identity, and where to find it."""

    digest: str
    """Of a folder's tokenizer files, or the fingerprint of the node that trains it."""
    eos_id: int
    vocab_size: int
    """Ids it has; of one not yet trained, the most it may get."""
    address: JSON
    """{"folder", "reference", "revision"} of a model's, {"node": path} of a trained one."""


def tokenizer_of(model: ModelFiles) -> TokenizerRef:
    """The tokenizer of a resolved model or tokenizer folder; loads it, so that what is wrong is told early.

    Raises:
        SourceError: the folder holds no tokenizer that can be used, or it names no EOS.
    """
    if not model.tokenizer_digest:
        raise SourceError(
            f"{model.reference} ({model.folder}) holds no tokenizer; name one in tokenization.tokenizer, or "
            "train one "
            "with tokenization.train_vocab_size"
        )
    found = facts.tokenizer_facts(model.folder)
    address: JSON = {"folder": str(model.folder), "reference": model.reference, "revision": model.revision}
    return TokenizerRef(model.tokenizer_digest, found.eos_id, found.vocab_size, address)


def trained_tokenizer_of(node: Node) -> TokenizerRef:
    """The tokenizer that a `trained_tokenizer_node` makes; known before it is trained."""
    size = int(node.config["train_vocab_size"])
    return TokenizerRef(node.fingerprint, TRAINED_EOS_ID, size, {"node": node.path})


def trained_tokenizer_node(config: TokenizationConfig, download: Node, dedup: Node) -> Node:
    """Train `config.train_vocab_size` ids on what dedup kept of one shard, the corpus' first."""
    assert config.train_vocab_size, "no tokenizer is to be trained"
    return Node(
        stage=TOKENIZER_STAGE,
        version=TOKENIZER_VERSION,
        config={"train_vocab_size": config.train_vocab_size},
        inputs={"dedup": dedup.fingerprint},
        reads={"download": download.path, "dedup": dedup.path},
    )


def given_tokenizer_node(tokenizer: TokenizerRef) -> Node:
    """Make of a given tokenizer what models are saved and measured with."""
    return Node(
        stage=TOKENIZER_STAGE,
        version=TOKENIZER_VERSION,
        config={},
        inputs={"tokenizer": tokenizer.digest, "eos": str(tokenizer.eos_id)},
        reads={"tokenizer": tokenizer.address},
    )


def node(config: TokenizationConfig, download: Node, dedup: Node, tokenizer: TokenizerRef) -> Node:
    """Tokenize what dedup kept of one shard.

    `eos` is an input of its own: it may stand in a model's config.json, which no tokenizer digest covers.
    """
    return Node(
        stage=STAGE,
        version=VERSION,
        config=_encoding(config),
        inputs={"dedup": dedup.fingerprint, "tokenizer": tokenizer.digest, "eos": str(tokenizer.eos_id)},
        reads={"download": download.path, "dedup": dedup.path, "tokenizer": tokenizer.address},
    )


@lru_cache(maxsize=64)
def _encoding(config: TokenizationConfig) -> JSON:
    """The identity of tokenized shards; made once for all of them, not to be written to."""
    return {name: value for name, value in config.identity().items() if name != "train_vocab_size"}
