"""The tables of what models took and cost, and of what each milestone added to the one before. Pure."""

from collections.abc import Sequence

import numpy as np

from tasks.report.cells import Cell, Column, Table, count, duration, size
from tasks.report.facts import MilestoneFacts, ReportFacts, Spent
from tasks.report.numbers import NOTHING, percent_text, short_text
from tasks.store.tokens import format_tokens

_HOUR = 3600
_KWH = 3.6e6
_ENERGY = {"kWh, GPUs": "gpu_joules", "kWh, processors": "host_joules"}
"""Columns that stand where anything is known, with what is in them."""


def trainings_table(facts: ReportFacts) -> Table:
    """A row a model: what training and evaluating it took."""
    rows = []
    if facts.base and facts.base.evaluation.seconds is not None:
        nothing = (Cell(NOTHING),) * 6
        rows.append((Cell("Base", "base"), *nothing, duration(facts.base.evaluation.seconds)))
    for m in facts.milestones:
        shares = [point.mfu for point in m.measured if point.mfu is not None]
        mfu = float(np.median(shares)) if shares else None
        device = [point.reserved_bytes for point in m.measured if point.reserved_bytes is not None]
        rows.append(
            (
                Cell(f"{format_tokens(m.budget)} tokens", m.budget),
                duration(m.training.seconds),
                Cell(short_text(m.tokens_per_s), m.tokens_per_s),
                Cell(percent_text(mfu), mfu),
                count(m.ranks),
                size(m.peak_rss_bytes),
                size(max(device, default=None)),
                duration(m.evaluation.seconds),
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
    """A row a part of the work: its time, the devices it had, and their energy where it was counted."""
    parts: list[tuple[str, Spent]] = []
    if facts.funnel:
        data = sum(stage.seconds for stage in facts.funnel)
        parts.append(("Data", Spent(seconds=data, core_seconds=data)))
    if facts.base:
        parts.append(("Base, evaluation", facts.base.evaluation))
    for m in facts.milestones:
        label = f"{format_tokens(m.budget)} tokens"
        parts += [(f"{label}, training", m.training), (f"{label}, evaluation", m.evaluation)]
    parts = [(name, spent) for name, spent in parts if spent != Spent()]
    if len(parts) > 1:
        parts.append(("All", _summed([spent for _, spent in parts])))
    counted = [title for title in _ENERGY if any(getattr(s, _ENERGY[title]) is not None for _, s in parts)]
    rows = tuple(
        (
            Cell(name, name),
            duration(spent.seconds),
            _scaled(spent.gpu_seconds, _HOUR),
            _scaled(spent.core_seconds, _HOUR),
            *(_scaled(getattr(spent, _ENERGY[title]), _KWH) for title in counted),
        )
        for name, spent in parts
    )
    columns = (Column("", numeric=False), *map(Column, ("Time", "GPU-hours", "CPU core-hours", *counted)))
    energy = (
        "Energy: of trainings, by the machine's own counters; that of processors and memory with all else "
        "that ran on them."
        if counted
        else "Energy: no counter of it could be read."
    )
    notes = (
        "Time: of a training by the clock, without what was lost when it was interrupted; of data and "
        "evaluations summed over shards and units, which run at once.",
        "GPU-hours: ranks times the time of a training's steps, and an evaluation's time where it ran on a "
        "GPU. CPU core-hours, of what ran on no GPU: the data's time, cores times the time of a training's "
        "steps, and what an evaluation's process used of its cores.",
        energy,
    )
    return Table("costs", "Cost", columns, rows, notes)


def _summed(parts: Sequence[Spent]) -> Spent:
    total = {}
    for name in Spent.model_fields:
        known = [value for spent in parts if (value := getattr(spent, name)) is not None]
        total[name] = sum(known) if known else None
    return Spent(**total)


def _scaled(value: float | None, unit: float) -> Cell:
    scaled = None if value is None else value / unit
    return Cell(short_text(scaled), scaled)


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
                duration(m.training.seconds),
                duration(m.evaluation.seconds),
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
