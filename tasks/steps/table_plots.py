"""Images of a training on a table, for MLflow and the Prefect page."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

_MOST_LABELS = 60


def plot_embedding(weights: np.ndarray, labels: Sequence[str], name: str) -> Figure:
    """The first two principal components of learned embeddings (C, D), each category by its name."""
    figure = Figure(figsize=(6.5, 5.5))
    axes = figure.subplots()
    count = min(2, *weights.shape)
    points = np.zeros((len(weights), 2))
    points[:, :count] = PCA(count, random_state=0).fit_transform(weights)
    axes.scatter(points[:, 0], points[:, 1], s=18, color="#1f4e8c")
    for (x, y), label in list(zip(points, labels, strict=True))[:_MOST_LABELS]:
        axes.annotate(str(label)[:20], (x, y), fontsize=8, xytext=(3, 3), textcoords="offset points")
    axes.set(title=f"Learned embedding of {name}", xlabel="first component", ylabel="second component")
    return figure


def plot_importance(increases: Mapping[str, float], metric: str) -> Figure:
    """How much worse a metric gets when a column is shuffled, the most important on top."""
    shown = sorted(increases.items(), key=lambda item: item[1])[-30:]
    figure = Figure(figsize=(7, 1 + 0.28 * len(shown)))
    axes = figure.subplots()
    axes.barh([name for name, _ in shown], [increase for _, increase in shown], color="#1f4e8c")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(title="Permutation importance", xlabel=f"{metric} with the column shuffled, minus without")
    figure.tight_layout()
    return figure


def plot_residuals(dates: pd.Series | None, actual: np.ndarray, predicted: np.ndarray, target: str) -> Figure:
    """Predicted against actual, and with dates the errors of each day: median and the middle 80 %."""
    figure = Figure(figsize=(11, 4.2))
    left, right = figure.subplots(1, 2)
    left.scatter(actual, predicted, s=4, alpha=0.3, color="#1f4e8c", linewidths=0)
    ends = [float(min(actual.min(), predicted.min())), float(max(actual.max(), predicted.max()))]
    left.plot(ends, ends, color="black", linewidth=0.8)
    left.set(xlabel=f"actual {target}", ylabel="predicted", title="Validation rows")
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
