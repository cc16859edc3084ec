"""The figures of a report, and the numbers each one draws: what became of documents, and of the scores."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from tasks.report.curves import draw_learning_rate, draw_loss, draw_memory, draw_throughput, loss_curves
from tasks.report.facts import ReportFacts, StageFacts
from tasks.report.numbers import count_text
from tasks.report.scored import BITS, Corpus
from tasks.report.svg import DASHES, INK, MUTED, SERIES, Drawing, legend, svg_of, tokens_axis, unit_title
from tasks.store.json import JSON

_BESIDE = 0.008
"""Of the axis, from one line with intervals to the next."""


def draw(facts: ReportFacts) -> list[Drawing]:
    """All figures that have something to show."""
    drawings = [
        draw_loss(loss_curves(facts.milestones)),
        draw_learning_rate(facts.milestones),
        _change_drawing(facts),
        _bits_drawing(facts),
        draw_throughput(facts.milestones),
        draw_memory(facts.milestones),
        *(
            _funnel_drawing(corpus, [stage for stage in facts.funnel if stage.corpus == corpus])
            for corpus in ("domain", "general")
        ),
    ]
    return [drawing for drawing in drawings if drawing is not None]


def _change_drawing(facts: ReportFacts) -> Drawing | None:
    """Relative change of each group of benchmarks by tokens seen, the base at 0, with paired intervals."""
    lines: list[JSON] = []
    for group in dict.fromkeys(name for m in facts.milestones for name in m.groups):
        points: list[JSON] = [{"tokens": 0, "relative": 0.0, "low": None, "high": None}]
        found = [(m.tokens_seen, m.groups[group]) for m in facts.milestones if group in m.groups]
        points += [
            {
                "tokens": tokens,
                "relative": change.relative,
                "low": change.relative_low,
                "high": change.relative_high,
            }
            for tokens, change in found
            if change.relative is not None
        ]
        if len(points) > 1:
            lines.append({"label": group, "benchmarks": found[-1][1].benchmarks, "points": points})
    if not lines:
        return None

    def paint(axes: Axes) -> None:
        for number, line in enumerate(lines):
            _paint_with_intervals(axes, line, "relative", number)
        axes.axhline(0, color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.margins(y=0.12)
        tokens_axis(axes)
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{100 * value:+.3g}%" if value else "0")
        )
        unit_title(axes, "against the base")
        legend(axes)

    name, title = "change", "Benchmarks, relative change"
    told = "; ".join(f"{line['label']}: {', '.join(line['benchmarks'])}" for line in lines)
    caption = (
        "Relative change of each group's mean accuracy against the base, by tokens the model has seen; bars "
        f"are 95% intervals. {told[:1].upper()}{told[1:]}."
    )
    data: JSON = {"unit": "score / base - 1", "lines": lines}
    return Drawing(name, title, caption, svg_of(name, title, paint), data)


def _paint_with_intervals(axes: Axes, line: JSON, key: str, number: int) -> None:
    points, colour = line["points"], SERIES[number % len(SERIES)]
    # a little beside each other: intervals at the same tokens would hide one another
    beside = _BESIDE * number * max(p["tokens"] for p in points)
    axes.plot(
        [p["tokens"] + beside for p in points],
        [p[key] for p in points],
        color=colour,
        linestyle=DASHES[number // len(SERIES) % len(DASHES)],
        linewidth=1.6,
        marker="os^D"[number % 4],
        markersize=5,
        clip_on=False,
        label=line["label"],
    )
    for p in points:
        if p["low"] is not None:
            axes.vlines(p["tokens"] + beside, p["low"], p["high"], color=colour, linewidth=1.2)


def _bits_drawing(facts: ReportFacts) -> Drawing | None:
    """Bits per byte by tokens trained, a line a slice, the base at 0; bars are the paired interval's."""
    lines: list[JSON] = []
    corpora: tuple[Corpus, ...] = ("domain", "general")
    for corpus in corpora:
        points = _bits_points(facts, corpus)
        if points:
            lines.append({"label": corpus, "points": points})
    if all(len(line["points"]) < 2 for line in lines):
        return None  # one model: the scores table says it all

    def paint(axes: Axes) -> None:
        for number, line in enumerate(lines):
            _paint_with_intervals(axes, line, BITS, number)
            points, colour = line["points"], SERIES[number]
            if points[0]["tokens"] == 0:
                axes.axhline(points[0]["bits_per_byte"], color=colour, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.margins(y=0.12)
        tokens_axis(axes)
        unit_title(axes, "lower is better")
        legend(axes)

    caption = "Held-out bits per byte by tokens the model has seen."
    if facts.base:
        caption += " Dotted: the base. Bars: the 95% interval of the change against it, where computed."
    return Drawing(
        "bits_per_byte",
        "Held-out bits per byte",
        caption,
        svg_of(BITS, "bits per byte", paint),
        {"unit": "bits per byte", "lines": lines},
    )


def _bits_points(facts: ReportFacts, corpus: Corpus) -> list[JSON]:
    base = facts.base.scores.bits_per_byte.get(corpus) if facts.base else None
    points: list[JSON] = []
    if base:
        points.append({"tokens": 0, "bits_per_byte": base.bits_per_byte, "low": None, "high": None})
    for milestone in facts.milestones:
        score = milestone.scores.bits_per_byte.get(corpus)
        if score is None:
            continue
        point: JSON = {"tokens": milestone.tokens_seen, "bits_per_byte": score.bits_per_byte}
        delta = milestone.deltas.get(f"{BITS}.{corpus}")
        point["low"] = base.bits_per_byte + delta.low if base and delta else None
        point["high"] = base.bits_per_byte + delta.high if base and delta else None
        points.append(point)
    return points


def _funnel_drawing(corpus: Corpus, stages: Sequence[StageFacts]) -> Drawing | None:
    """Documents after each stage."""
    if not stages:
        return None
    bars: list[JSON] = [{"stage": "found", "documents": stages[0].documents_in}]
    bars += [{"stage": stage.stage, "documents": stage.documents_out} for stage in stages]
    largest = max(bar["documents"] for bar in bars) or 1

    def paint(axes: Axes) -> None:
        rows = range(len(bars))
        axes.barh(
            rows,
            [bar["documents"] for bar in bars],
            height=0.62,
            color=SERIES[0 if corpus == "domain" else 1],
        )
        for row, bar in zip(rows, bars, strict=True):
            axes.annotate(
                count_text(bar["documents"]),
                (bar["documents"], row),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
            )
        axes.set_yticks(rows, [bar["stage"] for bar in bars])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(max(len(bars), 6) - 0.5, -0.5)  # few bars are no thicker than many
        axes.set_xlim(0, largest * 1.25)
        axes.xaxis.set_visible(False)
        axes.grid(visible=False)
        axes.spines[["bottom", "left"]].set_visible(False)

    name, title = f"funnel_{corpus}", f"Documents kept, {corpus} corpus"
    caption = f"Documents left after each stage of the {corpus} corpus."
    return Drawing(name, title, caption, svg_of(name, title, paint), {"unit": "documents", "bars": bars})
