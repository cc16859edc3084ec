"""The tables of a report, made once, told three ways: a cell is a value and how it is written. Pure."""

from dataclasses import dataclass

from tasks.report.config import BITS, BenchmarkScore, MilestoneFacts, Prediction, ReportFacts, StageFacts
from tasks.report.numbers import (
    NO_BREAK,
    NOTHING,
    bytes_text,
    count_text,
    decimal_text,
    duration_text,
    percent_text,
    short_text,
)
from tasks.report.verdict import Kind, kind_of
from tasks.store.tokens import format_tokens


@dataclass(frozen=True, slots=True)
class Cell:
    """A value and how it is written."""

    text: str
    value: float | str | None = None
    note: str = ""
    """A few words beside it, set smaller."""
    kind: Kind | None = None
    """Colours a difference; the note says the same in words."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading, and whether numbers stand in it (set right, in figures of one width)."""

    title: str
    numeric: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns; a row has a cell a column."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    """Sentences under it."""


def make_tables(facts: ReportFacts) -> dict[str, Table]:
    """All tables that have something to tell, by name."""
    tables = (
        scores_table(facts),
        milestones_table(facts.milestones),
        funnel_table(facts.funnel),
        drops_table(facts.funnel),
        stages_table(facts.funnel),
        trainings_table(facts),
        plan_table(facts.plan),
        sources_table(facts),
    )
    return {table.name: table for table in tables if table.rows}


def scores_table(facts: ReportFacts) -> Table:
    """A row a metric: the base, then every milestone with its change and 95% interval."""
    models = [milestone.scores for milestone in facts.milestones]
    if facts.base:
        models.insert(0, facts.base.scores)
    slices = [c for c in ("domain", "general") if any(c in scores.bits_per_byte for scores in models)]
    benchmarks = list(dict.fromkeys(name for scores in models for name in scores.benchmarks))
    columns = [Column("Metric", numeric=False)]
    if facts.base:
        columns.append(Column("Base"))
    for milestone in facts.milestones:
        columns.append(Column(f"{format_tokens(milestone.budget)} tokens"))
        if facts.base:
            columns.append(Column("Change (95%)"))
    rows = [_slice_row(facts, corpus) for corpus in slices] + [_benchmark_row(facts, n) for n in benchmarks]
    notes = []
    if slices:
        notes.append("Bits per byte: on documents held out from training; lower is better.")
    if benchmarks:
        notes.append(
            "Benchmarks: score ± standard error; higher is better. At chance: guessing does as well, "
            "within 1.96 standard errors."
        )
    if facts.base:
        notes.append(
            "Change: milestone minus base on the same items, with a 95% interval. "
            "One that contains 0 is called neither a gain nor a loss."
        )
    return Table("scores", "Scores", tuple(columns), tuple(rows), tuple(notes))


def _slice_row(facts: ReportFacts, corpus: str) -> tuple[Cell, ...]:
    base = facts.base.scores.bits_per_byte.get(corpus) if facts.base else None  # type: ignore[call-overload]
    after = [m.scores.bits_per_byte.get(corpus) for m in facts.milestones]  # type: ignore[call-overload]
    known = [score for score in (base, *after) if score is not None]
    items = next((score.documents for score in known if score.documents is not None), None)
    about = f"{count_text(items)} documents" if items is not None else ""
    cells = [Cell(f"Bits per byte, {corpus}", f"{BITS}.{corpus}", about)]
    if facts.base:
        cells.append(_bits(base and base.bits_per_byte))
    for milestone, score in zip(facts.milestones, after, strict=True):
        cells.append(_bits(score and score.bits_per_byte))
        if facts.base:
            both = base is not None and score is not None
            cells.append(
                _change(milestone, f"{BITS}.{corpus}", digits=3, has_both=both, lower_is_better=True)
            )
    return tuple(cells)


def _bits(value: float | None) -> Cell:
    return Cell(decimal_text(value, 3), value, "" if value is not None else "not measured")


def _benchmark_row(facts: ReportFacts, name: str) -> tuple[Cell, ...]:
    base = facts.base.scores.benchmarks.get(name) if facts.base else None
    after = [m.scores.benchmarks.get(name) for m in facts.milestones]
    known = [score for score in (base, *after) if score is not None]
    items = next((score.items for score in known if score.items is not None), None)
    chance = next((score.chance for score in known if score.chance is not None), None)
    metric = next((score.metric for score in known if score.metric), "")
    about = [metric] if metric else []
    if items is not None:
        about.append(f"{count_text(items)} items")
    if chance is not None:
        about.append(f"chance {decimal_text(chance, 3)}")
    cells = [Cell(name, name, ", ".join(about))]
    scored = ([base] if facts.base else []) + after
    for number, score in enumerate(scored):
        if score is None:
            cells.append(Cell(NOTHING, note="not measured"))
        else:
            cells.append(Cell(decimal_text(score.score, 4), score.score, _error(score, chance)))
        if facts.base and number:
            both = base is not None and score is not None
            milestone = facts.milestones[number - 1]
            cells.append(_change(milestone, name, digits=4, has_both=both, lower_is_better=False))
    return tuple(cells)


def _error(score: BenchmarkScore, chance: float | None) -> str:
    """The standard error, and whether guessing would do as well (chance within 1.96 of it)."""
    if score.stderr is None:
        return ""
    told = f"±{NO_BREAK}{decimal_text(score.stderr, 4)}"
    at_chance = chance is not None and abs(score.score - chance) <= 1.96 * score.stderr
    return f"{told}, at{NO_BREAK}chance" if at_chance else told


def _change(
    milestone: MilestoneFacts, metric: str, *, digits: int, has_both: bool, lower_is_better: bool
) -> Cell:
    delta = milestone.deltas.get(metric)
    kind = kind_of(delta=delta, has_both=has_both, lower_is_better=lower_is_better)
    if delta is None:
        return Cell(NOTHING, note=kind, kind=kind)
    told = "not separable" if kind == "inseparable" else kind
    low, high = (decimal_text(bound, digits, sign=True) for bound in (delta.low, delta.high))
    text = decimal_text(delta.difference, digits, sign=True)
    return Cell(
        text, delta.difference, f"{low}{NO_BREAK}to{NO_BREAK}{high}, {told.replace(' ', NO_BREAK)}", kind
    )


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
        losses = [point.loss for point in m.curve if point.loss is not None]
        loss = f"{decimal_text(losses[0], 3)} → {decimal_text(losses[-1], 3)}" if losses else NOTHING
        cells = [Cell(format_tokens(m.budget), m.budget)]
        cells += map(
            _count, (m.tokens, m.sequences, m.shards, m.steps, m.tokens_trained, m.sequences_left_out)
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
                _count(stage.documents_in),
                _count(stage.documents_out),
                _count(dropped),
                Cell(percent_text(share), share),
                _size(stage.text_bytes_in),
                _size(stage.text_bytes_out),
                _count(stage.tokens or None),
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
            cells = (Cell(reason, reason), _count(number), Cell(percent_text(share), share))
            rows.append((*_stage_cells(stage), *cells))
    columns = (*_STAGE, Column("Reason", numeric=False), Column("Documents"), Column("Of those that came in"))
    return Table("drops", "Why documents were dropped", columns, tuple(rows))


def stages_table(funnel: list[StageFacts]) -> Table:
    """A row a stage: what it took."""
    titles = ("Shards", "Made now", "Stood already", "Time", "Documents/s", "Text/s", "Peak memory")
    rows = []
    for stage in funnel:
        seconds = stage.seconds or None
        rate = stage.documents_in / seconds if seconds else None
        text_rate = stage.text_bytes_in / seconds if seconds and stage.text_bytes_in else None
        rows.append(
            (
                *_stage_cells(stage),
                _count(stage.shards),
                _count(stage.computed),
                _count(stage.hit),
                Cell(duration_text(seconds), stage.seconds),
                Cell(short_text(rate), rate),
                Cell(f"{bytes_text(text_rate)}/s" if text_rate else NOTHING, text_rate),
                _size(stage.peak_rss_bytes or None),
            )
        )
    note = (
        "Time: summed over shards, also those made by earlier runs; shards run at once, so a run is shorter."
    )
    return Table("stages", "What the data took", (*_STAGE, *map(Column, titles)), tuple(rows), (note,))


def trainings_table(facts: ReportFacts) -> Table:
    """A row a model: what training and evaluating it took."""
    rows = []
    if facts.base and facts.base.evaluation_seconds is not None:
        seconds = facts.base.evaluation_seconds
        nothing = (Cell(NOTHING),) * 4
        rows.append((Cell("Base", "base"), *nothing, Cell(duration_text(seconds), seconds)))
    for m in facts.milestones:
        rows.append(
            (
                Cell(f"{format_tokens(m.budget)} tokens", m.budget),
                Cell(duration_text(m.seconds), m.seconds),
                Cell(short_text(m.tokens_per_s), m.tokens_per_s),
                _count(m.ranks),
                _size(m.peak_rss_bytes),
                Cell(duration_text(m.evaluation_seconds), m.evaluation_seconds),
            )
        )
    titles = ("Training", "Tokens/s", "Ranks", "Peak memory", "Evaluation")
    columns = (Column("Model", numeric=False), *map(Column, titles))
    return Table("trainings", "What the models took", columns, tuple(rows))


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
            _count(source.files),
            _size(source.bytes),
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


def _count(value: float | None) -> Cell:
    return Cell(count_text(value), value)


def _size(value: float | None) -> Cell:
    return Cell(bytes_text(value), value)


def _amount(value: float | None, unit: str) -> Cell:
    if unit == "s":
        return Cell(duration_text(value), value)
    return _size(value) if unit == "bytes" else _count(value)
