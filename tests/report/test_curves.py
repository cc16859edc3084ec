"""Figures by tokens: one axis for a model's whole history, whether milestones extend or restart."""

from typing import Any

import pytest

from tasks.report.curves import draw_learning_rate, draw_loss, draw_memory, draw_throughput, loss_curves
from tasks.report.facts import ReportFacts
from tasks.report.figures import draw
from tasks.store.json import JSON


def curve(first: int, last: int, rate: float) -> list[list[float]]:
    """Steps of 100 tokens, each with its own loss."""
    return [[step, 100 * step, 5 - step / 100, rate, 1.0] for step in range(first, last + 1)]


@pytest.fixture
def extended(facts_json: dict[str, Any]) -> ReportFacts:
    """A milestone of 8 steps; one that goes on after step 6 (before the annealing), to step 20."""
    small, large = facts_json["milestones"]
    small |= {"tokens_trained": 800, "curve": curve(1, 8, 0.1), "measured": []}
    large |= {"tokens_trained": 1400, "tokens_before": 600, "curve": curve(1, 6, 0.1) + curve(7, 20, 0.2)}
    large["measured"] = [[700, 90.0, None, None, None, 1_000_000], [2000, 110.0, None, None, None, 900_000]]
    return ReportFacts.model_validate(facts_json)


def points_of(drawing: Any) -> list[list[list[float]]]:
    found: list[list[list[float]]] = [line["points"] for line in drawing.data["lines"]]
    return found


def test_a_milestone_that_extends_lies_behind_the_one_that_it_goes_on_from(extended: ReportFacts) -> None:
    small, large = points_of(draw_loss(loss_curves(extended.milestones)))
    assert [x for x, _ in small] == list(range(100, 900, 100))
    assert [x for x, _ in large] == list(range(700, 2100, 100)), "not again what the smaller one saw"


def test_milestones_that_restart_lie_beside_each_other(facts_json: dict[str, Any]) -> None:
    milestones = ReportFacts.model_validate(facts_json).milestones
    small, large = points_of(draw_loss(loss_curves(milestones)))
    assert small[0][0] < 100_000
    assert large[0][0] < 100_000
    assert large[-1][0] == milestones[1].tokens_seen == milestones[1].tokens_trained


def test_the_schedule_is_one_line_where_milestones_extend_with_their_ends_marked(
    extended: ReportFacts,
) -> None:
    drawing = draw_learning_rate(extended.milestones)
    assert drawing is not None
    _, large = points_of(drawing)
    assert large[:2] == [[600, 0.1], [700, 0.2]], "joined to where it took over"
    assert drawing.data["ends"] == [{"label": "5M", "tokens": 800}, {"label": "12M", "tokens": 2000}]


def test_the_schedules_of_milestones_that_restart_are_not_joined(facts_json: dict[str, Any]) -> None:
    drawing = draw_learning_rate(ReportFacts.model_validate(facts_json).milestones)
    assert [points[0][0] for points in points_of(drawing)] == [99_614, pytest.approx(26_652, abs=13_326)]


def test_scores_stand_at_the_tokens_that_their_model_has_seen(extended: ReportFacts) -> None:
    drawings = {drawing.name: drawing for drawing in draw(extended)}
    for name in ("change", "bits_per_byte"):
        for line in drawings[name].data["lines"]:
            assert [point["tokens"] for point in line["points"]] == [0, 800, 2000], name


def test_relative_changes_stand_with_their_intervals_and_the_base_at_0(facts_json: dict[str, Any]) -> None:
    (drawing,) = (d for d in draw(ReportFacts.model_validate(facts_json)) if d.name == "change")
    groups = facts_json["milestones"][-1]["groups"]
    for line in drawing.data["lines"]:
        base, _, last = line["points"]
        told = groups[line["label"]]
        assert base == {"tokens": 0, "relative": 0.0, "low": None, "high": None}
        expected: JSON = {"low": told["relative_low"], "high": told["relative_high"]}
        assert last == {"tokens": 11_993_088, "relative": told["relative"], **expected}
        assert line["benchmarks"] == told["benchmarks"]
    assert [line["label"] for line in drawing.data["lines"]] == ["knowledge", "general"]


def test_without_groups_or_measured_steps_there_are_no_such_figures(facts_json: dict[str, Any]) -> None:
    for milestone in facts_json["milestones"]:
        milestone["groups"], milestone["measured"] = {}, []
    names = {drawing.name for drawing in draw(ReportFacts.model_validate(facts_json))}
    assert names.isdisjoint({"change", "throughput", "memory"})


def test_memory_is_told_of_the_host_alone_where_there_is_no_device(
    extended: ReportFacts, facts_json: dict[str, Any]
) -> None:
    drawing = draw_memory(extended.milestones)
    assert drawing is not None
    (line,) = drawing.data["lines"]
    assert (line["label"], line["milestone"]) == ("host", "12M")
    assert line["points"] == [[700, 1_000_000], [2000, 900_000]]
    on_gpus = draw_memory(ReportFacts.model_validate(_with_device(facts_json)).milestones)
    assert on_gpus is not None
    labels = [line["label"] for line in on_gpus.data["lines"]]
    assert labels == ["device, in tensors"] * 2 + ["device, reserved"] * 2 + ["host"] * 2
    assert on_gpus.svg.count(">host<") == 1, "a kind stands once in the legend"


def _with_device(facts: dict[str, Any]) -> dict[str, Any]:
    for milestone in facts["milestones"]:
        milestone["measured"] = [[100, 50.0, 0.4, 8_000_000, 9_000_000, 2_000_000]]
    return facts


def test_throughput_tells_the_share_of_the_peak_where_it_is_known(
    extended: ReportFacts, facts_json: dict[str, Any]
) -> None:
    on_a_cpu, on_gpus = (
        draw_throughput(extended.milestones),
        ReportFacts.model_validate(_with_device(facts_json)),
    )
    assert on_a_cpu is not None
    assert "MFU" not in on_a_cpu.caption
    told = draw_throughput(on_gpus.milestones)
    assert told is not None
    assert "(MFU) is 40.0%" in told.caption
