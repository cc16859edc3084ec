"""The figures of a report as SVG for inlining, and the numbers each one draws.

Theme: matplotlib draws with stand-in colours, which become CSS variables of the page afterwards, so one
figure reads in light and dark. Text stays text. The same numbers give the same bytes: a fixed hash salt, no
metadata, defaults instead of the machine's matplotlibrc. The only module that imports matplotlib (0.5 s).
"""

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tasks.report.config import BITS, Corpus, ReportFacts, StageFacts
from tasks.report.numbers import count_text
from tasks.store.json import JSON
from tasks.store.tokens import format_tokens

MAX_POINTS = 400
"""Of one line: more cannot be told apart at this width; longer curves are averaged over runs of steps."""

INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
SERIES = ("#050501", "#050502", "#050503", "#050504")
VARIABLES = {INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--line)", PAPER: "var(--paper)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, 1)
}
DASHES = ("-", "--", ":", "-.")

RC = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.borderaxespad": 0,
    "lines.solid_capstyle": "round",
}

WIDTH, HEIGHT = 5.4, 3.5
"""Inches at 72 points: two abreast on a desk, one on a phone, text about as large as the page's on both."""


Curves = Mapping[int, Sequence[tuple[float, float | None]]]
"""By a milestone's budget: tokens trained, and the value there (None: not finite)."""

MARGIN = 10
"""Points around a figure that stands without the page."""
LIGHT = {
    "currentColor": "#1c2126",
    "var(--muted)": "#5c6670",
    "var(--line)": "#e2e6ea",
    "var(--paper)": "#ffffff",
    "var(--series-1)": "#1f6fbf",
    "var(--series-2)": "#c2570c",
    "var(--series-3)": "#0f7f6c",
    "var(--series-4)": "#7d4cc2",
}
"""The page's light colours, for a figure that stands without the page."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure: its SVG element for inlining, and what it draws."""

    name: str
    title: str
    caption: str
    svg: str
    data: JSON
    """The plotted points, as drawn."""


def draw(facts: ReportFacts) -> list[Drawing]:
    """All figures that have something to show."""
    drawings = [
        draw_loss({m.budget: [(p.tokens, p.loss) for p in m.curve] for m in facts.milestones}),
        _curve_drawing(
            "learning_rate",
            "Learning rate",
            "",
            {m.budget: [(p.tokens, p.learning_rate) for p in m.curve] for m in facts.milestones},
        ),
        _bits_drawing(facts),
        *(
            _funnel_drawing(corpus, [stage for stage in facts.funnel if stage.corpus == corpus])
            for corpus in ("domain", "general")
        ),
    ]
    return [drawing for drawing in drawings if drawing is not None]


def draw_loss(curves: Curves) -> Drawing | None:
    """The loss of trainings, also of one that still runs; None: there is none yet."""
    return _curve_drawing("loss", "Training loss", "nats a token", curves)


