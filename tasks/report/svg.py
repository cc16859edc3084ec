"""Figures as SVG for inlining: how they look, and how a drawing becomes an element of the page.

Theme: matplotlib draws with stand-in colours, which become CSS variables of the page afterwards, so one
figure reads in light and dark. Text stays text. The same numbers give the same bytes: a fixed hash salt, no
metadata, defaults instead of the machine's matplotlibrc. The only module that imports matplotlib (0.5 s).
"""

import base64
import io
import re
from collections.abc import Callable
from dataclasses import dataclass

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tasks.store.json import JSON

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


def svg_of(name: str, label: str, paint: Callable[[Axes], None]) -> str:
    """A figure as an element of a page.

    Args:
        name: of the figure: its ids begin so.
        label: read out where it is not seen.
        paint: draws on the axes.
    """
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


def tokens_axis(axes: Axes) -> None:
    """Tokens trained, from 0."""
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    axes.set_xlabel("tokens trained")


def tick(value: float) -> str:
    """A round number on an axis: 400M."""
    suffix, scale = next((s for s in (("B", 1e9), ("M", 1e6), ("K", 1e3)) if value >= s[1]), ("", 1))
    return f"{value / scale:g}{suffix}"


def unit_title(axes: Axes, unit: str) -> None:
    """Above the axis, lying: a standing label costs a phone's width."""
    axes.set_title(unit, loc="left", fontsize=10.5, color=MUTED)


def legend(axes: Axes) -> None:
    """Above the axes, where no line can run through it."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1.01), ncols=3, columnspacing=1.2, handletextpad=0.5)
