"""The scores table: a row a metric, the base, then every milestone with its change. Pure."""

from tasks.report.cells import Cell, Column, Table
from tasks.report.config import BITS, BenchmarkScore, MilestoneFacts, ReportFacts
from tasks.report.numbers import NO_BREAK, NOTHING, count_text, decimal_text
from tasks.report.verdict import kind_of
from tasks.store.tokens import format_tokens


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
