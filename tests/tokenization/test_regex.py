"""What is read from an expression is true of its matches, as the library finds them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from tasks.tokenization.cuts import GPT2_PATTERN
from tasks.tokenization.regex import Unsupported, joins_of
from tests.tokenization.families import LLAMA3, O200K

PATTERNS = [
    GPT2_PATTERN,
    LLAMA3,
    O200K,
    r"\p{N}{1,3}|\p{N}+(?=x)|[^\s\d]+|\s",
    r"[^\r\n]?+[a-f\]]++|\s*[\r\n]|(?:ab|c)+?d|[\t-\n -~]",
    r"(?i:k[s-t])+|.|\n",
]
TEXT = st.text(st.sampled_from("aAbcdkKsStT'019.!/-]x \t\n\r\u00e9\u5149\u017f\u212a\u3000"), max_size=20)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS)
@given(left=TEXT, right=TEXT)
@settings(deadline=None, max_examples=100)
def test_a_pair_that_is_apart_is_split_and_matches_on_either_side_are_as_alone(
    pattern: str, left: str, right: str
) -> None:
    joins = joins_of(pattern)
    split = pre_tokenizers.Split(Regex(pattern), "isolated")

    def parts(text: str) -> list[str]:
        return [part for part, _ in split.pre_tokenize_str(text)]

    if left and right:
        a, b = min(ord(left[-1]), 128), min(ord(right[0]), 128)
        if not joins.joined[a, b] and (joins.covered[a] or joins.covered[b]):
            assert parts(left + right) == parts(left) + parts(right)


def test_words_and_spaces_of_gpt2_by_hand() -> None:
    joins = joins_of(GPT2_PATTERN)
    joined = {a + b for a in "s' .1\n" for b in "s' .1\n" if joins.joined[ord(a), ord(b)]}
    apart = {
        "s ",
        "1 ",
        "s.",
        "s1",
        "1s",
        ".s",
        ".1",
        "1.",
        "s\n",
        "1\n",
        ".\n",
        "s'",
        "1'",
        "'1",
        "'\n",
        ". ",
        "' ",
    }
    assert joined.isdisjoint(apart)
    assert {"ss", "'s", " s", " 1", " .", "..", "11", "\n\n", "  ", "\n "} <= joined
    assert joins.covered[:128].all()
    assert not joins.covered[128]


def test_what_a_look_ahead_sees_is_not_apart() -> None:
    joins = joins_of(r"a(?!b)|[a-z]")
    assert joins.joined[ord("a")].all()
    assert not joins.joined[ord("c")].any()


@pytest.mark.parametrize(
    "pattern",
    [
        r"\bword\b",
        r"^a",
        r"a$",
        r"(?<=a)b",
        r"\p{Han}+",
        r"a*",
        r"[a&&b]",
        r"[[:alpha:]]",
        r"(?=ab)c",
        r"a)",
        r"(a",
    ],
)
def test_what_is_not_understood_is_refused(pattern: str) -> None:
    with pytest.raises(Unsupported):
        joins_of(pattern)