def _curve_drawing(name: str, title: str, unit: str, curves: Curves) -> Drawing | None:
    """One line a milestone, by tokens trained."""
    lines: list[JSON] = []
    for budget, curve in curves.items():
        points = [(tokens, value) for tokens, value in curve if value is not None]
        if points:
            lines.append({"label": format_tokens(budget), "budget": budget, "points": thinned(points)})
    if not lines:
        return None

    def paint(axes: Axes) -> None:
        for number, line in enumerate(lines):
            tokens, plotted = zip(*line["points"], strict=True)
            axes.plot(
                tokens,
                plotted,
                color=SERIES[number % len(SERIES)],
                linestyle=DASHES[number // len(SERIES) % len(DASHES)],
                linewidth=1.6,
                marker="o" if len(tokens) == 1 else "",
                markersize=4,
                label=line["label"],
            )
        _tokens_axis(axes)
        if unit:
            _unit(axes, unit)
        if name == "learning_rate":
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        if len(lines) > 1:
            _legend(axes)

    caption = f"{title} by tokens trained, one line a milestone."
    if any(len(curve) > MAX_POINTS for curve in curves.values()):
        caption += " Long curves are averaged over equal runs of steps."
    return Drawing(name, title, caption, _svg(name, title, paint), {"unit": unit, "lines": lines})


def thinned(points: Sequence[tuple[float, float]], most: int = MAX_POINTS) -> list[list[float]]:
    """At most `most` points: the last x and the mean y of equal runs, all of them where they fit."""
    if len(points) <= most:
        return [list(point) for point in points]
    runs = np.array_split(np.asarray(points, dtype=np.float64), most)
    return [[float(run[-1, 0]), float(run[:, 1].mean())] for run in runs]


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
            points, colour = line["points"], SERIES[number]
            axes.plot(
                [p["tokens"] for p in points],
                [p["bits_per_byte"] for p in points],
                color=colour,
                linewidth=1.6,
                marker="os"[number],
                markersize=5,
                clip_on=False,
                label=line["label"],
            )
            for p in points:
                if p["low"] is not None:
                    axes.vlines(p["tokens"], p["low"], p["high"], color=colour, linewidth=1.2)
            if points[0]["tokens"] == 0:
                axes.axhline(points[0]["bits_per_byte"], color=colour, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.margins(y=0.12)
        _tokens_axis(axes)
        _unit(axes, "lower is better")
        _legend(axes)

    caption = "Held-out bits per byte by tokens trained."
    if facts.base:
        caption += " Dotted: the base. Bars: the 95% interval of the change against it, where computed."
    return Drawing(
        "bits_per_byte",
        "Held-out bits per byte",
        caption,
        _svg(BITS, "bits per byte", paint),
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
        point: JSON = {"tokens": milestone.tokens_trained, "bits_per_byte": score.bits_per_byte}
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
    return Drawing(name, title, caption, _svg(name, title, paint), {"unit": "documents", "bars": bars})


def _tokens_axis(axes: Axes) -> None:
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    axes.set_xlabel("tokens trained")


def _tick(tokens: float) -> str:
    suffix, scale = next((s for s in (("B", 1e9), ("M", 1e6), ("K", 1e3)) if tokens >= s[1]), ("", 1))
    return f"{tokens / scale:g}{suffix}"


def _unit(axes: Axes, unit: str) -> None:
    """Above the axis, lying: a standing label costs a phone's width."""
    axes.set_title(unit, loc="left", fontsize=10.5, color=MUTED)


def _legend(axes: Axes) -> None:
    """Above the axes, where no line can run through it."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1.01), ncols=3, columnspacing=1.2, handletextpad=0.5)


def _svg(name: str, label: str, paint: Callable[[Axes], None]) -> str:
    with style.context(["default", RC | {"svg.hashsalt": name}]):
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=72, layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure.add_subplot())
        with io.StringIO() as out:
            figure.savefig(
                out,
                format="svg",
                transparent=True,
                metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
            )
            text = out.getvalue()
    return inlined(text, name=name, label=label)


def inlined(text: str, *, name: str, label: str) -> str:
    """Make matplotlib's SVG document an element of a page: no addresses, own ids, the page's colours."""
    text = text[text.index("<svg") :]
    # A <style> in an inlined SVG is the whole page's; the page's own says the same of its figures.
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s*xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text))
    kept = {first or second for first, second in used}
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in kept else "", text)
    text = text.replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    text = re.sub(r"font-family: [^;\"]*(; )?", "", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    opening = text.index(">")
    head = re.sub(r' (width|height|version)="[^"]*"', "", text[:opening])
    return f'{head} role="img" aria-label="{label}"{text[opening:].strip()}\n'


def image_address(drawing: Drawing) -> str:
    """A figure as a picture of its own, on paper, in a `data:` address."""
    svg = drawing.svg
    for variable, colour in LIGHT.items():
        svg = svg.replace(variable, colour)
    svg = re.sub(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', _with_margin, svg, count=1)
    size = f'width="{1.4 * WIDTH * 72:g}" height="{1.4 * HEIGHT * 72:g}"'
    look = f"background:{LIGHT['var(--paper)']};font-family:system-ui,sans-serif"
    svg = svg.replace("<svg", f'<svg xmlns="http://www.w3.org/2000/svg" {size} style="{look}"', 1)
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _with_margin(box: re.Match[str]) -> str:
    return f'viewBox="{-MARGIN} {-MARGIN} {float(box[1]) + 2 * MARGIN:g} {float(box[2]) + 2 * MARGIN:g}"'
