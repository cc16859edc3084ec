"""The tables say what the facts say."""

from typing import Any

import pytest

from tasks.report.cells import Cell, Column, Table
from tasks.report.facts import ReportFacts
from tasks.report.page import markdown_table
from tasks.report.tables import make_tables


def tables_of(facts: dict[str, Any]) -> dict[str, Table]:
    return make_tables(ReportFacts.model_validate(facts))


def test_every_row_has_a_cell_for_every_column(facts_json: dict[str, Any]) -> None:
    tables = tables_of(facts_json)
    names = {"scores", "milestones", "added", "funnel", "drops", "stages", "trainings", "costs"}
    assert set(tables) == names | {"plan", "sources"}
    for table in tables.values():
        assert {len(row) for row in table.rows} == {len(table.columns)}


def test_tables_with_nothing_to_tell_are_left_out(facts_json: dict[str, Any]) -> None:
    bare = {"recipe": facts_json["recipe"], "machine": facts_json["machine"]}
    assert tables_of(bare) == {}


def test_documents_that_are_unaccounted_for_are_told(facts_json: dict[str, Any]) -> None:
    assert tables_of(facts_json)["funnel"].notes == ("In = kept + dropped holds in every row.",)
    facts_json["funnel"][1]["documents_out"] -= 1
    assert "does not hold for filtering (domain)" in tables_of(facts_json)["funnel"].notes[0]


@pytest.mark.parametrize("missing", [None, {"bits_per_byte": None, "documents": 0, "bytes": 0}])
def test_scores_are_read_from_what_dapt_run_prints(facts_json: dict[str, Any], missing: Any) -> None:
    facts_json["base"]["scores"]["bits_per_byte"] = {"domain": 3.0231, "general": missing}
    scores = ReportFacts.model_validate(facts_json).base.scores  # type: ignore[union-attr]
    assert scores.bits_per_byte["domain"].bits_per_byte == 3.0231
    assert "general" not in scores.bits_per_byte
    assert set(scores.benchmarks) == {"arc_easy", "coin"}


def test_facts_survive_their_own_json(facts_json: dict[str, Any]) -> None:
    facts = ReportFacts.model_validate(facts_json)
    assert ReportFacts.model_validate(facts.model_dump(mode="json")) == facts


def test_markdown_columns_line_up_and_cells_cannot_break_the_table() -> None:
    columns = (Column("Reason", numeric=False), Column("Documents"))
    rows = ((Cell("a|b <i>", "a|b"), Cell("1,200", 1200)), (Cell("top_4_gram"), Cell("7", 7, "few")))
    assert markdown_table(Table("t", "T", columns, rows)).splitlines() == [
        r"| Reason      | Documents |",
        r"| ----------- | --------: |",
        r"| a\|b &lt;i> |     1,200 |",
        r"| top_4_gram  |   7 (few) |",
    ]
