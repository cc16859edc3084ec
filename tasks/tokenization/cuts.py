"""Where a text may be cut so that its parts, encoded alone, have the ids of the whole.

In: a tokenizer. Out: a table of byte pairs between which to cut, and the tokenizer for all parts but a
document's first. Two reasons allow a cut; one of them must be found in the tokenizer's own rules:

- The pre-tokenizer splits there (byte-level BPE, WordPiece, Unigram with Metaspace). A stage of it that
  never joins two characters in a match, nor judges one by the other, and always matches one of the two,
  splits between them; it matches the rest as if the other side were not there (`regex.py`).
- No piece of the vocabulary holds the two side by side (BPE over whole documents, the SentencePiece kind):
  then no merge crosses, and merges on either side do not wait for each other.

Before that, normalisation must give on either side what it gives to the whole. Its rules are known one by
one; those that look at neighbours are trusted between ASCII characters only, which begin and end every
sequence that Unicode composes, and not within a CRLF. What remains at a document's start alone (the dummy
prefix, stripped space) is left out of the tokenizer for the other parts. The literal text of added tokens,
which the library looks for first, makes a document one part. Special tokens are text here.

Left out on purpose: Unigram without a split. The scores of a path are summed from the document's first
character on, so that rounding may decide between equals by what stands before.
"""

import json
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tasks.store.json import JSON
from tasks.tokenization.regex import BEYOND, SYMBOLS, Joins, Unsupported, joins_of

MARK = "\u2581"
"""What SentencePiece writes for a space."""
_SPACE = ord(" ")

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What ByteLevel(use_regex=True) splits by. Source: Radford et al. 2019, GPT-2's encoder."""
_PUNCTUATION = r"[!-/:-@\[-`{-~]|\p{P}"
_CHARACTERWISE = {
    *("NFC", "NFD", "NFKC", "NFKD"),
    *("Lowercase", "StripAccents", "BertNormalizer", "Nmt", "Precompiled"),
}
"""Normalizers that take an ASCII character between ASCII characters by itself."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """How to cut documents for one tokenizer."""

    table: NDArray[np.bool_]
    """(65536,) whether to cut between two bytes, at 256 * left + right."""
    inner: Tokenizer
    """Encodes the parts that do not lead their document; shares the model."""
    leads: bool
    """Whether the tokenizer does something at a document's start alone."""
    literals: str
    """RE2 pattern of the added tokens that make a document one part; empty: there are none."""


@dataclass(slots=True)
class _Normal:
    """What normalisation leaves of characters and their neighbourhood."""

    steps: list[JSON]
    leads: bool
    plain: bool
    """It does no more than mark spaces."""
    open: NDArray[np.bool_]
    """(SYMBOLS, SYMBOLS) pairs on whose sides it works alone."""
    image: NDArray[np.int64]
    """(SYMBOLS,) the symbol that a symbol becomes in any neighbourhood; -1: not one, or it depends."""


def derive_cuts(tokenizer: Tokenizer) -> Cuts:
    """Read where a tokenizer's documents may be cut.

    Args:
        tokenizer: one that encodes special tokens as text.

    Raises:
        Unsupported: nowhere, or it cannot be told; the reason.
    """
    spec: JSON = json.loads(tokenizer.to_str())
    model: JSON = spec["model"]
    if model.get("dropout"):
        raise Unsupported("its merges drop out at random")
    stages = flat(spec["pre_tokenizer"], "pretokenizers")
    normal = _normalisation(flat(spec["normalizer"], "normalizers"))
    inner_stages, stage_leads = _without_prefix(stages)
    inner = _shell(normal.steps, inner_stages)
    _find_images(normal, inner, marked=not stages or stages[0]["type"] == "Metaspace")
    inner.model = tokenizer.model
    if _splits(stages):
        table = _bytes_of(normal, _split_pairs(stages))
    else:
        table = _vocabulary_table(normal, model, stages)
    if not table.any():
        raise Unsupported("no two characters are apart in every text")
    literals = _literals(spec["added_tokens"], normal)
    return Cuts(table.reshape(-1), inner, normal.leads or stage_leads, literals)


def flat(node: JSON | None, key: str) -> list[JSON]:
    """The steps of a normalizer or pre-tokenizer in order, sequences within sequences undone."""
    if node is None:
        return []
    if node["type"] == "Sequence":
        return [step for part in node[key] for step in flat(part, key)]
    return [node]


def _shell(steps: list[JSON], stages: list[JSON]) -> Tokenizer:
    """A tokenizer of these steps, its model still empty."""
    spec: JSON = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": stages} if stages else None,
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }
    return Tokenizer.from_str(json.dumps(spec))


