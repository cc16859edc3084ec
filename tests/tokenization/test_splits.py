"""Splitting by tables is splitting by the library's own expressions."""

import itertools
import re
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from tasks.tokenization.cuts import GPT2_PATTERN
from tasks.tokenization.regex import Unsupported
from tasks.tokenization.splits import UNKNOWN, Splits, split_characters, splits_of
from tests.tokenization.families import LLAMA3, O200K

PATTERNS = {
    "gpt2": [GPT2_PATTERN],
    "llama3": [LLAMA3],
    "o200k": [O200K],
    "digits, then gpt2": [r"\p{N}", GPT2_PATTERN],
    "the shorter alternative first": ["a|ab|abc", "b"],
    "nested repeats": [r"(?:a(?:b{0,2}c?){1,2}|\s{2}|[^a-c\s])+"],
    "look-aheads": [r"[ab]+(?=c)|a(?!b)|\d{2,}|[^\S\n]*\n"],
}
TEXT = st.one_of(
    st.text(st.sampled_from("aabbcc '  \n\r\t12.sStLl/\u00e9\u4e2d\u0661\u00a0\u2028"), max_size=30),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
)


@cache
def tables(name: str) -> Splits:
    return splits_of(PATTERNS[name])


def parts_of(splits: Splits, text: str) -> list[str]:
    points = np.array([ord(c) for c in text])
    begins = np.empty(len(text) + 1, np.bool_)
    groups = splits.groups[points]
    split_characters(groups, len(text), splits.starts, splits.after, splits.ends, begins)
    at = np.flatnonzero(begins).tolist()
    return [text[a:b] for a, b in itertools.pairwise(at)]


def parts_by_library(patterns: list[str], text: str) -> list[str]:
    stages = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    return [part for part, _ in pre_tokenizers.Sequence(stages).pre_tokenize_str(text)]


@pytest.mark.parametrize("name", PATTERNS)
@given(text=TEXT)
@settings(deadline=None, max_examples=300)
def test_parts_are_the_librarys(name: str, text: str) -> None:
    splits = tables(name)
    text = "".join(c for c in text if ord(c) < len(splits.groups) and splits.groups[ord(c)] != UNKNOWN)
    if text:
        assert parts_of(splits, text) == parts_by_library(PATTERNS[name], text)


@pytest.mark.parametrize("name", ["gpt2", "llama3", "o200k", "digits, then gpt2"])
def test_every_character_that_counts_as_known_is_of_the_librarys_category(name: str) -> None:
    splits = tables(name)
    known = [chr(point) for point in np.flatnonzero(splits.groups != UNKNOWN).tolist()]
    assert len(known) > 40_000
    text = "".join(f"a{character}1 {character}." for character in known)
    assert parts_of(splits, text) == parts_by_library(PATTERNS[name], text)


def test_an_expression_that_names_characters_beyond_ascii_knows_ascii_alone() -> None:
    splits = splits_of(["[a-z\u00e0-\u00ff]+"])
    assert (splits.groups[:128] != UNKNOWN).all()
    assert (splits.groups[128:] == UNKNOWN).all()


@pytest.mark.parametrize("pattern", ["a*?b", "a++b", "a{1,2}+", "(?>a)b", "a*", r"(?=ab)a", "^a", "(a"])
def test_what_is_not_understood_is_refused(pattern: str) -> None:
    with pytest.raises(Unsupported, match=re.escape(repr(pattern))):
        splits_of([pattern])


def test_an_expression_of_too_many_states_is_refused() -> None:
    with pytest.raises(Unsupported, match="too many states"):
        splits_of(["[ab]{0,9}a[ab]{12}"])
