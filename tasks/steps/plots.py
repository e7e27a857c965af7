"""Images of a training, for MLflow and the Prefect page."""

from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("Agg")  # tasks have no screen

import numpy as np
from matplotlib.figure import Figure

from unfreeze.models.training.finder import LrCurve
from unfreeze.models.training.suggestions import centred

_NAMES = {"falling": "highest still falling", "valley": "valley", "steepest": "steepest", "minimum": "minimum / 10"}
_MOST_CLASSES_NAMED = 40


def plot_lr_curve(curve: LrCurve, suggestions: Mapping[str, float], used: str, title: str) -> Figure:
    """The finder's curve with every suggestion; the one that is used stands out."""
    figure = Figure(figsize=(7, 4.2))
    axes = figure.subplots()
    axes.plot(curve.lrs, curve.losses, color="#c3cede", linewidth=1, label="loss of the batch")
    axes.plot(curve.lrs, curve.smoothed, color="#7f9cc4", linewidth=1.2, linestyle=":", label="running average")
    if len(curve.losses) >= 5:
        axes.plot(curve.lrs, centred(curve.losses)[0], color="#1f4e8c", linewidth=2, label="trend")
    top = 1.6 * float(np.median(curve.losses[:5]))
    for colour, (method, lr) in zip(("#d1495b", "#66a182", "#edae49", "#8d6a9f"), suggestions.items(), strict=False):
        style = {"linewidth": 2.2} if method == used else {"linewidth": 1.1, "linestyle": "--"}
        axes.axvline(
            lr, color=colour, label=f"{_NAMES[method]}: {lr:.2g}{' (used)' if method == used else ''}", **style
        )
    axes.set(xscale="log", xlabel="learning rate of the head", ylabel="loss", title=title, ylim=(0, top))
    axes.legend(fontsize=8)
    return figure


def plot_schedule(lrs: Mapping[str, Sequence[tuple[int, float]]], title: str) -> Figure:
    """The lr of every layer group over the batches; `lrs` maps a group to (step, lr) pairs."""
    figure = Figure(figsize=(7, 3.2))
    axes = figure.subplots()
    for group, points in lrs.items():
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, label=group, linewidth=1.6)
    axes.set(yscale="log", xlabel="batch", ylabel="learning rate", title=title)
    axes.legend(title="layer group", fontsize=8)
    return figure


def plot_confusion(
    targets: np.ndarray, predicted: np.ndarray, classes: Sequence[str], title: str = "Confusion (validation rows, TTA)"
) -> Figure:
    """Rows are the true classes, columns the predicted ones; numbers are validation rows."""
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, (targets, predicted), 1)
    side = min(12, 3 + 0.35 * len(classes))
    figure = Figure(figsize=(side + 0.6, side))
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    if len(classes) <= _MOST_CLASSES_NAMED:
        axes.set_xticks(range(len(classes)), classes, rotation=90 if len(classes) > 5 else 0)
        axes.set_yticks(range(len(classes)), classes)
    if len(classes) <= 20:
        for row, column in np.argwhere(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=8)
    return figure


def plot_images(pixels: np.ndarray, captions: Sequence[str], title: str, columns: int = 4) -> Figure:
    """A grid of images (N, S, S, 3) uint8 with a caption each."""
    rows = -(-len(pixels) // columns)
    figure = Figure(figsize=(2.4 * columns, 2.7 * rows + 0.4))
    grid = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, image, caption in zip(grid, pixels, captions, strict=False):
        axes.imshow(image)
        axes.set_title(caption, fontsize=8)
    figure.suptitle(title)
    figure.tight_layout()
    return figure
