"""Ids by our own merges are the library's, of whatever text they are not refused."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from tasks.tokenization.bpe import derive_merges
from tasks.tokenization.cuts import derive_cuts
from tasks.tokenization.lookup import BYTES_AT, IDS_AT, KEY, NUM_IDS
from tasks.tokenization.merges import LONGEST, Merges, merge_pieces
from tasks.tokenization.pieces import library_ids
from tasks.tokenization.regex import Unsupported
from tests.tokenization.conftest import PROSE
from tests.tokenization.families import FAMILIES, family

OF_BYTES = ["gpt2", "roberta", "starcoder", "llama3", "o200k", "qwen", "neox"]
OF_CHARACTERS = ["llama2", "mistral", "without_bytes"]
CHARACTERS = "aabeeelrstuw  ..'\n1\u00e9\u0301\u4e2d\u2581\U0001f600\x00\x85\u00a0\u1161\u212a\u017f"
TEXT = st.one_of(
    st.lists(st.sampled_from([*" ".join(PROSE[:3]).split(" "), " the", " leaf", " ", "  ", "\n"]), max_size=9)
    .map("".join),
    st.text(st.sampled_from(CHARACTERS), max_size=40),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.builds(str.__mul__, st.sampled_from(["a", " ", "-", "lea", "\u00e9", "ab "]), st.integers(1, 90)),
)  # fmt: skip


@cache
def derived(name: str) -> tuple[Tokenizer, Merges]:
    """What encodes the pieces that do not lead their document, and its merges."""
    inner = derive_cuts(family(name, PROSE, 600)).inner
    return inner, derive_merges(inner)


def merged(merges: Merges, texts: Sequence[str | bytes], *, lead: int = 0) -> list[list[int] | None]:
    """Ids a piece, None where it is refused."""
    raw = [text.encode() if isinstance(text, str) else text for text in texts]
    sizes = np.array([len(piece) for piece in raw], np.int32)
    entries = np.zeros((len(raw), 4), np.int32)
    entries[:, BYTES_AT], entries[:, KEY] = np.cumsum(sizes) - sizes, 2 * sizes + lead
    data = np.frombuffer(b"".join(raw), np.uint8)
    ids: NDArray[np.uint32] = np.zeros(len(data), np.uint32)
    filled = merge_pieces(merges, data, entries, ids)
    assert filled == entries[:, NUM_IDS].clip(0).sum()
    spans = entries[:, [IDS_AT, NUM_IDS]].tolist()
    return [ids[at : at + num].tolist() if num >= 0 else None for at, num in spans]


@pytest.mark.parametrize("name", OF_BYTES + OF_CHARACTERS)
@given(texts=st.lists(TEXT.filter(bool), max_size=8))
@settings(deadline=None, max_examples=60)
def test_ids_by_merges_are_the_librarys(name: str, texts: list[str]) -> None:
    inner, merges = derived(name)
    for text, ids in zip(texts, merged(merges, texts), strict=True):
        assert ids in (None, library_ids(inner, [text])[0].tolist()), text


@pytest.mark.parametrize("name", OF_BYTES + OF_CHARACTERS)
def test_common_text_is_not_refused(name: str) -> None:
    inner, merges = derived(name)
    texts = [" leaf", "\n\n", "Leaf 5", " r" * 9, *(text[:250] for text in PROSE)]
    if name != "without_bytes":
        texts += [" don't", "\u00e9", "\u201cno\u201d", "\u4e2d\u6587", "\u0416"]
    wanted, lengths = library_ids(inner, texts)
    assert merged(merges, texts) == [part.tolist() for part in np.split(wanted, np.cumsum(lengths)[:-1])]


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in OF_BYTES + OF_CHARACTERS])
def test_other_families_are_left_to_the_library(name: str) -> None:
    with pytest.raises(Unsupported, match="merges"):
        derived(name)


def bpe(merges: list[tuple[str, str]], alphabet: str = "abc\u2581", **options: object) -> Tokenizer:
    """Over whole texts; ids in order of the alphabet, then of the merges."""
    tokens = dict.fromkeys([*alphabet, *(left + right for left, right in merges)])
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary | options.pop("extra", {}), merges, **options))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    return tokenizer


def test_the_lowest_rank_is_merged_first_and_the_leftmost_among_equals() -> None:
    merges = derive_merges(bpe([("b", "c"), ("a", "a"), ("aa", "b"), ("aa", "a")]))
    a, b, aa, aab, aaa, bc = 0, 1, 5, 6, 7, 4
    assert merged(merges, ["aaa", "aab", "aabc", "aaaa", "aaaab"]) == [
        [aaa],
        [aab],
        [aa, bc],
        [aa, aa],
        [aa, aab],
    ]
    assert merged(merges, ["ba", " a"]) == [[b, a], [3, a]]


def test_a_pair_that_stands_twice_has_the_later_rank() -> None:
    tokenizer = bpe([("a", "b"), ("b", "c"), ("a", "b")])
    assert merged(derive_merges(tokenizer), ["abc"]) == [tokenizer.encode("abc").ids] == [[0, 5]]


def test_a_character_is_its_bytes_only_if_all_of_them_are_tokens() -> None:
    extra = {"<0xC3>": 20, "<0xA9>": 21, "<0x0A>": 22}
    tokenizer = bpe([("a", "b")], extra=extra, byte_fallback=True, unk_token="c")
    merges = derive_merges(tokenizer)
    assert merged(merges, ["ab\u00e9\n"]) == [tokenizer.encode("ab\u00e9\n").ids] == [[4, 20, 21, 22]]
    assert merged(merges, ["ab\u00e8", "\t", "\u4e2d"]) == [None] * 3
    merges = derive_merges(bpe([("a", "b")], extra=extra, unk_token="c"))
    assert merged(merges, ["ab\u00e9", "ab"]) == [None, [4]]


def test_with_ignore_merges_a_word_that_is_a_token_is_not_merged() -> None:
    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2, "aab": 3}, [("a", "b")], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    merges = derive_merges(tokenizer)
    assert merged(merges, ["aab", "aaab", "aab\n"]) == [[3], [0, 0, 2], None]
    assert tokenizer.encode("aaab").ids == [0, 0, 2]
    tokenizer.model.ignore_merges = False
    assert merged(derive_merges(tokenizer), ["aab"]) == [[0, 2]] == [tokenizer.encode("aab").ids]


@pytest.mark.parametrize("name", ["llama2", "gpt2"])
def test_pieces_that_are_long_lead_or_are_no_utf8_are_refused(name: str) -> None:
    _, merges = derived(name)
    assert merged(merges, ["a" * (LONGEST + 1), "a"])[0] is None
    assert merged(merges, ["a" * LONGEST])[0] is not None
    assert merged(merges, ["a", " leaf"], lead=1) == [None, None]
    broken = [b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xe0\x80\x80", b"\xf4\x90\x80\x80", b"\x80"]
    assert merged(merges, [*broken, b"a"])[:-1] == [None] * 7


def test_tokens_that_share_an_id_are_left_to_the_library() -> None:
    with pytest.raises(Unsupported, match="share an id"):
        derive_merges(bpe([("a", "b")], extra={"cc": 0}))


def lowercase(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Lowercase()


def dropout(tokenizer: Tokenizer) -> None:
    tokenizer.model.dropout = 0.1


def prefix(tokenizer: Tokenizer) -> None:
    tokenizer.model.continuing_subword_prefix = "##"


def suffix(tokenizer: Tokenizer) -> None:
    tokenizer.model.end_of_word_suffix = "</w>"


def split_marks(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=True)


def contiguous(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\s+"), "contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


@pytest.mark.parametrize("change", [lowercase, dropout, prefix, suffix, split_marks, contiguous])
@pytest.mark.parametrize("name", ["llama2", "gpt2"])
def test_a_tokenizer_whose_steps_are_not_understood_is_left_to_the_library(
    name: str, change: Callable[[Tokenizer], None]
) -> None:
    inner, _ = derived(name)
    tokenizer = Tokenizer.from_str(inner.to_str())
    derive_merges(tokenizer)
    change(tokenizer)
    with pytest.raises(Unsupported, match="merges"):
        derive_merges(tokenizer)
