"""The tables of scores: a row a metric, the base, then every milestone with its change. Pure."""

from tasks.report.cells import Cell, Column, Table
from tasks.report.facts import ReportFacts
from tasks.report.flags import flags_of
from tasks.report.numbers import NO_BREAK, NOTHING, count_text, decimal_text, p_text
from tasks.report.scored import BITS, BenchmarkScore, Corpus, Delta, GroupChange, HeldOutScore
from tasks.report.verdict import ALPHA, PLACES, kind_of
from tasks.store.tokens import format_tokens

_RULE = (
    "p is corrected (Holm) for all metrics of the column. A change is called a gain or a loss only where its "
    f"interval leaves out 0 and its corrected p is below {ALPHA:g}."
)
_TESTS = "p: of benchmarks McNemar's exact one, of bits per byte by a bootstrap over documents."
_SMALLEST = (
    "What a benchmark could have shown: the smallest true difference that 80% of runs would have found, by "
    "its items and by how many of them changed, before any correction."
)
_UNMEASURED = Cell(NOTHING, note="not measured")


def scores_table(facts: ReportFacts) -> Table:
    """A row a metric: the base, then every milestone with its change, 95% interval and corrected p."""
    models = [milestone.scores for milestone in facts.milestones]
    if facts.base:
        models.insert(0, facts.base.scores)
    slices = [c for c in PLACES if any(c in scores.bits_per_byte for scores in models)]
    benchmarks = list(dict.fromkeys(name for scores in models for name in scores.benchmarks))
    groups = list(dict.fromkeys(name for milestone in facts.milestones for name in milestone.groups))
    columns = [Column("Metric", numeric=False)]
    if facts.base:
        columns.append(Column("Base"))
    for milestone in facts.milestones:
        columns.append(Column(f"{format_tokens(milestone.budget)} tokens"))
        if facts.base:
            columns.append(Column("Change (95%)"))
    rows = [_slice_row(facts, corpus) for corpus in slices]
    rows += [_benchmark_row(facts, name) for name in benchmarks]
    rows += [_group_row(facts, name) for name in groups]
    notes = []
    if slices:
        notes.append("Bits per byte: on documents held out from training; lower is better.")
    if benchmarks:
        notes.append(
            "Benchmarks: score ± standard error; higher is better. At chance: guessing does as well, "
            "within 1.96 standard errors; below chance: it does better."
        )
    if groups:
        notes.append(
            "Mean: unweighted, of a group's benchmarks; its interval and p by a bootstrap over the items of "
            "each, p corrected for the groups."
        )
    if facts.base:
        notes.append(f"Change: milestone minus base on the same items, with a 95% interval. {_TESTS} {_RULE}")
        if benchmarks:
            notes.append(_SMALLEST)
    return Table("scores", "Scores", tuple(columns), tuple(rows), tuple(notes))


def previous_table(facts: ReportFacts) -> Table:
    """A row a metric: what each milestone changed against the one before; no rows where there is none."""
    columns = [Column("Metric", numeric=False)]
    later = []
    for before, milestone in zip(facts.milestones, facts.milestones[1:], strict=False):
        if milestone.previous:
            columns.append(
                Column(f"{format_tokens(before.budget)} → {format_tokens(milestone.budget)} (95%)")
            )
            later.append(milestone)
    rows = []
    metrics = dict.fromkeys(name for milestone in later for name in milestone.previous)
    for metric in sorted(metrics, key=lambda metric: not _named(metric)[1]):
        name, lower = _named(metric)
        deltas = [milestone.previous.get(metric) for milestone in later]
        changes = [
            _change(delta, digits=3 if lower else 4, has_both=False, lower_is_better=lower)
            for delta in deltas
        ]
        rows.append((Cell(name, metric), *changes))
    note = f"A milestone minus the one before, on the same items, with a 95% interval. {_TESTS} {_RULE}"
    return Table("previous", "What each milestone changed", tuple(columns), tuple(rows), (note,))


def _named(metric: str) -> tuple[str, bool]:
    """How a metric is written, and whether lower is better."""
    kind, _, corpus = metric.partition(".")
    return (f"Bits per byte, {corpus}", True) if kind == BITS and corpus else (metric, False)


