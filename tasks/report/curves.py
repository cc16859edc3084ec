"""The figures that follow a training by the tokens its model has seen, one line a milestone.

Where each milestone is trained from the base (`restart`), all lines begin at 0. Where a larger one goes on
from a smaller one (`extend`), its line begins where it took over: the axis is the model's whole history.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tasks.report.facts import MilestoneFacts
from tasks.report.numbers import bytes_text
from tasks.report.svg import DASHES, MUTED, SERIES, Drawing, legend, svg_of, tick, tokens_axis, unit_title
from tasks.store.json import JSON
from tasks.store.tokens import format_tokens

MAX_POINTS = 400
"""Of one line: more cannot be told apart at this width; longer curves are averaged over runs of steps."""

Points = Sequence[tuple[float, float | None]]
Curves = Mapping[int, Points]
"""By a milestone's budget: tokens the model has seen, and the value there (None: not finite)."""

_AVERAGED = " Long curves are averaged over equal runs of steps."


def loss_curves(milestones: Sequence[MilestoneFacts]) -> Curves:
    """Each milestone's own part of its loss."""
    return {m.budget: [(point.tokens, point.loss) for point in m.own_curve] for m in milestones}


def draw_loss(curves: Curves) -> Drawing | None:
    """The loss of trainings, also of one that still runs; None: there is none yet."""
    lines = _lines(curves)
    if not lines:
        return None
    caption = "Training loss by tokens the model has seen, one line a milestone."
    if any(len(curve) > MAX_POINTS for curve in curves.values()):
        caption += _AVERAGED

    def paint(axes: Axes) -> None:
        _paint_lines(axes, lines)
        unit_title(axes, "nats a token")

    data: JSON = {"unit": "nats a token", "lines": lines}
    return Drawing("loss", "Training loss", caption, svg_of("loss", "Training loss", paint), data)


def draw_learning_rate(milestones: Sequence[MilestoneFacts]) -> Drawing | None:
    """The schedule over the whole history: a milestone that goes on from another is joined to it."""
    curves: dict[int, Points] = {}
    before: MilestoneFacts | None = None
    for m in milestones:
        points = [(point.tokens, point.learning_rate) for point in m.own_curve]
        if before and m.tokens_before:
            left = [p for p in before.curve if p.tokens <= m.tokens_before]
            points = [(p.tokens, p.learning_rate) for p in left[-1:]] + points
        curves[m.budget], before = points, m
    lines = _lines(curves)
    if not lines:
        return None
    ends: list[JSON] = [{"label": format_tokens(m.budget), "tokens": m.tokens_seen} for m in milestones]
    caption = (
        "Learning rate by tokens the model has seen, over the whole history. Dotted: where a milestone ends."
    )

    def paint(axes: Axes) -> None:
        _paint_lines(axes, lines)
        for end in ends:
            axes.axvline(end["tokens"], color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
        _from_zero(axes, lines)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))

    name, title = "learning_rate", "Learning rate"
    return Drawing(
        name, title, caption, svg_of(name, title, paint), {"unit": "", "lines": lines, "ends": ends}
    )


def draw_throughput(milestones: Sequence[MilestoneFacts]) -> Drawing | None:
    """Tokens a second of all ranks."""
    curves = {m.budget: [(point.tokens, point.tokens_per_s) for point in m.measured] for m in milestones}
    lines = _lines(curves)
    if not lines:
        return None

    def paint(axes: Axes) -> None:
        _paint_lines(axes, lines)
        unit_title(axes, "tokens a second")
        _from_zero(axes, lines)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))

    caption = "Tokens a second over all ranks, by tokens the model has seen."
    known = [point.mfu for m in milestones for point in m.measured if point.mfu is not None]
    if known:
        caption += (
            f" The median of the share of the devices' peak (MFU) is {100 * float(np.median(known)):.1f}%."
        )
    name, title = "throughput", "Throughput"
    data: JSON = {"unit": "tokens/s", "lines": lines}
    return Drawing(name, title, caption, svg_of(name, title, paint), data)


_MEMORY = {
    "allocated_bytes": "device, in tensors",
    "reserved_bytes": "device, reserved",
    "rss_bytes": "host",
}


def draw_memory(milestones: Sequence[MilestoneFacts]) -> Drawing | None:
    """Memory of one rank: of the device where there is one, and of the process on the host."""
    lines: list[JSON] = []
    for kind, label in _MEMORY.items():
        for line in _lines(
            {m.budget: [(p.tokens, getattr(p, kind)) for p in m.measured] for m in milestones}
        ):
            lines.append(line | {"label": label, "milestone": line["label"]})
    if not lines:
        return None
    kinds = list(dict.fromkeys(line["label"] for line in lines))

    def paint(axes: Axes) -> None:
        for line in lines:
            number = kinds.index(line["label"])
            first = line["budget"] == min(other["budget"] for other in lines)
            _paint_line(axes, line, number, label=line["label"] if first else None)
        tokens_axis(axes)
        _from_zero(axes, lines)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: bytes_text(value)))
        legend(axes)

    caption = "The most memory that the first rank held, by tokens its model has seen."
    name, title = "memory", "Memory"
    return Drawing(name, title, caption, svg_of(name, title, paint), {"unit": "bytes", "lines": lines})


def _lines(curves: Curves) -> list[JSON]:
    """Those that have a value, as they are drawn."""
    lines: list[JSON] = []
    for budget, curve in curves.items():
        points = [(tokens, value) for tokens, value in curve if value is not None]
        if points:
            lines.append({"label": format_tokens(budget), "budget": budget, "points": thinned(points)})
    return lines


def _from_zero(axes: Axes, lines: Sequence[JSON]) -> None:
    axes.set_ylim(0, 1.08 * max(value for line in lines for _, value in line["points"]) or 1)


def _paint_lines(axes: Axes, lines: Sequence[JSON]) -> None:
    for number, line in enumerate(lines):
        _paint_line(axes, line, number, label=line["label"])
    tokens_axis(axes)
    if len(lines) > 1:
        legend(axes)


def _paint_line(axes: Axes, line: JSON, number: int, *, label: str | None) -> None:
    tokens, plotted = zip(*line["points"], strict=True)
    axes.plot(
        tokens,
        plotted,
        color=SERIES[number % len(SERIES)],
        linestyle=DASHES[number // len(SERIES) % len(DASHES)],
        linewidth=1.6,
        marker="o" if len(tokens) == 1 else "",
        markersize=4,
        label=label,
    )


def thinned(points: Sequence[tuple[float, float]], most: int = MAX_POINTS) -> list[list[float]]:
    """At most `most` points: the last x and the mean y of equal runs, all of them where they fit."""
    if len(points) <= most:
        return [list(point) for point in points]
    runs = np.array_split(np.asarray(points, dtype=np.float64), most)
    return [[float(run[-1, 0]), float(run[:, 1].mean())] for run in runs]
