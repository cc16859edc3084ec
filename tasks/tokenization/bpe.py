"""A BPE tokenizer's vocabulary and merges as tables for the kernel of `merges.py`.

In: a tokenizer. Out: its tables, or why its ids are left to the library. Two kinds are understood:

- over whole documents, spaces marked (the SentencePiece kind): a character without an entry is its bytes,
  `<0x0A>`, where all of them have one;
- byte-level, behind expressions that split (`splits.py`): the alphabet is the 256 bytes. Behind a normal form
  (NFC and its like), only characters that are normal whatever their neighbours are known.
"""

import json
import unicodedata
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tasks.store.json import JSON
from tasks.text.hashing import hash_bytes, table_size
from tasks.tokenization.cuts import GPT2_PATTERN, MARK, flat
from tasks.tokenization.lookup import BYTES_AT, IDS_AT, KEY, publish
from tasks.tokenization.merges import POINTS, Merges, fill_table
from tasks.tokenization.regex import Unsupported
from tasks.tokenization.splits import UNKNOWN, Splits, splits_of

_FORMS = {"NFC", "NFD", "NFKC", "NFKD"}


def derive_merges(tokenizer: Tokenizer) -> Merges:
    """Read a tokenizer's merges.

    Args:
        tokenizer: for pieces that do not lead their document; without added tokens.

    Raises:
        Unsupported: its ids cannot be told for certain; the reason.
    """
    spec: JSON = json.loads(tokenizer.to_str())
    model: JSON = spec["model"]
    if model["type"] != "BPE":
        raise Unsupported(f"no merges: {model['type']}")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise Unsupported(f"merges with {key}")
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)  # of tokens that share an id, `spec` has one
    if len(set(vocabulary.values())) != len(vocabulary):
        raise Unsupported("tokens that share an id")
    steps, stages = flat(spec["normalizer"], "normalizers"), flat(spec["pre_tokenizer"], "pretokenizers")
    whole: dict[bytes, int] = {}
    byte_ids = np.full(256, -1, np.int32)
    if stages and stages[-1]["type"] == "ByteLevel":
        splits = _byte_level_splits(steps, stages)
        alphabet = _byte_alphabet()
        symbols = np.array([vocabulary.get(character, -1) for character in alphabet], np.int32)
        if model.get("ignore_merges"):
            byte_of = {character: byte for byte, character in enumerate(alphabet)}
            for token, number in vocabulary.items():
                if byte_of.keys() >= set(token):
                    whole[bytes(byte_of[character] for character in token)] = number
    else:
        splits = splits_of([])
        symbols = _character_ids(steps, stages, vocabulary)
        if model.get("ignore_merges"):
            raise Unsupported("merges of characters with ignore_merges")
        if model["byte_fallback"]:
            byte_ids[:] = [vocabulary.get(f"<0x{byte:02X}>", -1) for byte in range(256)]
    return Merges(symbols, byte_ids, *_merge_table(vocabulary, model["merges"]), *_whole_table(whole), splits)


def _byte_alphabet() -> list[str]:
    """The character that stands for each byte. Source: Radford et al. 2019, GPT-2's encoder."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _byte_level_splits(steps: list[JSON], stages: list[JSON]) -> Splits:
    """How byte-level stages split.

    Raises:
        Unsupported: a step or stage is not understood.
    """
    if any(step["type"] not in _FORMS for step in steps):
        raise Unsupported("merges behind a normalizer")
    patterns = []
    for stage in stages:
        kind = stage["type"]
        if kind == "Split" and stage["behavior"] == "Isolated" and "Regex" in stage["pattern"]:
            patterns.append(stage["pattern"]["Regex"])
        elif kind == "Digits":
            patterns.append(r"\p{N}" if stage["individual_digits"] else r"\p{N}+")
        elif kind == "ByteLevel" and stage is stages[-1] and not stage["add_prefix_space"]:
            patterns += [GPT2_PATTERN] if stage["use_regex"] else []
        else:
            raise Unsupported(f"merges behind a pre-tokenizer {kind}")
    splits = splits_of(patterns)
    for point in np.flatnonzero(splits.groups != UNKNOWN).tolist() if steps else ():
        if not all(_composes_alone(chr(point), step["type"]) for step in steps):
            splits.groups[point] = UNKNOWN
    return splits


def _composes_alone(character: str, form: Literal["NFC", "NFD", "NFKC", "NFKD"]) -> bool:
    """Whether a text of such characters has that normal form already.

    Its own form is itself, and it is neither a mark nor a Hangul jamo, which join what stands before them. In
    terms of UAX #15: its quick check is Yes, not Maybe, and its combining class is 0.
    """
    joins = unicodedata.category(character)[0] == "M" or "\u1100" <= character <= "\u11ff"
    return not joins and unicodedata.is_normalized(form, character)


def _character_ids(steps: list[JSON], stages: list[JSON], vocabulary: dict[str, int]) -> NDArray[np.int32]:
    """(0x110000,) the id of each character, -1 where it has none.

    Raises:
        Unsupported: characters become others than spaces marks, or documents are split.
    """
    marks = [step.get("pattern") == {"String": " "} and step.get("content") == MARK for step in steps]
    marks += [stage["type"] == "Metaspace" and not stage["split"] for stage in stages]
    if not all(marks):
        raise Unsupported("merges of characters behind a step that is not understood")
    if MARK not in vocabulary:
        raise Unsupported("merges of characters without a mark for space")
    symbols = np.full(POINTS, -1, np.int32)
    for token, number in vocabulary.items():
        if len(token) == 1:
            symbols[ord(token)] = number
    if marks:
        symbols[ord(" ")] = symbols[ord(MARK)]
    return symbols


def _merge_table(
    vocabulary: dict[str, int], merges: list[str | list[str]]
) -> tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.uint32]]:
    """`keys`, `numbers` and `made` of `Merges`. The library writes each pair once."""
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    made = np.array([vocabulary[left + right] for left, right in pairs], np.uint32)
    left = np.array([vocabulary[left] for left, _ in pairs], np.uint64)
    keys = left << np.uint64(32) | np.array([vocabulary[right] for _, right in pairs], np.uint64)
    size = table_size(len(pairs))
    table, numbers = np.zeros(size, np.uint64), np.zeros(size, np.uint32)
    fill_table(keys, table, numbers)
    return table, numbers, made


def _whole_table(tokens: dict[bytes, int]) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint8]]:
    """`whole_slots`, `whole` and `arena` of `Merges`."""
    arena = np.frombuffer(b"".join(tokens), np.uint8)
    sizes = np.fromiter(map(len, tokens), np.int64, len(tokens))
    ends = np.cumsum(sizes)
    whole = np.zeros((len(tokens), 4), np.int32)
    whole[:, BYTES_AT], whole[:, KEY] = ends - sizes, 2 * sizes
    whole[:, IDS_AT] = np.fromiter(tokens.values(), np.int64, len(tokens))
    slots = np.zeros(table_size(2 * len(tokens)), np.int64)
    spans = zip((ends - sizes).tolist(), ends.tolist(), strict=True)
    hashes = np.array([hash_bytes(arena, start, stop) for start, stop in spans], np.uint64)
    publish(0, len(tokens), hashes, slots)
    return slots, whole, arena