def _normalisation(steps: list[JSON]) -> _Normal:
    """What each step allows; `image` is still open."""
    inner: list[JSON] = []
    normal = _Normal(inner, False, True, np.ones((SYMBOLS, SYMBOLS), np.bool_), np.arange(SYMBOLS))
    for step in steps:
        kind = step["type"]
        if kind == "Prepend":
            normal.leads = True
            continue
        if kind == "Strip":
            normal.leads |= step["strip_left"]
            normal.plain = False
            normal.open[: _SPACE + 1] = normal.open[127:] = False  # nothing that ends a part is stripped
        elif kind == "Replace":
            normal.plain &= step["pattern"] == {"String": " "} and step["content"] == MARK
            _close_replaced(normal, step)
        elif kind in _CHARACTERWISE:
            normal.plain = False
            normal.open[BEYOND] = normal.open[:, BEYOND] = False
            normal.open[ord("\r"), ord("\n")] = False
        else:
            raise Unsupported(f"normalizer {kind}")
        inner.append(step | {"strip_left": False} if kind == "Strip" else step)
    return normal


def _close_replaced(normal: _Normal, step: JSON) -> None:
    """No cut beside what a replacement may have made of neighbours."""
    pattern = step["pattern"]
    if pattern == {"Regex": " {2,}"} and step["content"] in (" ", MARK):
        normal.open[_SPACE] = False
        return
    literal = pattern.get("String")
    if not literal:
        raise Unsupported(f"normalizer Replace of {pattern}")
    if len(literal) > 1 or ord(literal) >= BEYOND:
        symbols = [min(ord(character), BEYOND) for character in literal]
        normal.open[symbols] = normal.open[:, symbols] = False


def _find_images(normal: _Normal, shell: Tokenizer, *, marked: bool) -> None:
    """Ask the normalizer what it makes of each ASCII character.

    Args:
        normal: `image` is filled in.
        shell: its normalizer.
        marked: what follows takes the mark for a space.
    """
    for symbol in range(BEYOND):
        made = shell.normalizer.normalize_str(f"x{chr(symbol)}x")
        image = ord(made[1]) if len(made) == 3 and made[0] == made[2] == "x" else -1
        if image == ord(MARK) and marked:
            image = _SPACE
        normal.image[symbol] = image if image < BEYOND else -1
    if not marked and MARK in shell.normalizer.normalize_str("x  x"):
        normal.image[_SPACE] = -1


def _without_prefix(stages: list[JSON]) -> tuple[list[JSON], bool]:
    """The stages for a part that leads no document, and whether they differ."""
    inner, leads = list(stages), False
    for number, stage in enumerate(stages):
        first = not _splits(stages[:number])
        if stage["type"] == "Metaspace":
            if stage["replacement"] != MARK or (stage["prepend_scheme"] == "first" and not first):
                raise Unsupported("a Metaspace of a kind that is not understood")
            if first and stage["prepend_scheme"] != "never":
                inner[number], leads = stage | {"prepend_scheme": "never"}, True
        elif stage["type"] == "ByteLevel" and stage["add_prefix_space"] and first:
            inner[number], leads = stage | {"add_prefix_space": False}, True
    return inner, leads


def _splits(stages: list[JSON]) -> bool:
    silent = {("Metaspace", "split"), ("ByteLevel", "use_regex")}
    return any(all(s["type"] != kind or s[switch] for kind, switch in silent) for s in stages)


def _split_pairs(stages: list[JSON]) -> NDArray[np.bool_]:
    """(SYMBOLS, SYMBOLS) pairs that the stages split in every text."""
    apart = np.ones((SYMBOLS, SYMBOLS), np.bool_)
    split = np.zeros((SYMBOLS, SYMBOLS), np.bool_)
    for number, stage in enumerate(stages):
        prefixes = stage.get("add_prefix_space") or stage.get("prepend_scheme") == "always"
        if prefixes and _splits(stages[:number]):
            break  # it changes the start of every part, so a cut of its own or after it would show
        for joins in _stage_joins(stage):
            apart &= ~joins.joined
            split |= apart & (joins.covered[:, None] | joins.covered[None, :])
        if stage["type"] in ("ByteLevel", "Metaspace"):
            break  # characters are others from here on
    return split


