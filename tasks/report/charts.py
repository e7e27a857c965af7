"""Charts of a report."""

from matplotlib.figure import Figure

from unfreeze.models.evaluation.plots import shown
from unfreeze.models.evaluation.results import Chart


def plot(chart: Chart) -> Figure:
    """Plot the chart without its title, which the page shows above it."""
    figure = Figure(figsize=(5.5, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if chart.identity:
        axes.plot([0, 1], [0, 1], color="gray", linewidth=1, linestyle="--")
    for name, (xs, ys) in chart.lines.items():
        axes.plot(xs, ys, marker="o" if len(xs) <= 12 else None, markersize=4, label=shown(name))
    for name, place in chart.marks.items():
        axes.axvline(place, color="gray", linewidth=1, linestyle=":")
        axes.text(place, 1, f" {shown(name)}", transform=axes.get_xaxis_transform(), va="top", color="gray", fontsize=8)
    axes.set(xlabel=shown(chart.x), ylabel=shown(chart.y))
    if "x" in chart.log:
        axes.set_xscale("log")
    if "y" in chart.log:
        axes.set_yscale("log")
    if len(chart.lines) > 1:
        axes.legend(frameon=False)
    return figure
