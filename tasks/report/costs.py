"""The tables of what models took and cost, and of what each milestone added to the one before. Pure."""

from collections.abc import Iterable

import numpy as np

from tasks.report.cells import Cell, Column, Table, count, duration, size
from tasks.report.facts import MilestoneFacts, ReportFacts
from tasks.report.numbers import NOTHING, percent_text, short_text
from tasks.store.tokens import format_tokens

_HOUR = 3600


def trainings_table(facts: ReportFacts) -> Table:
    """A row a model: what training and evaluating it took."""
    rows = []
    if facts.base and facts.base.evaluation_seconds is not None:
        nothing = (Cell(NOTHING),) * 6
        rows.append((Cell("Base", "base"), *nothing, duration(facts.base.evaluation_seconds)))
    for m in facts.milestones:
        shares = [point.mfu for point in m.measured if point.mfu is not None]
        mfu = float(np.median(shares)) if shares else None
        device = [point.reserved_bytes for point in m.measured if point.reserved_bytes is not None]
        rows.append(
            (
                Cell(f"{format_tokens(m.budget)} tokens", m.budget),
                duration(m.seconds),
                Cell(short_text(m.tokens_per_s), m.tokens_per_s),
                Cell(percent_text(mfu), mfu),
                count(m.ranks),
                size(m.peak_rss_bytes),
                size(max(device, default=None)),
                duration(m.evaluation_seconds),
            )
        )
    titles = ("Training", "Tokens/s", "MFU", "Ranks", "Peak memory, host", "Device", "Evaluation")
    columns = (Column("Model", numeric=False), *map(Column, titles))
    note = (
        "MFU: the median share of the devices' peak, where it is known. Peak memory: of the largest rank on "
        "the host; reserved on the first rank's device. Evaluation: summed over its units, which run at once."
    )
    return Table("trainings", "What the models took", columns, tuple(rows), (note,))


def costs_table(facts: ReportFacts) -> Table:
    """A row a part of the work: its time, and the devices it had."""
    parts: list[tuple[str, float | None, float | None, float | None]] = []
    if facts.funnel:
        data = sum(stage.seconds for stage in facts.funnel)
        parts.append(("Data", data, None, data))
    if facts.base and facts.base.evaluation_seconds is not None:
        parts.append(
            ("Base, evaluation", facts.base.evaluation_seconds, facts.base.evaluation_gpu_seconds, None)
        )
    for m in facts.milestones:
        label = f"{format_tokens(m.budget)} tokens"
        parts.append((f"{label}, training", m.seconds, m.gpu_seconds, m.core_seconds))
        parts.append((f"{label}, evaluation", m.evaluation_seconds, m.evaluation_gpu_seconds, None))
    parts = [part for part in parts if any(value is not None for value in part[1:])]
    if len(parts) > 1:
        seconds, on_gpus, on_cores = (_summed(part[at] for part in parts) for at in (1, 2, 3))
        parts.append(("All", seconds, on_gpus, on_cores))
    rows = tuple(
        (Cell(name, name), duration(seconds), _hours(on_gpus), _hours(on_cores))
        for name, seconds, on_gpus, on_cores in parts
    )
    columns = (Column("", numeric=False), Column("Time"), Column("GPU-hours"), Column("CPU core-hours"))
    notes = (
        "Time: of a training by the clock, without what was lost when it was interrupted; of data and "
        "evaluations summed over shards and units, which run at once.",
        "GPU-hours: ranks times the time of a training's steps, and an evaluation's time where it ran on a "
        "GPU. CPU core-hours: the data's time, and cores times the time of the steps of a training without "
        "GPUs; evaluations on a CPU are not counted. Energy is not measured.",
    )
    return Table("costs", "Cost", columns, rows, notes)


def _summed(values: Iterable[str | float | None]) -> float | None:
    known = [value for value in values if isinstance(value, int | float)]
    return sum(known) if known else None


def _hours(seconds: float | None) -> Cell:
    hours = None if seconds is None else seconds / _HOUR
    return Cell(short_text(hours), hours)


def added_table(facts: ReportFacts) -> Table:
    """A row a milestone: what it has that the one before has not."""
    rows = []
    for before, m in zip([None, *facts.milestones], facts.milestones, strict=False):
        rows.append(
            (
                Cell(format_tokens(m.budget), m.budget),
                *(count(_more(m, before, name)) for name in ("shards", "documents", "tokens")),
                duration(_more(m, before, "data_seconds")),
                count(m.tokens_trained),
                duration(m.seconds),
                duration(m.evaluation_seconds),
            )
        )
    titles = ("Shards", "Documents", "Tokens in corpus", "Data", "Tokens trained", "Training", "Evaluation")
    note = (
        "Against the milestone before. Documents: all of the shards it added, also where only their first "
        "rows are used. Data, training, evaluation: the time they took."
    )
    columns = (Column("Milestone"), *map(Column, titles))
    return Table("added", "What each milestone added", columns, tuple(rows), (note,))


def _more(m: MilestoneFacts, before: MilestoneFacts | None, name: str) -> float | None:
    """Than the milestone before; all of it for the first."""
    value, least = getattr(m, name), getattr(before, name) if before else 0
    return None if value is None or least is None else value - least
