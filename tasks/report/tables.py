"""The tables of a report, made once, told three ways. Pure."""

from tasks.report.cells import Cell, Column, Table, count, duration, size
from tasks.report.costs import added_table, costs_table, trainings_table
from tasks.report.facts import MilestoneFacts, Prediction, ReportFacts, StageFacts
from tasks.report.numbers import (
    NOTHING,
    bytes_text,
    decimal_text,
    percent_text,
    short_text,
)
from tasks.report.scores import previous_table, scores_table
from tasks.report.slices import overlap_table
from tasks.store.tokens import format_tokens


def make_tables(facts: ReportFacts) -> dict[str, Table]:
    """All tables that have something to tell, by name."""
    tables = (
        scores_table(facts),
        previous_table(facts),
        milestones_table(facts.milestones),
        added_table(facts),
        funnel_table(facts.funnel),
        drops_table(facts.funnel),
        stages_table(facts.funnel),
        trainings_table(facts),
        costs_table(facts),
        plan_table(facts.plan),
        sources_table(facts),
        overlap_table(facts.overlaps),
    )
    return {table.name: table for table in tables if table.rows}


def milestones_table(milestones: list[MilestoneFacts]) -> Table:
    """A row a milestone: what it was trained on, and where its loss went."""
    titles = (
        "Tokens in corpus",
        "Sequences",
        "Shards",
        "Steps",
        "Tokens trained",
        "Sequences left out",
        "Loss",
    )
    rows = []
    for m in milestones:
        losses = [point.loss for point in m.own_curve if point.loss is not None]
        loss = f"{decimal_text(losses[0], 3)} → {decimal_text(losses[-1], 3)}" if losses else NOTHING
        cells = [Cell(format_tokens(m.budget), m.budget)]
        cells += map(
            count, (m.tokens, m.sequences, m.shards, m.steps, m.tokens_trained, m.sequences_left_out)
        )
        cells.append(Cell(loss, losses[-1] if losses else None))
        rows.append(tuple(cells))
    columns = (Column("Budget"), *map(Column, titles))
    note = "Left out: an incomplete last batch. Loss: of the first and the last step told, nats a token."
    return Table("milestones", "Milestones", columns, tuple(rows), (note,))


def funnel_table(funnel: list[StageFacts]) -> Table:
    """A row a stage: what came in, what went on."""
    titles = ("Documents in", "Kept", "Dropped", "Share dropped", "Text in", "Text out", "Tokens")
    rows = []
    wrong = []
    for stage in funnel:
        dropped = sum(stage.dropped.values())
        share = dropped / stage.documents_in if stage.documents_in else None
        rows.append(
            (
                *_stage_cells(stage),
                count(stage.documents_in),
                count(stage.documents_out),
                count(dropped),
                Cell(percent_text(share), share),
                size(stage.text_bytes_in),
                size(stage.text_bytes_out),
                count(stage.tokens or None),
            )
        )
        if stage.documents_in != stage.documents_out + dropped:
            wrong.append(f"{stage.stage} ({stage.corpus})")
    note = (
        f"In = kept + dropped does not hold for {', '.join(wrong)}: documents are unaccounted for."
        if wrong
        else "In = kept + dropped holds in every row."
    )
    return Table("funnel", "From documents to tokens", (*_STAGE, *map(Column, titles)), tuple(rows), (note,))


def drops_table(funnel: list[StageFacts]) -> Table:
    """A row a reason, the most frequent of a stage first."""
    rows = []
    for stage in funnel:
        for reason, number in sorted(stage.dropped.items(), key=lambda item: (-item[1], item[0])):
            share = number / stage.documents_in if stage.documents_in else None
            cells = (Cell(reason, reason), count(number), Cell(percent_text(share), share))
            rows.append((*_stage_cells(stage), *cells))
    columns = (*_STAGE, Column("Reason", numeric=False), Column("Documents"), Column("Of those that came in"))
    return Table("drops", "Why documents were dropped", columns, tuple(rows))


def stages_table(funnel: list[StageFacts]) -> Table:
    """A row a stage: what it took."""
    titles = ("Shards", "Time", "Wall", "Documents/s", "Text/s", "Peak memory")
    rows = []
    for stage in funnel:
        seconds = stage.seconds or None
        rate = stage.documents_in / seconds if seconds else None
        text_rate = stage.text_bytes_in / seconds if seconds and stage.text_bytes_in else None
        rows.append(
            (
                *_stage_cells(stage),
                count(stage.shards),
                duration(seconds),
                duration(stage.wall_seconds),
                Cell(short_text(rate), rate),
                Cell(f"{bytes_text(text_rate)}/s" if text_rate else NOTHING, text_rate),
                size(stage.peak_rss_bytes or None),
            )
        )
    note = (
        "Time: summed over shards, also those made by earlier runs. Wall: in which at least one of them was "
        "being made, to about a second."
    )
    return Table("stages", "What the data took", (*_STAGE, *map(Column, titles)), tuple(rows), (note,))


def plan_table(plan: list[Prediction]) -> Table:
    """A row a prediction, beside what happened."""
    rows = []
    for item in plan:
        ratio = item.happened / item.predicted if item.happened is not None and item.predicted else None
        text = f"{decimal_text(ratio, 2)} x" if ratio is not None else NOTHING
        cells = (_amount(item.predicted, item.unit), _amount(item.happened, item.unit), Cell(text, ratio))
        rows.append((Cell(item.what, item.what), *cells))
    columns = (Column("", numeric=False), Column("Planned"), Column("Happened"), Column("Of the plan"))
    return Table("plan", "The plan, and what happened", columns, tuple(rows))


def sources_table(facts: ReportFacts) -> Table:
    """A row a source of text."""
    rows = tuple(
        (
            Cell(source.name, source.name),
            Cell(source.corpus, source.corpus),
            Cell(source.revision or NOTHING, source.revision),
            count(source.files),
            size(source.bytes),
            Cell("; ".join(source.notes) or NOTHING),
        )
        for source in facts.sources
    )
    words = tuple(Column(title, numeric=False) for title in ("Source", "Corpus", "Revision"))
    columns = (*words, Column("Files"), Column("Size"), Column("Notes", numeric=False))
    return Table("sources", "Sources", columns, rows)


_STAGE = (Column("Stage", numeric=False), Column("Corpus", numeric=False))


def _stage_cells(stage: StageFacts) -> tuple[Cell, Cell]:
    return Cell(stage.stage, stage.stage), Cell(stage.corpus, stage.corpus)


def _amount(value: float | None, unit: str) -> Cell:
    if unit == "s":
        return duration(value)
    return size(value) if unit == "bytes" else count(value)
