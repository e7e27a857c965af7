"""Matplotlib figures of a training."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.figure
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

_MOST_CLASSES_NAMED = 40
_MOST_LABELS = 60
TITLE, _LINES = 120, 4
"""Maximum characters of a title, and lines of an image's caption."""


class Figure(matplotlib.figure.Figure):
    """Figure that a notebook displays without pyplot."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", bbox_inches="tight")
        return file.getvalue()


def shown(text: object, longest: int = 40) -> str:
    """Prepare text for a figure: one line, truncated, without control characters or mathematics.

    Names of classes, columns and files are arbitrary; a ``$`` would begin a formula, and long text stretch the figure.
    """
    line = "".join(each if each.isprintable() else " " for each in str(text)).strip()
    return (line if len(line) <= longest else f"{line[: longest - 1]}…").replace("$", r"\$")


def plot_schedule(lrs: Mapping[str, Sequence[tuple[int, float]]], title: str) -> Figure:
    """Plot the lr of every layer group over the batches; `lrs` maps a group to (step, lr) pairs."""
    figure = Figure(figsize=(7, 3.2))
    axes = figure.subplots()
    for group, points in lrs.items():
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, label=shown(group), linewidth=1.6)
    axes.set(yscale="log", xlabel="batch", ylabel="learning rate", title=shown(title, TITLE))
    axes.legend(title="layer group", fontsize=8)
    return figure


def plot_confusion(targets: np.ndarray, predicted: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Plot a confusion matrix of row counts, true classes as rows and predicted ones as columns."""
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, (targets, predicted), 1)
    side = min(12, 3 + 0.35 * len(classes))
    figure = Figure(figsize=(side + 0.6, side))
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title=shown(title, TITLE))
    if len(classes) <= _MOST_CLASSES_NAMED:
        names = [shown(name) for name in classes]
        axes.set_xticks(range(len(classes)), names, rotation=90 if len(classes) > 5 or max(map(len, names)) > 12 else 0)
        axes.set_yticks(range(len(classes)), names)
    if len(classes) <= 20:
        for row, column in np.argwhere(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=8)
    return figure


def plot_labels(table: pd.DataFrame, title: str) -> Figure:
    """Plot each label's F1 and average precision (columns ``label``, ``f1``, ``average_precision``), best on top."""
    best = table.sort_values("f1", ascending=False).head(_MOST_LABELS)[::-1]
    figure = Figure(figsize=(7, 1.2 + 0.3 * len(best)))
    axes = figure.subplots()
    places = np.arange(len(best))
    axes.barh(places + 0.2, best["f1"], height=0.4, color="#1f4e8c", label="F1")
    axes.barh(places - 0.2, best["average_precision"].fillna(0), height=0.4, color="#c3cede", label="average precision")
    axes.set_yticks(places, [shown(label, 30) for label in best["label"]])
    axes.set(xlim=(0, 1), title=shown(title, TITLE))
    axes.legend(fontsize=8, loc="lower left")
    figure.tight_layout()
    return figure


