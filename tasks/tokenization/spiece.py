"""A SentencePiece BPE model as a `tokenizers` tokenizer, with sentencepiece itself as the judge.

Why not transformers' own conversion: from a folder that holds only `tokenizer.model`, transformers 5.23
orders merges by id instead of by score; 456 of 1,500 real documents differ from sentencepiece (2.5 % of
tokens). Here merges are ordered by the score of what they make. Whatever is converted is compared with
sentencepiece, once on `PROBES` and once on the first documents of every shard, and refused when one id
differs.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from tasks.store.errors import SourceError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
BPE = 2
SPACE = "\u2581"

PROBES = (
    "The quick brown fox\n\njumps  over\tthe lazy dog.   ",
    " leading and trailing ",
    "",
    " ",
    "caf\u00e9 na\u00efve co\u00f6peration, e\u0301le\u0300ve",
    "\u5149\u5408\u4f5c\u7528\u662f\u7eff\u8272\u690d\u7269 "
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \u0e01\u0e32\u0e23",
    "literal \u2581 marker and \u2581\u2581two, a NUL \x00 and CRLF\r\nends",
    "x" * 500 + " 1234567890 3.14159 0xdeadbeef aaaaaabbbbbb",
    "def f(x):\n    return {k: v for k, v in x.items() if k != '__init__'}\n",
)


@dataclass(frozen=True, slots=True)
class Piece:
    """One entry of the model: its text, its score (higher merges first), its type."""

    text: str
    score: float
    kind: int


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """What of a `tokenizer.model` shapes ids."""

    pieces: list[Piece]
    algorithm: int
    charsmap: bytes
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool


def convert(file: Path) -> Tokenizer:
    """Build a tokenizer that gives the ids sentencepiece gives.

    Args:
        file: `tokenizer.model`, a BPE model without its own normalisation rules (the Llama family).

    Raises:
        SourceError: it is of another kind, or one id of `PROBES` differs.
    """
    try:
        model = read_model(file.read_bytes())
        judge = SentencePieceProcessor(model_file=str(file))
    except (ValueError, IndexError, struct.error, RuntimeError, OSError) as err:
        raise SourceError(f"{file} cannot be read as a SentencePiece model: {err}") from err
    unsupported = {
        "it is no BPE model": model.algorithm != BPE,
        "it carries normalisation rules of its own": bool(model.charsmap) or model.remove_extra_whitespaces,
    }
    for why, found in unsupported.items():
        if found:
            raise SourceError(f"{file}: {why}; put the tokenizer.json of the same tokenizer beside it")
    vocabulary = {piece.text: number for number, piece in enumerate(model.pieces)}
    kinds = {piece.kind for piece in model.pieces}
    unknown = next((p.text for p in model.pieces if p.kind == UNKNOWN), None)
    tokenizer = Tokenizer(
        models.BPE(
            vocabulary,
            merges_by_score(model.pieces),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=BYTE in kinds,
        )
    )
    steps: list[normalizers.Normalizer] = [normalizers.Replace(" ", SPACE)]
    if model.add_dummy_prefix:
        steps.insert(0, normalizers.Prepend(SPACE))
    tokenizer.normalizer = normalizers.Sequence(steps)
    undo: list[decoders.Decoder] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if model.add_dummy_prefix:
        undo.append(decoders.Strip(content=" ", left=1))
    tokenizer.decoder = decoders.Sequence(undo)
    tokenizer.add_special_tokens(
        [
            AddedToken(p.text, special=True, normalized=False)
            for p in model.pieces
            if p.kind in (UNKNOWN, CONTROL)
        ]
    )
    tokenizer.add_tokens(
        [AddedToken(p.text, special=False, normalized=False) for p in model.pieces if p.kind == USER_DEFINED]
    )
    tokenizer.encode_special_tokens = True
    require_equal(tokenizer, judge, PROBES, file)
    return tokenizer


def require_equal(
    tokenizer: Tokenizer, judge: SentencePieceProcessor, texts: Sequence[str], file: Path
) -> None:
    """Compare with sentencepiece.

    Raises:
        SourceError: a text has other ids.
    """
    ours = [e.ids for e in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
    for text, ids, wanted in zip(texts, ours, judge.encode(list(texts)), strict=True):
        if ids != wanted:
            at = next(
                (n for n, (a, b) in enumerate(zip(ids, wanted, strict=False)) if a != b),
                min(len(ids), len(wanted)),
            )
            raise SourceError(
                f"{file}: the converted tokenizer differs from sentencepiece at token {at} of {text[:60]!r} "
                f"({ids[at : at + 3]}, expected {wanted[at : at + 3]}); put a tokenizer.json beside it"
            )


def merges_by_score(pieces: Sequence[Piece]) -> list[tuple[str, str]]:
    """Every pair of pieces that makes a piece, in the order sentencepiece applies them.

    sentencepiece merges the adjacent pair whose result has the highest score, the leftmost among equals;
    ranking merges by the score of their result does the same where scores differ, as they do in every BPE
    model that sentencepiece trains (score = -rank).
    """
    mergeable = {p.text: p.score for p in pieces if p.kind in (NORMAL, UNUSED)}
    order = {text: number for number, text in enumerate(mergeable)}
    merges: list[tuple[float, int, int, int, str, str]] = []
    for number, (text, score) in enumerate(mergeable.items()):
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in mergeable and right in mergeable:
                merges.append((-score, number, order[left], order[right], left, right))
    return [(left, right) for *_, left, right in sorted(merges)]


def read_model(data: bytes) -> SentencePieceModel:
    """Read the few fields that matter from the protobuf's wire format (sentencepiece_model.proto)."""
    pieces: list[Piece] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    for number, value in _fields(data):
        if number == 1:
            fields = dict(_fields(_bytes(value)))
            (score,) = struct.unpack("<f", _bytes(fields.get(2, b"\0\0\0\0")))
            pieces.append(Piece(_bytes(fields[1]).decode(), score, int(fields.get(3, NORMAL))))
        elif number == 2:
            trainer = dict(_fields(_bytes(value)))
        elif number == 3:
            normalizer = dict(_fields(_bytes(value)))
    if not pieces:
        raise ValueError("it holds no pieces")
    return SentencePieceModel(
        pieces,
        algorithm=int(trainer.get(3, 1)),
        charsmap=_bytes(normalizer.get(2, b"")),
        add_dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
    )


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind} at byte {at}")
        if at + size > len(data):
            raise ValueError("it is cut short")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where a string was expected")
    return value