def _stage_joins(stage: JSON) -> list[Joins]:
    kind = stage["type"]
    if not _splits([stage]):
        return []
    if kind == "Metaspace":
        # A part begins at each mark, whatever stands on either side.
        joined, covered = np.zeros((SYMBOLS, SYMBOLS), np.bool_), np.zeros(SYMBOLS, np.bool_)
        joined[_SPACE] = joined[BEYOND] = True
        covered[_SPACE] = True
        return [Joins(joined, covered)]
    if kind in ("Split", "Punctuation") and stage["behavior"] not in ("Isolated", "Removed"):
        raise Unsupported(f"pre-tokenizer {kind} of behavior {stage['behavior']}")
    if kind == "Split":
        pattern = stage["pattern"]
        return [joins_of(pattern["Regex"] if "Regex" in pattern else re.escape(pattern["String"]))]
    patterns = {
        "ByteLevel": [GPT2_PATTERN],
        "BertPreTokenizer": [r"\s", _PUNCTUATION],
        "Punctuation": [_PUNCTUATION],
        "Whitespace": [r"\w+|[^\w\s]+"],
        "WhitespaceSplit": [r"\s"],
        "Digits": [r"\p{N}" if stage.get("individual_digits") else r"\p{N}+"],
    }
    if kind not in patterns:
        raise Unsupported(f"pre-tokenizer {kind}")
    return [joins_of(pattern) for pattern in patterns[kind]]


def _bytes_of(normal: _Normal, pairs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(256, 256) of bytes, from pairs of symbols after normalisation."""
    known = normal.image >= 0
    allowed = pairs[normal.image[:, None], normal.image[None, :]]
    allowed &= normal.open & known[:, None] & known[None, :]
    symbols = np.minimum(np.arange(256), BEYOND)
    table: NDArray[np.bool_] = allowed[symbols[:, None], symbols[None, :]]
    table[:, 128:192] = False  # within a character
    return table


def _vocabulary_table(normal: _Normal, model: JSON, stages: list[JSON]) -> NDArray[np.bool_]:
    """(256, 256) pairs of bytes that no piece of a BPE vocabulary holds side by side."""
    if model["type"] != "BPE":
        raise Unsupported(f"{model['type']} over whole documents")
    if any(stage["type"] != "Metaspace" for stage in stages):
        raise Unsupported("byte-level BPE over whole documents")
    for key in ("ignore_merges", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise Unsupported(f"BPE over whole documents with {key}")
    vocabulary: dict[str, int] = model["vocab"]
    byte_pieces = {f"<0x{byte:02X}>" for byte in range(256)} if model["byte_fallback"] else set()
    for merge in model["merges"]:
        if not byte_pieces.isdisjoint(merge.split(" ") if isinstance(merge, str) else merge):
            raise Unsupported("merges of byte-fallback tokens")
    joined = np.zeros((256, 256), np.bool_)
    for piece in vocabulary:
        if piece not in byte_pieces:
            raw = np.frombuffer(piece.replace(MARK, " ").encode(), np.uint8)
            joined[raw[:-1], raw[1:]] = True
    first, last = MARK.encode()[0], MARK.encode()[-1]  # a literal mark in a text is a space, too
    joined[:, first] |= joined[:, _SPACE]
    joined[last] |= joined[_SPACE]
    apart = ~joined
    apart[:, 128:192] = False
    if not byte_pieces or not byte_pieces <= vocabulary.keys():
        # Unknown characters in a row are one token, so one of the two must be known.
        known = np.array([n < 128 and chr(n).replace(" ", MARK) in vocabulary for n in range(256)])
        apart &= known[:, None] | known[None, :]
    if normal.plain:
        return apart
    pairs = np.zeros((SYMBOLS, SYMBOLS), np.bool_)
    pairs[:BEYOND, :BEYOND] = apart[:128, :128]
    return _bytes_of(normal, pairs)


def _literals(added: list[JSON], normal: _Normal) -> str:
    """RE2 pattern of what the library may take for an added token."""
    found: set[str] = set()
    for token in added:
        if token["special"]:
            continue
        content = str(token["content"])
        if token["normalized"] and (normal.steps or normal.leads):
            content = content.strip(f" {MARK}")  # normalisation may add or mark space at its ends
            if not normal.plain or not content or " " in content or MARK in content:
                raise Unsupported(f"added token {token['content']!r}, which is sought after normalisation")
        found.add(content)
    return "|".join(sorted(re.escape(content).replace("\\\n", r"\n") for content in found))


def ascii_probes(cuts: Cuts) -> list[str]:
    """Texts that hold every ASCII pair that is cut, between letters, spaces and line ends."""
    pairs = cuts.table.reshape(256, 256)[:128, :128]
    around = ("ab", " ", "\n", "1", "e\u0301", "\u5149", ".", "The ")
    texts = []
    for left in range(128):
        rights = np.flatnonzero(pairs[left]).tolist()
        parts = [f"{around[n % 8]}{chr(left)}{chr(n)}{around[(n + left) % 7]}" for n in rights]
        texts.append("".join(parts))
    return [text for text in texts if text]
