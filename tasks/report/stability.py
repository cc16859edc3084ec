"""The figure of the stability gap: how the held-out slices fared during the trainings."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from tasks.report.facts import MilestoneFacts
from tasks.report.numbers import decimal_text, percent_text
from tasks.report.svg import DASHES, INK, SERIES, Drawing, legend, svg_of, unit_title
from tasks.store.json import JSON
from tasks.store.tokens import format_tokens

_LINEAR = 0.01
"""Up to here the axis is linear, then logarithmic: what happens happens early."""


def draw_stability(milestones: Sequence[MilestoneFacts]) -> list[Drawing]:
    """The change of bits per byte since a training's start, a line a slice and milestone; or nothing."""
    lines: list[JSON] = []
    for number, milestone in enumerate(milestones):
        for corpus, stability in milestone.stability.items():
            start = stability.points[0].bits_per_byte
            points: list[JSON] = [
                {"fraction": p.fraction, "tokens": p.tokens, "change": p.bits_per_byte - start}
                | {"low": p.low, "high": p.high}
                for p in stability.points
            ]
            label = corpus if len(milestones) == 1 else f"{corpus}, {format_tokens(milestone.budget)}"
            gap = {"dip": stability.dip, "depth": stability.depth, "recovery": stability.recovery}
            lines.append({"label": label, "corpus": corpus, "number": number, **gap, "points": points})
    if not lines:
        return []

    def paint(axes: Axes) -> None:
        axes.axhline(0, color=INK, linewidth=0.8)
        for line in lines:
            colour = SERIES[0 if line["corpus"] == "domain" else 1]
            at = [point["fraction"] for point in line["points"]]
            axes.plot(
                at,
                [point["change"] for point in line["points"]],
                color=colour,
                linestyle=DASHES[line["number"] % len(DASHES)],
                linewidth=1.6,
                marker="o" if line["corpus"] == "domain" else "s",
                markersize=4,
                clip_on=False,
                label=line["label"],
            )
            for point in line["points"]:
                if point["low"] is not None:
                    ends = (point["fraction"], point["low"], point["high"])
                    axes.vlines(*ends, color=colour, linewidth=1.2, clip_on=False)
        axes.set_xscale("symlog", linthresh=_LINEAR, linscale=0.5)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_locator(FixedLocator([0, 0.01, 0.1, 1]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        axes.set_xlabel("of the milestone's steps")
        axes.margins(y=0.12)
        unit_title(axes, "lower is better")
        legend(axes)

    name, title = "stability", "Stability gap"
    caption = "Change of held-out bits per byte during training, since its start; bars: 95% intervals. "
    caption += " ".join(_told(line) for line in lines)
    data: JSON = {"unit": "change of bits per byte", "lines": lines}
    return [Drawing(name, title, caption, svg_of(name, title, paint), data)]


def _told(line: JSON) -> str:
    """The gap of one line in a sentence."""
    if line["dip"] is None:
        return f"{line['label']}: never worse than at the start."
    worst = next(point for point in line["points"] if point["fraction"] == line["dip"])
    depth, low, high = (
        decimal_text(worst[end], 3, sign=True) if worst[end] is not None else "unknown"
        for end in ("change", "low", "high")
    )
    regained = "all" if line["recovery"] >= 1 else f"{line['recovery']:.0%}"
    return (
        f"{line['label']}: worst after {percent_text(line['dip'])} of the steps, {depth} (95% interval {low} "
        f"to {high}), of which {regained} was regained by the end."
    )