def plot_images(pixels: np.ndarray, captions: Sequence[str], title: str, columns: int = 4) -> Figure:
    """Plot a grid of captioned images (N, S, S, 3) uint8."""
    rows = -(-len(pixels) // columns)
    lines = max((len(caption.splitlines()[:_LINES]) for caption in captions), default=0)
    figure = Figure(figsize=(2.4 * columns, (2.3 + 0.15 * lines) * rows + 0.4), layout="constrained")
    grid = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, image, caption in zip(grid, pixels, captions, strict=False):
        axes.imshow(image)
        axes.set_title("\n".join(shown(line) for line in caption.splitlines()[:_LINES]), fontsize=8)
    figure.suptitle(shown(title, TITLE))
    return figure


def plot_embedding(weights: np.ndarray, labels: Sequence[str], name: str) -> Figure:
    """Plot the first two principal components of learned embeddings (C, D), labelled by category."""
    figure = Figure(figsize=(6.5, 5.5))
    axes = figure.subplots()
    count = min(2, *weights.shape)
    points = np.zeros((len(weights), 2))
    points[:, :count] = PCA(count, random_state=0).fit_transform(weights)
    axes.scatter(points[:, 0], points[:, 1], s=18, color="#1f4e8c")
    for (x, y), label in list(zip(points, labels, strict=True))[:_MOST_LABELS]:
        axes.annotate(shown(label, 20), (x, y), fontsize=8, xytext=(3, 3), textcoords="offset points")
    axes.set(title=f"Learned embedding of {shown(name)}", xlabel="first component", ylabel="second component")
    return figure


def plot_importance(increases: Mapping[str, float], metric: str, title: str) -> Figure:
    """Plot how much worse a metric gets with each column shuffled, most important on top."""
    largest = sorted(increases.items(), key=lambda item: item[1])[-30:]
    figure = Figure(figsize=(7, 1 + 0.28 * len(largest)))
    axes = figure.subplots()
    axes.barh(range(len(largest)), [increase for _, increase in largest], color="#1f4e8c")
    axes.set_yticks(range(len(largest)), [shown(name) for name, _ in largest])
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(title=shown(title, TITLE), xlabel=f"{metric} with the column shuffled, minus without")
    figure.tight_layout()
    return figure


def plot_residuals(
    dates: pd.Series | None, actual: np.ndarray, predicted: np.ndarray, target: str, title: str
) -> Figure:
    """Plot predicted against actual, and the residuals: per day (median, middle 80 %) with dates, else a histogram."""
    figure = Figure(figsize=(11, 4.2))
    left, right = figure.subplots(1, 2)
    left.scatter(actual, predicted, s=4, alpha=0.3, color="#1f4e8c", linewidths=0)
    ends = [float(min(actual.min(), predicted.min())), float(max(actual.max(), predicted.max()))]
    left.plot(ends, ends, color="black", linewidth=0.8)
    left.set(xlabel=f"actual {shown(target)}", ylabel="predicted")
    figure.suptitle(shown(title, TITLE))
    residuals = predicted - actual
    if dates is None:
        right.hist(residuals, bins=60, color="#1f4e8c")
        right.set(xlabel="predicted - actual", title="Residuals")
    else:
        by_day = (
            pd.Series(residuals).groupby(dates.dt.floor("D").to_numpy()).quantile(np.array([0.1, 0.5, 0.9])).unstack()
        )
        right.fill_between(by_day.index, by_day[0.1], by_day[0.9], color="#c3cede", label="middle 80 %")
        right.plot(by_day.index, by_day[0.5], color="#1f4e8c", label="median")
        right.axhline(0, color="black", linewidth=0.8)
        right.set(ylabel="predicted - actual", title="Residuals over time")
        right.tick_params(axis="x", rotation=45)
        right.legend(fontsize=8)
    figure.tight_layout()
    return figure


LR_CURVES: dict[str, dict[str, Any]] = {
    "loss of the batch": {"color": "#c3cede", "linewidth": 1},
    "running average": {"color": "#7f9cc4", "linewidth": 1.2, "linestyle": ":"},
    "trend": {"color": "#1f4e8c", "linewidth": 2},
}
"""Finder's curve -> line style."""
_NAMES = {"falling": "highest still falling", "minimum": "minimum / 10"}
_RULE_COLOURS = ("#d1495b", "#2e7d8c", "#66a182", "#edae49", "#8d6a9f")


def plot_lr_curve(
    lrs: np.ndarray,
    losses: Mapping[str, np.ndarray],
    suggestions: Mapping[str, float],
    used: str,
    title: str,
) -> Figure:
    """Plot the finder's curve with all suggestions, the used one highlighted.

    Parameters
    ----------
    lrs
        (N,) float64.
    losses
        Name of a curve of `LR_CURVES` -> losses (N,) float64.
    """
    figure = Figure(figsize=(7, 4.2))
    axes = figure.subplots()
    for name, values in losses.items():
        axes.plot(lrs, values, label=name, **LR_CURVES[name])
    top = 1.6 * float(np.median(losses["loss of the batch"][:5]))
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