def _slice_row(facts: ReportFacts, corpus: Corpus) -> tuple[Cell, ...]:
    base = facts.base.scores.bits_per_byte.get(corpus) if facts.base else None
    after = [m.scores.bits_per_byte.get(corpus) for m in facts.milestones]
    known = [score for score in (base, *after) if score is not None]
    items = next((score.documents for score in known if score.documents is not None), None)
    about = f"{count_text(items)} documents" if items is not None else ""
    metric = f"{BITS}.{corpus}"
    head = Cell(_named(metric)[0], metric, about)
    return _row(facts, head, _bits(base), [*map(_bits, after)], digits=3, lower_is_better=True)


def _bits(score: HeldOutScore | None) -> Cell:
    return Cell(decimal_text(score.bits_per_byte, 3), score.bits_per_byte) if score else _UNMEASURED


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
    head = Cell(name, name, ", ".join(about))
    return _row(facts, head, _score(base), [*map(_score, after)], digits=4, lower_is_better=False)


def _score(score: BenchmarkScore | None) -> Cell:
    if score is None:
        return _UNMEASURED
    error = [] if score.stderr is None else [f"±{NO_BREAK}{decimal_text(score.stderr, 4)}"]
    flags = [flag.replace(" ", NO_BREAK, 1) for flag in flags_of(score)]
    return Cell(decimal_text(score.score, 4), score.score, ", ".join(error + flags))


def _row(
    facts: ReportFacts, head: Cell, base: Cell, after: list[Cell], *, digits: int, lower_is_better: bool
) -> tuple[Cell, ...]:
    """A metric's row: of `head`, whose value names the metric, the base's cell and the milestones'."""
    cells = [head]
    if facts.base:
        cells.append(base)
    for milestone, score in zip(facts.milestones, after, strict=True):
        cells.append(score)
        if facts.base:
            both = base.value is not None and score.value is not None
            delta = milestone.deltas.get(str(head.value))
            cells.append(_change(delta, digits=digits, has_both=both, lower_is_better=lower_is_better))
    return tuple(cells)


def _group_row(facts: ReportFacts, name: str) -> tuple[Cell, ...]:
    changes = [milestone.groups.get(name) for milestone in facts.milestones]
    known = [change for change in changes if change is not None]
    cells = [Cell(f"Mean, {name}", f"mean.{name}", ", ".join(known[0].benchmarks))]
    if facts.base:
        cells.append(Cell(decimal_text(known[0].base, 4), known[0].base))
    for change in changes:
        cells.append(Cell(decimal_text(change.score, 4), change.score) if change else _UNMEASURED)
        if facts.base:
            cells.append(_change(change, digits=4, has_both=False, lower_is_better=False))
    return tuple(cells)


def _change(delta: Delta | GroupChange | None, *, digits: int, has_both: bool, lower_is_better: bool) -> Cell:
    kind = kind_of(delta=delta, has_both=has_both, lower_is_better=lower_is_better)
    if delta is None:
        return Cell(NOTHING, note=kind, kind=kind)
    told = [_interval(delta.low, delta.high, digits)]
    if isinstance(delta, GroupChange) and delta.relative is not None:
        low, high = _percent(delta.relative_low), _percent(delta.relative_high)
        told.append(f"{_percent(delta.relative)} ({low}{NO_BREAK}to{NO_BREAK}{high})")
    told.append(f"corrected {p_text(delta.p_holm)}")
    told.append("not separable".replace(" ", NO_BREAK) if kind == "inseparable" else kind)
    if kind == "inseparable" and isinstance(delta, Delta) and delta.smallest is not None:
        shown = decimal_text(delta.smallest, digits)
        told[-1] += f" (could have shown {shown})"
    return Cell(decimal_text(delta.difference, digits, sign=True), delta.difference, ", ".join(told), kind)


def _interval(low: float, high: float, digits: int) -> str:
    return f"{NO_BREAK}to{NO_BREAK}".join(decimal_text(bound, digits, sign=True) for bound in (low, high))


def _percent(fraction: float | None) -> str:
    return NOTHING if fraction is None else f"{decimal_text(100 * fraction, 1, sign=True)}%"
