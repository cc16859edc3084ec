"""The three files of a report: report.json (everything), report.html and report.md (the same, told).

The same facts give the same bytes. The JSON holds the facts as they came, and what was made of them: the
verdict, every table's cells with value and text, every figure's points.
"""

import json
from dataclasses import asdict

from tasks.report.facts import ReportFacts
from tasks.report.figures import draw
from tasks.report.forgetting import beyond
from tasks.report.page import Report, about, render_html, render_markdown
from tasks.report.stability import draw_stability
from tasks.report.tables import make_tables
from tasks.report.verdict import judge
from tasks.store.json import JSON
from tasks.store.shard import NodeWriter


def build_report(writer: NodeWriter) -> None:
    """Write a report's files from `reads["facts"]`: `ReportFacts` as JSON, or where it lies in the store."""
    given = writer.node.reads["facts"]
    facts = ReportFacts.model_validate(
        json.loads(writer.store.read(given)) if isinstance(given, str) else given
    )
    report = make_report(facts)
    writer.file("report.json", _json_bytes(report_json(report)))
    writer.file("report.md", render_markdown(report).encode())
    writer.file("report.html", render_html(report).encode())
    writer.details = {
        "verdict": list(report.verdict.sentences),
        "forgetting": [
            loss.model_dump(mode="json")
            for loss in beyond(loss for milestone in facts.milestones for loss in milestone.losses)
        ],
        "kinds": {finding.metric: finding.kind for finding in report.verdict.findings},
    }


def make_report(facts: ReportFacts) -> Report:
    """Judge the facts, table them, draw them."""
    drawings = {drawing.name: drawing for drawing in [*draw(facts), *draw_stability(facts.milestones)]}
    return Report(facts=facts, verdict=judge(facts), tables=make_tables(facts), drawings=drawings)


def report_json(report: Report) -> JSON:
    """Everything the report says and is made from, as plain JSON."""
    verdict = report.verdict
    return {
        "recipe": report.facts.recipe.name,
        "about": dict(about(report.facts)),
        "verdict": {
            "sentences": list(verdict.sentences),
            "benchmarks": verdict.benchmarks,
            "findings": [
                {
                    "metric": finding.metric,
                    "kind": finding.kind,
                    "base": finding.base,
                    "score": finding.score,
                    "delta": finding.delta and finding.delta.model_dump(mode="json"),
                }
                for finding in verdict.findings
            ],
        },
        "tables": {name: asdict(table) for name, table in report.tables.items()},
        "figures": {
            name: {"title": drawing.title, "caption": drawing.caption} | drawing.data
            for name, drawing in report.drawings.items()
        },
        "facts": report.facts.model_dump(mode="json"),
    }


def _json_bytes(value: JSON) -> bytes:
    """A line a top-level key: curves a line a number would be unreadable."""
    lines = (
        f"{json.dumps(key)}: {json.dumps(item, ensure_ascii=False, allow_nan=False)}"
        for key, item in value.items()
    )
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()
