"""How sure a metric, or a difference of two models, is: percentile intervals of the bootstrap over rows.

After Efron and Tibshirani, "An Introduction to the Bootstrap", 1993.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from unfreeze.models.findings import Gain
from unfreeze.models.search import LOWER_IS_BETTER
from unfreeze.models.training.metrics import Metric

RESAMPLES, MOST_DRAWN = 500, 20_000_000
"""Resamples, and rows drawn in all of them together, which make fewer resamples of many rows."""
FEWEST = 50


def intervals(
    metrics: Mapping[str, Metric],
    predictions: np.ndarray,
    actual: np.ndarray,
    level: float = 0.95,
    blocks: np.ndarray | None = None,
) -> dict[str, tuple[float, float]]:
    """Interval of every metric; rows are taken to be independent, or those of different `blocks`.

    Parameters
    ----------
    metrics
        Functions of predictions (N, ...) and actual targets (N, ...).
    level
        Share of resamples within the interval.
    blocks
        Block of every row (N,), such as its week: whole blocks are resampled.

    Returns
    -------
    dict
        Metric -> lower and upper end; NaN where no resample has a finite value.
    """
    drawn: dict[str, list[float]] = {name: [] for name in metrics}
    for rows in _resamples(len(actual), blocks):
        for name, metric in metrics.items():
            drawn[name].append(metric(predictions[rows], actual[rows]))
    return {name: _ends(values, level) for name, values in drawn.items()}


def gains(
    what: str,
    metrics: Mapping[str, Metric],
    before: np.ndarray,
    after: np.ndarray,
    actual: np.ndarray,
    blocks: np.ndarray | None = None,
) -> list[Gain]:
    """What turning one model into another brought by every metric, with a 95 % interval of the paired bootstrap.

    Parameters
    ----------
    what
        Its name, see `Gain`.
    metrics
        As for `intervals`; those in `LOWER_IS_BETTER` improve by falling.
    before, after
        Predictions (N, ...) of both models for the same rows.
    actual
        Their targets.
    blocks
        As for `intervals`.
    """
    signs = {name: -1.0 if name in LOWER_IS_BETTER else 1.0 for name in metrics}
    drawn: dict[str, list[float]] = {name: [] for name in metrics}
    for rows in _resamples(len(actual), blocks):
        for name, metric in metrics.items():
            drawn[name].append(signs[name] * (metric(after[rows], actual[rows]) - metric(before[rows], actual[rows])))
    found = []
    for name, metric in metrics.items():
        values = float(metric(before, actual)), float(metric(after, actual))
        improvement = signs[name] * (values[1] - values[0])
        found.append(Gain(what, name, *values, improvement, *_ends(drawn[name], 0.95), len(actual)))
    return found


def standard_error(
    metric: Metric, one: np.ndarray, other: np.ndarray, actual: np.ndarray, blocks: np.ndarray | None = None
) -> float:
    """Of the difference of a metric between two models' predictions (N, ...) for the same rows, by the bootstrap."""
    drawn = [
        metric(one[rows], actual[rows]) - metric(other[rows], actual[rows]) for rows in _resamples(len(actual), blocks)
    ]
    return float(np.std(drawn))


def _resamples(count: int, blocks: np.ndarray | None) -> Iterator[np.ndarray]:
    """Row numbers of every resample, the same at every call."""
    rng = np.random.default_rng(0)
    resamples = max(FEWEST, min(RESAMPLES, MOST_DRAWN // max(count, 1)))
    if blocks is None:
        for _ in range(resamples):
            yield rng.integers(count, size=count)
        return
    order = np.argsort(blocks, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(np.unique(blocks, return_inverse=True)[1][order])) + 1)
    for _ in range(resamples):
        yield np.concatenate([members[block] for block in rng.integers(len(members), size=len(members))])


def _ends(values: list[float], level: float) -> tuple[float, float]:
    outside, drawn = (1 - level) / 2, np.array(values)
    finite = drawn[np.isfinite(drawn)]
    low, high = np.quantile(finite, (outside, 1 - outside)) if len(finite) else (np.nan, np.nan)
    return float(low), float(high)
