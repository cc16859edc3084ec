"""What a report tells of the held-out slices beside their scores."""

from typing import Any

import pytest

from tasks.report.facts import MilestoneFacts, Overlap, ReportFacts
from tasks.report.files import make_report
from tasks.report.page import render_html, render_markdown
from tasks.report.slices import overlap_table
from tasks.report.stability import draw_stability


def test_what_a_slice_shares_with_the_other_corpus_is_told_in_a_sentence() -> None:
    found = [Overlap(corpus="domain", documents=1000, near=1), Overlap(corpus="general", documents=0, near=0)]
    table = overlap_table(found)
    assert table.notes == (
        "1 of 1,000 documents of the domain slice has a near-duplicate in the general text that is replayed.",
        "0 of 0 documents of the general slice have a near-duplicate in the domain corpus.",
    )
    assert [[cell.value for cell in row] for row in table.rows] == [
        ["domain", 1000, 1, 0.001],
        ["general", 0, 0, None],
    ]


def stability(*bits: float, dip: float | None, depth: float, recovery: float | None) -> dict[str, Any]:
    points = [
        {"fraction": number / (len(bits) - 1), "tokens": 100 * number, "bits_per_byte": value}
        | ({"low": value - bits[0] - 0.01, "high": value - bits[0] + 0.01} if number else {})
        for number, value in enumerate(bits)
    ]
    return {"points": points, "dip": dip, "depth": depth, "recovery": recovery}


@pytest.mark.slow
def test_the_stability_gap_is_drawn_from_its_points_and_told(facts_json: dict[str, Any]) -> None:
    last = facts_json["milestones"][-1]
    last["stability"] = {
        "domain": stability(3.0, 2.5, 2.1, dip=None, depth=0.0, recovery=None),
        "general": stability(2.0, 2.4, 2.1, dip=0.5, depth=0.4, recovery=0.75),
    }
    report = make_report(ReportFacts.model_validate(facts_json))
    drawing = report.drawings["stability"]
    lines = {line["label"]: line for line in drawing.data["lines"]}
    assert set(lines) == {"domain, 12M", "general, 12M"}
    assert [point["change"] for point in lines["general, 12M"]["points"]] == pytest.approx([0, 0.4, 0.1])
    assert lines["general, 12M"]["depth"] == 0.4
    assert (
        "general, 12M: worst after 50.0% of the steps, +0.400 (95% interval +0.390 to +0.410), of which 75% "
        "was regained by the end."
    ) in drawing.caption
    assert "domain, 12M: never worse than at the start." in drawing.caption
    again = make_report(ReportFacts.model_validate(facts_json)).drawings["stability"]
    assert again.svg == drawing.svg
    page = render_html(report)
    assert "Stability gap" in page
    assert "## Scores" in render_markdown(report)


def test_no_figure_is_drawn_where_nothing_was_measured_on_the_way(facts_json: dict[str, Any]) -> None:
    assert draw_stability([MilestoneFacts.model_validate(one) for one in facts_json["milestones"]]) == []
