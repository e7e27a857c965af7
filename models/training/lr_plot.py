"""The finder's curve as a figure."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from unfreeze.models.evaluation.plots import TITLE, shown
from unfreeze.models.training.suggestions import LrCurve, centred

_NAMES = {"falling": "highest still falling", "minimum": "minimum / 10"}
_RULE_COLOURS = ("#d1495b", "#2e7d8c", "#66a182", "#edae49", "#8d6a9f")


def plot_lr_curve(curve: LrCurve, suggestions: Mapping[str, float], used: str, title: str) -> Figure:
    """The finder's curve with every suggestion; the one that is used stands out."""
    figure = Figure(figsize=(7, 4.2))
    axes = figure.subplots()
    axes.plot(curve.lrs, curve.losses, color="#c3cede", linewidth=1, label="loss of the batch")
    axes.plot(curve.lrs, curve.smoothed, color="#7f9cc4", linewidth=1.2, linestyle=":", label="running average")
    if len(curve.losses) >= 5:
        axes.plot(curve.lrs, centred(curve.losses)[0], color="#1f4e8c", linewidth=2, label="trend")
    top = 1.6 * float(np.median(curve.losses[:5]))
    for colour, (method, lr) in zip(_RULE_COLOURS, suggestions.items(), strict=False):
        style = {"linewidth": 2.2} if method == used else {"linewidth": 1.1, "linestyle": "--"}
        axes.axvline(
            lr,
            color=colour,
            label=f"{_NAMES.get(method, method)}: {lr:.2g}{' (used)' if method == used else ''}",
            **style,
        )
    axes.set(xscale="log", xlabel="learning rate of the head", ylabel="loss", title=shown(title, TITLE), ylim=(0, top))
    axes.legend(fontsize=8)
    return figure
