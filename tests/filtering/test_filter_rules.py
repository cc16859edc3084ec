"""Each rule with a document made by hand that just passes and one that just fails."""

import math

import pyarrow as pa
import pytest
from pydantic import ValidationError

from tasks.filtering.config import FilteringConfig
from tasks.filtering.rules import judge_batch, measure, rules_of, verdict_schema

OFF = {name: 1.0 for name in FilteringConfig.model_fields if name.endswith("_frac")} | {"min_lines": 0}


def numbered(count: int, *, of: str = "w") -> list[str]:
    return [f"{of}{i:03d}" for i in range(count)]


def reason_of(text: str, **config: object) -> str | None:
    ids, texts = pa.array(["x"]), pa.array([text])
    batch = pa.RecordBatch.from_arrays([ids, texts], names=["id", "text"])
    verdict = judge_batch(batch, FilteringConfig.model_validate(config)).to_pylist()[0]
    assert verdict["kept"] == (verdict["reason"] is None)
    return verdict["reason"]


def only(rule: str) -> dict[str, object]:
    """The config with one rule on."""
    return {name: value for name, value in OFF.items() if name != rule}


LONG = "a line of more than thirty characters"


@pytest.mark.parametrize(
    ("rule", "passes", "fails"),
    [
        ("min_lines", "a\n\nb\r\nc", "a\n \n\u00a0\nb"),
        # 31 characters on a long line, 31 on short ones: one half, then more.
        ("short_line_char_frac", f"{'x' * 31}\n{'y' * 30}\nz", f"{'x' * 31}\n{'y' * 30}\nzz"),
        # 3 of 10 paragraphs stood before, then 4 of 10.
        ("dup_para_frac", "\n\n".join([*"abcdefg", *"aaa"]), "\n\n".join([*"abcdef", *"aaaa"])),
        # 10 of 50 characters (4 are line breaks), then 11 of 51.
        ("dup_para_char_frac", "\n\n".join(["a" * 10, "b" * 26, "a" * 10]),
         "\n\n".join(["a" * 11, "b" * 25, "a" * 11])),
        ("dup_line_frac", "\n".join([*"abcdefg", *"aaa"]), "\n".join([*"abcdef", *"aaaa"])),
        ("dup_line_char_frac", f"{'a' * 10}\n{'b' * 28}\n{'a' * 10}", f"{'a' * 11}\n{'b' * 26}\n{'a' * 11}"),
        # "aa bb" twice is 10 characters of 50, then of 49.
        ("top_2_gram_char_frac", f"aa bb {'c' * 38} aa bb", f"aa bb {'c' * 37} aa bb"),
        # "a b c" twice is 10 characters; 10 / 56 = .179, 10 / 55 = .182.
        ("top_3_gram_char_frac", f"a b c {'d' * 44} a b c", f"a b c {'d' * 43} a b c"),
        # "a b c d" twice is 14 characters; 14 / 88 = .159, 14 / 87 = .161.
        ("top_4_gram_char_frac", f"a b c d {'e' * 72} a b c d", f"a b c d {'e' * 71} a b c d"),
    ],
)  # fmt: skip
def test_a_document_at_the_threshold_is_kept_and_one_beyond_it_is_dropped(
    rule: str, passes: str, fails: str
) -> None:
    assert reason_of(passes, **only(rule)) is None
    assert reason_of(fails, **only(rule)) == rule


@pytest.mark.parametrize(("n", "threshold"), list(enumerate((0.15, 0.14, 0.13, 0.12, 0.11, 0.10), start=5)))
def test_a_duplicated_ngram_counts_the_characters_of_its_words_once(n: int, threshold: float) -> None:
    """An n-gram of 1-character words that stands twice counts n characters of the text."""
    gram = " ".join("abcdefghij"[:n])
    fitting = math.ceil(round(n / threshold, 6))
    passes = f"{gram} {'x' * (fitting - 2 * len(gram) - 2)} {gram}"
    fails = f"{gram} {'x' * (fitting - 2 * len(gram) - 3)} {gram}"
    rule = f"dup_{n}_gram_char_frac"
    assert (len(passes), reason_of(passes, **only(rule))) == (fitting, None)
    assert reason_of(fails, **only(rule)) == rule


def test_an_ngram_used_once_is_no_top_ngram() -> None:
    """Datatrove drops this sentence for its first 2-gram."""
    assert reason_of("Nothing repeats itself here.", min_lines=1, short_line_char_frac=1.0) is None


