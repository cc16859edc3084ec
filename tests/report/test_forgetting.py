"""Losses beyond a tolerance: where they begin, and how they are told."""

from typing import Any

import pytest

from tasks.report.facts import ReportFacts
from tasks.report.files import make_report, report_json
from tasks.report.forgetting import beyond, sentence
from tasks.report.numbers import MINUS
from tasks.report.page import render_html, render_markdown
from tasks.report.scored import Loss


def lost(metric: str = "general", **fields: Any) -> Loss:
    known = {"milestone": "12M", "base": 2.0, "score": 2.1, "loss": 0.05, "low": 0.04, "high": 0.06}
    return Loss(metric=metric, **known | {"tolerance": 0.01} | fields)


@pytest.mark.parametrize(
    ("low", "high", "tolerance", "is_beyond"),
    [
        (0.02, 0.04, 0.01, True),
        (0.01, 0.04, 0.01, False),  # the border itself is allowed
        (0.0101, 0.04, 0.01, True),
        (0.005, 0.04, 0.01, False),  # surely a loss, not surely one beyond
        (-0.01, 0.2, 0.01, False),
        (1e-9, 0.2, 0.0, True),
        (0.0, 0.0, 0.0, False),  # the same model
        (-0.3, -0.2, 0.0, False),  # a gain
    ],
)
def test_a_loss_counts_when_its_whole_interval_is_beyond_the_tolerance(
    low: float, high: float, tolerance: float, *, is_beyond: bool
) -> None:
    loss = lost(low=low, high=high, loss=(low + high) / 2, tolerance=tolerance)
    assert loss.beyond == is_beyond
    assert beyond([loss]) == ([loss] if is_beyond else [])


def test_both_numbers_the_interval_and_what_is_allowed_are_told() -> None:
    assert sentence(lost()) == (
        "general: bits per byte went from 2.0000 to 2.1000 after 12M tokens, +5.00% (95% interval +4.00% to "
        "+6.00%), beyond the +1.00% allowed"
    )


def test_a_fall_of_accuracy_is_told_as_one() -> None:
    loss = lost("boolq", base=0.62, score=0.55, loss=0.07, low=0.05, high=0.09, tolerance=0.02)
    assert sentence(loss) == (
        f"boolq: accuracy went from 0.6200 to 0.5500 after 12M tokens, {MINUS}0.0700 (95% interval "
        f"{MINUS}0.0900 to {MINUS}0.0500), beyond the {MINUS}0.0200 allowed"
    )


@pytest.mark.slow
def test_the_report_says_first_what_was_forgotten_at_any_milestone(facts_json: dict[str, Any]) -> None:
    first, last = facts_json["milestones"]
    first["losses"] = [lost(milestone="5M").model_dump(), lost("boolq", low=-0.1).model_dump()]
    last["losses"] = [lost(milestone="12M", low=0.001).model_dump()]
    report = make_report(ReportFacts.model_validate(facts_json))
    said = f"It forgot more than its recipe allows: {sentence(lost(milestone='5M'))}."
    assert report.verdict.sentences[0] == said
    assert len(report.verdict.sentences) == 3, "what is let pass is not called forgotten"
    assert report_json(report)["verdict"]["sentences"][0] == said
    assert said in render_markdown(report)
    assert said in render_html(report)
