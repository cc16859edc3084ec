"""What models took, cost and added: sums and differences of what was measured, nothing guessed."""

from typing import Any

import pytest

from tasks.report.costs import added_table, costs_table, trainings_table
from tasks.report.facts import ReportFacts


def values(table: Any) -> dict[Any, list[Any]]:
    return {row[0].value: [cell.value for cell in row[1:]] for row in table.rows}


def test_a_milestone_adds_what_the_one_before_has_not(facts_json: dict[str, Any]) -> None:
    rows = values(added_table(ReportFacts.model_validate(facts_json)))
    assert rows[5_000_000][:3] == [1, 14_200, 5_001_216]
    assert rows[12_000_000][:3] == [2, 43_201 - 14_200, 12_000_256 - 5_001_216]
    assert rows[12_000_000][3] == 36.4 - 12.1
    assert rows[12_000_000][4:6] == [11_993_088, 1560.0], "a training is its own"


def test_what_is_unknown_of_one_milestone_is_no_difference_of_the_next(facts_json: dict[str, Any]) -> None:
    facts_json["milestones"][0]["documents"] = None
    rows = values(added_table(ReportFacts.model_validate(facts_json)))
    assert rows[5_000_000][1] is rows[12_000_000][1] is None


def test_costs_add_up(facts_json: dict[str, Any]) -> None:
    rows = values(costs_table(ReportFacts.model_validate(facts_json)))
    *parts, total = rows.values()
    assert list(rows)[-1] == "All"
    for column in range(4):
        known = [row[column] for row in parts if row[column] is not None]
        assert total[column] == pytest.approx(sum(known))
    assert rows["Data"] == [50.0, None, 50 / 3600, None]
    assert rows["Base, evaluation"] == [61.2, None, 118 / 3600, None]
    assert rows["5M tokens, training"] == [642.0, 640 / 3600, None, 0.05]
    assert rows["5M tokens, evaluation"] == [70.5, 70.5 / 3600, None, None]
    assert "12M tokens, evaluation" not in rows, "nothing is known of it"


def test_a_training_without_gpus_costs_core_hours(facts_json: dict[str, Any]) -> None:
    facts_json["milestones"][0]["training"] = {"seconds": 3700.0, "core_seconds": 7200.0}
    rows = values(costs_table(ReportFacts.model_validate(facts_json)))
    assert rows["5M tokens, training"][:3] == [3700.0, None, 2.0]


def test_energy_has_a_column_where_it_was_counted_and_else_a_word(facts_json: dict[str, Any]) -> None:
    table = costs_table(ReportFacts.model_validate(facts_json))
    assert [column.title for column in table.columns][4:] == ["kWh, GPUs"]
    for milestone in facts_json["milestones"]:
        milestone["training"] = {"seconds": 60.0}
    table = costs_table(ReportFacts.model_validate(facts_json))
    assert len(table.columns) == 4
    assert table.notes[-1] == "Energy: no counter of it could be read."


def test_the_share_of_the_peak_and_a_devices_memory_stand_where_they_are_known(
    facts_json: dict[str, Any],
) -> None:
    facts_json["milestones"][0]["measured"] = []
    rows = values(trainings_table(ReportFacts.model_validate(facts_json)))
    assert rows[5_000_000][2] is None
    assert rows[12_000_000][2] == 7540 / 18_000
    assert rows[12_000_000][5] == 21_500_000_000
