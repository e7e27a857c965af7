"""Charts of a report as SVG in the colours of the page, light or dark."""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
from markupsafe import escape
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unfreeze.models.evaluation.plots import shown
from unfreeze.models.evaluation.results import Chart

INK, FAINT, GRID = "#010101", "#010102", "#010103"
SERIES = ("#010110", "#010111", "#010112", "#010113", "#010114")
VARIABLES = {INK: "--ink", FAINT: "--faint", GRID: "--line"} | {
    colour: f"--series-{number}" for number, colour in enumerate(SERIES, 1)
}
"""Placeholder colours -> the variables of the page's style that replace them."""
MOST_POINTS = 400
"""Maximum points of a line; longer lines are averaged in groups."""
SIZE = (4.6, 2.9)
"""Inches at 72 pixels: the width of a phone, where text must not be scaled down."""
_MARGINS = {"left": 0.125, "right": 0.985, "top": 0.97, "bottom": 0.185}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "unfreeze",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": FAINT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def draw(chart: Chart) -> str:
    """Draw the chart as an ``<svg>`` element without its title, which the page shows beside it."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=SIZE)
        figure.subplots_adjust(**_MARGINS)  # automatic layouts measure every text and take three times as long
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        if chart.identity:
            axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        for colour, (name, (xs, ys)) in zip(cycle(SERIES), chart.lines.items(), strict=False):
            across, up = thinned(xs, ys)
            marker = "o" if len(across) <= 12 else None
            axes.plot(across, up, color=colour, linewidth=1.7, marker=marker, markersize=3.5, label=shown(name))
        for name, place in chart.marks.items():
            axes.axvline(place, color=FAINT, linewidth=1, linestyle=(0, (2, 2)))
            axes.annotate(
                shown(name), (place, 1), xycoords=("data", "axes fraction"), xytext=(3, -8), textcoords="offset points",
                color=FAINT, fontsize=8,
            )  # fmt: skip
        axes.set(xlabel=shown(chart.x), ylabel=shown(chart.y))
        if "x" in chart.log:
            axes.set_xscale("log")
        elif all(float(x).is_integer() for xs, _ in chart.lines.values() for x in xs):
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if "y" in chart.log:
            axes.set_yscale("log")
        if len(chart.lines) > 1:
            axes.legend(loc="best")
        return _themed(_rendered(figure), chart.title)


def thinned(xs: Sequence[float], ys: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Average groups of neighbours into at most `MOST_POINTS` points; non-finite values are left out."""
    across, up = np.asarray(xs, dtype=np.float64), np.asarray(ys, dtype=np.float64)
    finite = np.isfinite(across) & np.isfinite(up)
    across, up = across[finite], up[finite]
    if len(across) <= MOST_POINTS:
        return across, up
    starts = np.linspace(0, len(across), MOST_POINTS, endpoint=False).astype(int)
    sizes = np.diff([*starts, len(across)])
    return np.add.reduceat(across, starts) / sizes, np.add.reduceat(up, starts) / sizes


def _rendered(figure: Figure) -> str:
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the page's fonts may have them
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _themed(svg: str, title: str) -> str:
    """The element alone, in the page's colours and font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    # Ids of groups would repeat in every chart of the page; those of clips and markers are content hashes.
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg).replace("xlink:href", "href")
    svg = re.sub(r"font-family: [^;\"]*; ", "", svg)
    head, rest = svg.split(">", 1)
    svg = re.sub(r' (?:width|height|version|xmlns(?::xlink)?)="[^"]*"', "", head) + ">" + re.sub(r"\s*\n\s*", " ", rest)
    svg = svg.replace("<svg", f'<svg class="chart" role="img" aria-label="{escape(title)}"', 1)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.strip()


def forest(gains: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Positions of improvements and their intervals on one axis: ``low``, ``high``, ``at``, ``zero``, in percent.

    Parameters
    ----------
    gains
        With ``improvement``, ``low`` and ``high`` of one metric.
    """
    ends = [0.0, *(each[name] for each in gains for name in ("low", "high", "improvement") if np.isfinite(each[name]))]
    left, right = min(ends), max(ends)
    width = (right - left) or 1.0

    def place(value: float) -> float:
        share = (value - left) / width if np.isfinite(value) else 0.0
        return round(4 + 92 * share, 2)

    return [
        {"low": place(each["low"]), "high": place(each["high"]), "at": place(each["improvement"]), "zero": place(0.0)}
        for each in gains
    ]
