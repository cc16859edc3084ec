"""The report as a page and as Markdown, from the same verdict, tables and figures.

The page asks nothing of a network: one file, its style inside, its figures inline, a content policy that
forbids the rest. Everything that comes from the facts is escaped.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasks.report.cells import Cell, Table
from tasks.report.facts import Lineage, ReportFacts, Sample
from tasks.report.numbers import bytes_text, decimal_text
from tasks.report.svg import Drawing
from tasks.report.verdict import Verdict

TEMPLATE = "page.html.j2"
SAMPLES_NOTE = (
    "The beginnings of documents held out from training, what each model wrote after them by its likeliest "
    "token each time, and how the documents go on."
)


@dataclass(frozen=True, slots=True)
class Report:
    """What both forms tell."""

    facts: ReportFacts
    verdict: Verdict
    tables: dict[str, Table]
    drawings: dict[str, Drawing]


def render_html(report: Report) -> str:
    """The page."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["signed"] = lambda value, digits: decimal_text(value, digits, sign=True)
    environment.filters["fixed"] = decimal_text
    environment.filters["pretty"] = _pretty
    environment.filters["excerpt"] = excerpt
    return environment.get_template(TEMPLATE).render(
        facts=report.facts,
        verdict=report.verdict,
        tables=report.tables,
        drawings=report.drawings,
        about=about(report.facts),
        blocks=lineage_blocks(report.facts.lineage),
        samples_note=SAMPLES_NOTE,
        sample_texts=sample_texts,
    )


def render_markdown(report: Report) -> str:
    """The same in Markdown, its tables aligned to be read in a terminal; the curves are in the JSON."""
    parts = [f"# {_plain(report.facts.recipe.name)}"]
    parts.append("\n".join(f"- {name}: {_plain(text)}" for name, text in about(report.facts)))
    parts += ["## Verdict", " ".join(map(_plain, report.verdict.sentences))]
    if report.verdict.benchmarks:
        parts.append(_plain(report.verdict.benchmarks))
    for table in report.tables.values():
        parts += [f"## {table.title}", markdown_table(table), *map(_plain, table.notes)]
    if report.facts.samples:
        parts += ["## Samples", SAMPLES_NOTE]
    for sample in report.facts.samples:
        told = [("Beginning", sample.prompt), *sample_texts(sample), ("The document", sample.original)]
        parts.append("\n".join(f"- {name}: {_plain(excerpt(text))}" for name, text in told))
    blocks = lineage_blocks(report.facts.lineage)
    if blocks:
        parts.append("## Lineage")
    for title, value in blocks:
        # Indented, not fenced: nothing in it can end the block.
        text = "\n".join(f"    {line}" for line in _pretty(value).splitlines())
        parts += [f"### {title}", text]
    return "\n\n".join(parts) + "\n"


def about(facts: ReportFacts) -> list[tuple[str, str]]:
    """What a reader needs before the numbers, by name."""
    machine = facts.machine
    hardware = [machine.platform, f"{machine.cpu_count} CPU{'s' if machine.cpu_count != 1 else ''}"]
    if machine.memory_bytes is not None:
        hardware.append(bytes_text(machine.memory_bytes))
    hardware += machine.devices
    told = [
        ("Base model", facts.recipe.base_model),
        ("Domain", facts.recipe.dataset),
        ("General", facts.recipe.general or "none"),
        ("Seed", str(facts.recipe.seed)),
        ("Machine", ", ".join(hardware)),
    ]
    if facts.versions:
        told.append(("Versions", ", ".join(f"{name} {version}" for name, version in facts.versions.items())))
    return told


def sample_texts(sample: Sample) -> list[tuple[str, str]]:
    """What the base and the largest milestone wrote, by their names; all others' is in the JSON."""
    labels = list(sample.continuations)
    shown = dict.fromkeys((*labels[:1], *labels[-1:]))
    return [
        (label.capitalize() if label == "base" else f"{label} tokens", sample.continuations[label])
        for label in shown
    ]


def excerpt(text: str) -> str:
    """A sample as it is read: without the space around it, empty lines drawn together."""
    return re.sub(r"\n\s*\n", "\n\n", text.strip()) or "(ends at once)"


def lineage_blocks(lineage: Lineage) -> list[tuple[str, object]]:
    """What the report stands on, by title, without what is empty."""
    blocks: list[tuple[str, object]] = [
        ("Generated", {"at": lineage.generated_at} if lineage.generated_at else None),
        ("Fingerprints", lineage.fingerprints),
        ("Code that made it, by stage", lineage.code),
        ("Source hash of the code, by room", lineage.drift),
        ("Environment", lineage.environment),
        ("Resolved recipe", lineage.config),
    ]
    return [(title, value) for title, value in blocks if value]


def markdown_table(table: Table) -> str:
    """Its cells padded to their column's width."""
    columns = [_plain(column.title) for column in table.columns]
    rows = [[_plain(_with_note(cell)) for cell in row] for row in table.rows]
    widths = [max(map(len, column), default=3) for column in zip(columns, *rows, strict=True)]
    widths = [max(3, width) for width in widths]
    rules = [
        "-" * (width - 1) + (":" if column.numeric else "-")
        for width, column in zip(widths, table.columns, strict=True)
    ]
    numeric = [column.numeric for column in table.columns]
    return "\n".join(
        [_line(columns, widths, numeric), _line(rules, widths, numeric)]
        + [_line(row, widths, numeric) for row in rows]
    )


def _line(cells: Iterable[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    padded = (
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, numeric, strict=True)
    )
    return f"| {' | '.join(padded)} |"


def _with_note(cell: Cell) -> str:
    return f"{cell.text} ({cell.note})" if cell.note else cell.text


def _plain(text: str) -> str:
    """One line that Markdown takes for text: no HTML, no cell border, no link, no emphasis or code span."""
    line = re.sub(r"&(?=#?\w+;)", "&amp;", " ".join(text.split()))
    line = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", line)
    # An underscore inside a word is none of Markdown's business: `top_4_gram` stays readable.
    return re.sub(r"([\\|`*\[])", r"\\\1", line)


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
