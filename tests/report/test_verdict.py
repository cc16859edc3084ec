"""What a report may claim: a gain or a loss only where the interval says so."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.report.facts import ReportFacts
from tasks.report.scored import Delta
from tasks.report.verdict import Verdict, judge, kind_of


def verdict_of(facts: dict[str, Any]) -> Verdict:
    return judge(ReportFacts.model_validate(facts))


@pytest.mark.parametrize(
    ("difference", "low", "high", "bits", "score"),
    [
        (-0.9, -1.0, -0.8, "gain", "loss"),
        (0.3, 0.2, 0.4, "loss", "gain"),
        (-0.1, -0.3, 0.1, "inseparable", "inseparable"),
        (0.1, 0.0, 0.2, "inseparable", "inseparable"),
        (0.0, 0.0, 0.0, "inseparable", "inseparable"),
    ],
)
def test_an_interval_that_contains_zero_is_neither_gain_nor_loss(
    difference: float, low: float, high: float, bits: str, score: str
) -> None:
    delta = Delta(difference=difference, low=low, high=high, stderr=0.05, p=0.001, p_holm=0.004, pairs=200)
    assert kind_of(delta=delta, has_both=True, lower_is_better=True) == bits
    assert kind_of(delta=delta, has_both=True, lower_is_better=False) == score


def test_gain_and_loss_are_told_with_their_intervals_in_two_sentences(facts_json: dict[str, Any]) -> None:
    told = [sentence.replace("\N{MINUS SIGN}", "-") for sentence in verdict_of(facts_json).sentences]
    assert [sentence.replace("\N{NO-BREAK SPACE}", " ") for sentence in told] == [
        "On the domain, the model gained after 12M tokens: -0.913 bits per byte "
        "(95% interval -1.031 to -0.795, p = 0.004 corrected for 3 metrics), from 3.023 to 2.110.",
        "On the general slice, the model lost after 12M tokens: +0.282 bits per byte "
        "(95% interval +0.260 to +0.304, p = 0.004 corrected for 3 metrics), from 2.177 to 2.459.",
    ]


def test_what_cannot_be_told_from_chance_is_not_called_a_loss(facts_json: dict[str, Any]) -> None:
    facts_json["milestones"][-1]["deltas"]["bits_per_byte.general"] = {
        **{"difference": 0.01, "low": -0.02, "high": 0.04},
        **{"stderr": 0.015, "p": 0.5, "p_holm": 0.5, "pairs": 150},
    }
    sentence = verdict_of(facts_json).sentences[1]
    assert "no change can be told from chance" in sentence
    assert "lost" not in sentence
    assert "gained" not in sentence


@pytest.mark.parametrize(("p_holm", "kind"), [(0.049, "gain"), (0.05, "inseparable"), (0.3, "inseparable")])
def test_a_gain_needs_the_corrected_p_too(facts_json: dict[str, Any], p_holm: float, kind: str) -> None:
    facts_json["milestones"][-1]["deltas"]["bits_per_byte.domain"]["p_holm"] = p_holm
    verdict = verdict_of(facts_json)
    assert verdict.findings[0].kind == kind
    assert ("gained" in verdict.sentences[0]) == (kind == "gain")


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 1), st.booleans())
def test_nothing_is_claimed_whose_interval_contains_zero(a: float, b: float, p: float, lower: bool) -> None:
    low, high = sorted((a, b))
    delta = Delta(difference=(a + b) / 2, low=low, high=high, stderr=0.1, p=p, p_holm=p, pairs=9)
    kind = kind_of(delta=delta, has_both=True, lower_is_better=lower)
    assert (kind in ("gain", "loss")) == (p < 0.05 and not low <= 0 <= high)
    if kind in ("gain", "loss"):
        assert (kind == "gain") == ((low < 0) == lower)


def test_a_difference_without_interval_claims_nothing(facts_json: dict[str, Any]) -> None:
    facts_json["milestones"][-1]["deltas"] = {}
    sentence = verdict_of(facts_json).sentences[0]
    assert "went from 3.023 to 2.110" in sentence
    assert "neither a gain nor a loss" in sentence


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda f: f.update(base=None), "there is no base to compare with"),
        (lambda f: f["recipe"].update(general=None), "the recipe names no general corpus"),
        (lambda f: None, "the base and the milestone have no score on it"),
    ],
)
def test_what_was_not_measured_is_said_to_be_so_and_why(
    facts_json: dict[str, Any], change: Any, why: str
) -> None:
    for model in (facts_json["base"], facts_json["milestones"][-1]):
        model["scores"]["bits_per_byte"]["general"] = None
    del facts_json["milestones"][-1]["deltas"]["bits_per_byte.general"]
    change(facts_json)
    assert verdict_of(facts_json).sentences[1].endswith(f"was not measured: {why}.")


def test_the_largest_milestone_is_judged_whatever_their_order(facts_json: dict[str, Any]) -> None:
    expected = verdict_of(facts_json).sentences
    facts_json["milestones"].reverse()
    assert verdict_of(facts_json).sentences == expected


def test_without_milestones_there_is_nothing_to_judge(facts_json: dict[str, Any]) -> None:
    facts_json["milestones"] = []
    verdict = verdict_of(facts_json)
    assert verdict.sentences == ("No milestone has been trained, so there is nothing to judge yet.",)
    assert verdict.findings == ()


def test_benchmarks_are_counted_by_what_became_of_them(facts_json: dict[str, Any]) -> None:
    del facts_json["milestones"][1]
    assert verdict_of(facts_json).benchmarks == (
        "Of 2 benchmarks at this milestone: 1 higher than the base, 1 not to be told from the base "
        "(p below 0.05 corrected for 4 metrics). No better than guessing or than always giving one answer: "
        "coin."
    )