def test_ngrams_are_told_apart_by_their_words() -> None:
    """Datatrove joins words without a space: ("ab", "c") and ("a", "bc") are one there."""
    text = pa.array(["ab c d e f x a bc d e f"])
    assert measure(text, FilteringConfig())["dup_5_gram_char_frac"][0] == 0


def test_line_ends_do_not_change_a_verdict() -> None:
    text = "\n".join([LONG, "", LONG, "other", "more of it", ""])
    metrics = [
        measure(pa.array([text.replace("\n", end)]), FilteringConfig()) for end in ("\n", "\r\n", "\r")
    ]
    assert metrics[0] == metrics[1] == metrics[2]


def test_the_first_rule_in_order_is_the_reason() -> None:
    text = f"{LONG}\n{LONG}"
    assert reason_of(text) == "min_lines"
    assert reason_of(text, min_lines=2) == "dup_line_frac"
    assert reason_of(text, min_lines=2, dup_line_frac=1.0) == "dup_line_char_frac"


def test_quality_rules_are_off_unless_asked_for() -> None:
    text = "\n".join(" ".join(numbered(8, of=f"q{i}")) for i in range(4))
    assert reason_of(text) is None
    assert reason_of(text, quality=True) == "quality.min_words"
    assert reason_of(text, quality={"min_words": 32}) == "quality.min_stop_words"
    assert reason_of(text, quality={"min_words": 32, "min_stop_words": 0}) is None
    assert reason_of(text, fineweb=True) == "fineweb.punctuated_line_frac"
    assert reason_of(text, fineweb={"punctuated_line_frac": 0.0}) is None


@pytest.mark.parametrize(
    ("rule", "passes", "fails"),
    [
        ("max_words", "w " * 3, "w " * 4),
        ("min_mean_word_length", "abc abc", "abc ab"),
        ("max_mean_word_length", "abcdefghij", "abcdefghijk"),
        ("hashes_per_word", "# " + "w " * 10, "## " + "w " * 19),
        ("ellipses_per_word", "w " * 10 + "\u2026", "w " * 9 + "..."),
        ("bullet_line_frac", "- a\n" * 9 + "a", "- a\n" * 19 + "a"),
        ("ellipsis_line_frac", "a...\n" * 3 + "a\n" * 7, "a...\n" * 4 + "a\n" * 6),
        ("letter_word_frac", "a b c d 1", "a b c 1"),
        ("min_stop_words", "The Be", "the the"),
    ],
)
def test_a_quality_rule_at_and_beyond_its_threshold(rule: str, passes: str, fails: str) -> None:
    off: dict[str, float] = {
        "min_words": 0, "max_words": 10**6, "min_mean_word_length": 0, "max_mean_word_length": 99,
        "hashes_per_word": 9, "ellipses_per_word": 9, "bullet_line_frac": 1, "ellipsis_line_frac": 1,
        "letter_word_frac": 0, "min_stop_words": 0,
    }  # fmt: skip
    quality = {name: value for name, value in off.items() if name != rule} | (
        {"max_words": 3} if rule == "max_words" else {}
    )
    assert reason_of(passes, **OFF, quality=quality) is None
    assert reason_of(fails, **OFF, quality=quality) == f"quality.{rule}"


def test_every_rule_names_a_metric_that_is_measured() -> None:
    config = FilteringConfig.model_validate({"quality": True, "fineweb": True})
    names = verdict_schema(config).names
    assert {rule.metric for rule in rules_of(config)} < set(names)
    assert len({rule.name for rule in rules_of(config)}) == len(rules_of(config)) == 2 + 13 + 10 + 4


def test_defaults_leave_no_trace_in_the_identity_and_switches_do() -> None:
    assert FilteringConfig().identity() == {}
    assert FilteringConfig.model_validate({"min_lines": 3, "quality": False}).identity() == {}
    given = FilteringConfig.model_validate({"quality": True, "fineweb": {"short_line_frac": 0.5}}).identity()
    assert given == {"quality": {}, "fineweb": {"short_line_frac": 0.5}}
    assert FilteringConfig.model_validate(given).identity() == given


@pytest.mark.parametrize(
    "wrong", [{"min_line": 3}, {"dup_line_frac": 1.5}, {"quality": {"words": 1}}, {"min_lines": -1}]
)
def test_a_config_that_means_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        FilteringConfig.model_validate(wrong)
