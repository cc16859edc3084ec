"""The tables of scores: a row a metric, error bars, flags, and changes that claim no more than they may."""

from typing import Any

from tasks.report.cells import Cell, Table
from tasks.report.facts import ReportFacts
from tasks.report.files import make_report
from tasks.report.page import render_html
from tasks.report.scores import previous_table, scores_table

DELTA = {"stderr": 0.006, "p": 0.002, "p_holm": 0.004, "pairs": 1267}


def rows_of(table: Table) -> dict[Any, tuple[Cell, ...]]:
    return {row[0].value: row for row in table.rows}


def scores_of(facts: dict[str, Any]) -> dict[Any, tuple[Cell, ...]]:
    return rows_of(scores_table(ReportFacts.model_validate(facts)))


def plain(cell: Cell) -> str:
    return cell.note.replace("\N{NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-")


def test_a_change_is_told_with_interval_corrected_p_and_what_it_is(facts_json: dict[str, Any]) -> None:
    rows = scores_of(facts_json)
    assert plain(rows["arc_easy"][1]) == "± 0.0102"
    assert plain(rows["arc_easy"][3]) == "+0.0096 to +0.0408, corrected p = 0.004, gain"
    assert rows["arc_easy"][3].value == 0.0252
    assert plain(rows["bits_per_byte.general"][3]) == "+0.360 to +0.406, corrected p = 0.004, loss"
    assert rows["coin"][4].note == "not measured"


def test_an_interval_without_zero_is_no_gain_where_the_corrected_p_is_not_small(
    facts_json: dict[str, Any],
) -> None:
    delta = {"difference": 0.0252, "low": 0.0096, "high": 0.0408} | DELTA
    facts_json["milestones"][0]["deltas"]["arc_easy"] = delta | {"p_holm": 0.05, "smallest": 0.0305}
    cell = scores_of(facts_json)["arc_easy"][3]
    assert cell.kind == "inseparable"
    assert plain(cell).endswith("corrected p = 0.050, not separable (could have shown 0.0305)")
    assert "gain" not in cell.note


def test_scores_carry_their_flags(facts_json: dict[str, Any]) -> None:
    base = facts_json["base"]["scores"]
    base["coin"] |= {"majority": 0.6217, "most_chosen": 0.99}
    coin = plain(scores_of(facts_json)["coin"][1])
    assert coin.startswith("± 0.0102, at chance, below majority class (always the same answer: 0.6217), 99%")


def test_a_group_is_a_row_with_its_relative_change(facts_json: dict[str, Any]) -> None:
    group = {"base": 0.3, "score": 0.32, "difference": 0.02, "low": 0.01, "high": 0.03, "p": 0.0002}
    group |= {"p_holm": 0.0004, "relative": 0.0667, "relative_low": 0.033, "relative_high": 0.1}
    facts_json["milestones"][1]["groups"] = {"educational": group | {"benchmarks": ["arc_easy", "mmlu"]}}
    row = scores_of(facts_json)["mean.educational"]
    assert [cell.text for cell in row[:3]] == ["Mean, educational", "0.3000", "\N{EN DASH}"]
    assert row[0].note == "arc_easy, mmlu"
    assert row[4].text == "0.3200"
    told = "+0.0100 to +0.0300, +6.7% (+3.3% to +10.0%), corrected p < 0.001, gain"
    assert plain(row[5]) == told
    group |= {"relative": None, "relative_low": None, "relative_high": None, "benchmarks": ["coin"]}
    facts_json["milestones"][1]["groups"] = {"educational": group}
    assert "%" not in scores_of(facts_json)["mean.educational"][5].note


def test_what_a_milestone_changed_against_the_one_before_is_a_table_of_its_own(
    facts_json: dict[str, Any],
) -> None:
    assert previous_table(ReportFacts.model_validate(facts_json)).rows == ()
    facts_json["milestones"][1]["previous"] = {
        "arc_easy": DELTA | {"difference": 0.0004, "low": -0.01, "high": 0.0108, "p_holm": 1.0},
        "bits_per_byte.domain": DELTA | {"difference": -0.213, "low": -0.25, "high": -0.18},
    }
    table = previous_table(ReportFacts.model_validate(facts_json))
    assert [column.title for column in table.columns] == ["Metric", "5M → 12M (95%)"]
    rows = rows_of(table)
    assert rows["arc_easy"][1].kind == "inseparable"
    assert rows["bits_per_byte.domain"][1].kind == "gain"
    assert rows["bits_per_byte.domain"][0].text == "Bits per byte, domain"
    assert list(rows) == ["bits_per_byte.domain", "arc_easy"], "slices first, as among the scores"
    for milestone in facts_json["milestones"]:
        milestone["curve"] = []
    assert table.title in render_html(make_report(ReportFacts.model_validate(facts_json)))
