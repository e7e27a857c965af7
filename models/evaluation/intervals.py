"""How sure a metric, or a difference of two models, is: exact intervals of shares, else the bootstrap over rows.

After Efron and Tibshirani, "An Introduction to the Bootstrap", 1993.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from scipy.stats import norm, t as student

from unfreeze.models.evaluation.label_metrics import LABEL_METRICS
from unfreeze.models.evaluation.metrics import CLASS_METRICS, VALUE_METRICS, Metric
from unfreeze.models.evaluation.results import Gain
from unfreeze.models.evaluation.shares import OUTSIDE, ShareOfRows, paired_interval, share_interval
from unfreeze.models.settings.search import LOWER_IS_BETTER

RESAMPLES, MOST_DRAWN = 500, 20_000_000
"""Resamples, and rows drawn in all of them together, which make fewer resamples of many rows."""
FEWEST = 50
AT_MOST_1 = {*CLASS_METRICS, *LABEL_METRICS, *VALUE_METRICS} - LOWER_IS_BETTER
"""Metrics that are 1 where every row is right."""


def intervals(
    metrics: Mapping[str, Metric],
    predictions: np.ndarray,
    actual: np.ndarray,
    blocks: np.ndarray | None = None,
) -> dict[str, tuple[float, float]]:
    """95 % interval of every metric; rows are taken to be independent, or those of different `blocks`.

    Parameters
    ----------
    metrics
        Functions of predictions (N, ...) and actual targets (N, ...).
    blocks
        Block of every row (N,), such as its week: whole blocks are resampled.

    Returns
    -------
    dict
        Metric -> lower and upper end; NaN where the bootstrap does not hold: no resample has a finite value, or all
        have the same, as where every row is right.
    """
    drawn: dict[str, list[float]] = {name: [] for name, each in metrics.items() if not isinstance(each, ShareOfRows)}
    for rows in _resamples(len(actual), blocks) if drawn else ():
        for name, values in drawn.items():
            values.append(metrics[name](predictions[rows], actual[rows]))
    found = {}
    for name, metric in metrics.items():
        if isinstance(metric, ShareOfRows):
            found[name] = share_interval(metric.holds(predictions, actual), blocks)
            continue
        low, high = _ends(drawn[name], metric(predictions, actual), _independent(actual, blocks))
        if low == high:
            low = high = float("nan")
        found[name] = max(low, 0.0) if name in LOWER_IS_BETTER else low, min(high, 1.0) if name in AT_MOST_1 else high
    return found


def gains(
    what: str,
    metrics: Mapping[str, Metric],
    before: np.ndarray,
    after: np.ndarray,
    actual: np.ndarray,
    blocks: np.ndarray | None = None,
) -> list[Gain]:
    """What turning one model into another brought by every metric, with a 95 % interval.

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
        if isinstance(metric, ShareOfRows) and blocks is None:
            change = metric.holds(after, actual).astype(int) - metric.holds(before, actual)
            ends = paired_interval(int((change > 0).sum()), int((change < 0).sum()), len(actual))
        else:
            ends = _ends(drawn[name], improvement, _independent(actual, blocks))
        found.append(Gain(what, name, *values, improvement, *ends, len(actual)))
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


def _independent(actual: np.ndarray, blocks: np.ndarray | None) -> int:
    return len(actual) if blocks is None else len(np.unique(blocks))


def _ends(drawn: list[float], value: float, count: int) -> tuple[float, float]:
    """Ends of the interval around a value, of what it was in resamples of `count` rows or blocks."""
    finite = np.array(drawn)[np.isfinite(drawn)]
    if not len(finite) or count < 2:
        return float("nan"), float("nan")
    low, high = value + expansion(count) * (np.quantile(finite, (OUTSIDE, 1 - OUTSIDE)) - value)
    return float(low), float(high)


def expansion(count: int) -> float:
    """What deviations between resamples of `count` rows or blocks are multiplied by, because few vary too little.

    It makes them those of Student's distribution (Hesterberg 2015, "What Teachers Should Know About the Bootstrap",
    expanded percentile intervals). Infinite for one.
    """
    if count < 2:
        return float("inf")
    return float(np.sqrt(count / (count - 1)) * student.ppf(1 - OUTSIDE, count - 1) / norm.ppf(1 - OUTSIDE))
