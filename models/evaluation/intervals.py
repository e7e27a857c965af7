"""Uncertainty of metrics and of differences between models: exact intervals for shares of rows, else the bootstrap.

One bootstrap serves intervals, gains, standard errors and promotion. It resamples rows, or whole blocks of dependent
rows such as weeks (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993).
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from math import hypot, sqrt

import numpy as np
from scipy.stats import DegenerateDataWarning, binomtest, bootstrap, norm, t as student

from unfreeze.models.evaluation.metrics import CLASS_METRICS, LABEL_METRICS, VALUE_METRICS, Metric, ShareOfRows
from unfreeze.models.evaluation.results import Gain
from unfreeze.models.settings.search import LOWER_IS_BETTER

RESAMPLES = (50, 500)
"""Minimum and maximum; in between, as many as draw `MOST_DRAWN` rows in total."""
MOST_DRAWN = 20_000_000
OUTSIDE = 0.025
"""Probability beyond each end of a 95 % interval."""
AT_MOST_1 = {*CLASS_METRICS, *LABEL_METRICS, *VALUE_METRICS} - LOWER_IS_BETTER
"""Metrics with maximum 1."""


def intervals(
    metrics: Mapping[str, Metric], predictions: np.ndarray, actual: np.ndarray, blocks: np.ndarray | None = None
) -> dict[str, tuple[float, float]]:
    """Compute the 95 % interval of every metric, assuming independent rows, or independent `blocks`.

    Parameters
    ----------
    metrics
        Functions of predictions (N, ...) and actual targets (N, ...).
    blocks
        Block of every row (N,), such as its week; whole blocks are resampled.

    Returns
    -------
    dict
        Metric -> lower and upper end; NaN if the bootstrap fails: no resample has a finite value, or all have the same,
        as when every row is right.
    """
    exact = {name: _exact(metric, predictions, actual, blocks) for name, metric in metrics.items()}
    others = [name for name, ends in exact.items() if ends is None]
    drawn = _resampled(
        lambda rows: [metrics[name](predictions[rows], actual[rows]) for name in others], len(actual), blocks
    )
    found = {}
    for name, metric in metrics.items():
        ends = exact[name]
        if ends is None:
            value = metric(predictions, actual)
            low, high = _ends(value, _around(value, [drawn[others.index(name)]], _units(len(actual), blocks)))
            if low == high:
                low = high = float("nan")
            ends = max(low, 0.0) if name in LOWER_IS_BETTER else low, min(high, 1.0) if name in AT_MOST_1 else high
        found[name] = ends
    return found


def ends_of(found: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Ends of `intervals` as metrics: ``NAME_low`` and ``NAME_high``."""
    low = {f"{name}_low": ends[0] for name, ends in found.items()}
    return low | {f"{name}_high": ends[1] for name, ends in found.items()}


def gains(
    what: str,
    metrics: Mapping[str, Metric],
    before: np.ndarray,
    after: np.ndarray,
    actual: np.ndarray,
    blocks: np.ndarray | None = None,
) -> list[Gain]:
    """Compute the improvement of every metric between two models, with 95 % intervals.

    Parameters
    ----------
    what
        The change, see `Gain`.
    metrics
        As for `intervals`; those in `LOWER_IS_BETTER` improve by falling.
    before, after
        Predictions (N, ...) of both models for the same rows.
    actual
        Their targets.
    blocks
        As for `intervals`.
    """
    ways = [] if blocks is None else [blocks]
    return [improvement(what, name, metric, before, after, actual, ways)[0] for name, metric in metrics.items()]


def improvement(
    what: str,
    name: str,
    metric: Metric,
    before: np.ndarray,
    after: np.ndarray,
    actual: np.ndarray,
    blocks: Sequence[np.ndarray] = (),
    resamples: tuple[int, int] = RESAMPLES,
    exact: bool = True,
) -> tuple[Gain, np.ndarray]:
    """Compare two models' predictions (N, ...) by one metric, paired by row.

    With several groupings, such as stores and weeks, each is resampled separately and the deviations are added, like
    the variances of two-way clusters (Cameron, Gelbach and Miller 2011). Counting row-level variation twice is
    conservative.

    Parameters
    ----------
    what
        The change, see `Gain`.
    name
        The metric's, which gives its direction.
    blocks
        Groupings of the rows, each the block of every row (N,).
    exact
        Whether shares of independent rows get an exact interval without resampling.

    Returns
    -------
    tuple of Gain and numpy.ndarray
        Also the improvement in every resample, (R,) float64.
    """
    sign = -1.0 if name in LOWER_IS_BETTER else 1.0
    values = float(metric(before, actual)), float(metric(after, actual))
    value = sign * (values[1] - values[0])

    def difference(rows: np.ndarray) -> list[float]:
        return [sign * (metric(after[rows], actual[rows]) - metric(before[rows], actual[rows]))]

    if exact and not blocks and isinstance(metric, ShareOfRows):
        change = metric.holds(after, actual).astype(int) - metric.holds(before, actual)
        ends = paired_interval(int((change > 0).sum()), int((change < 0).sum()), len(actual))
        return Gain(what, name, *values, value, *ends, len(actual)), np.empty(0)
    ways = list[np.ndarray | None](blocks) or [None]
    drawn = [_resampled(difference, len(actual), way, resamples)[0] for way in ways]
    resampled = _around(value, drawn, min(_units(len(actual), way) for way in ways))
    return Gain(what, name, *values, value, *_ends(value, resampled), len(actual)), resampled


def standard_error(
    metric: Metric, one: np.ndarray, other: np.ndarray, actual: np.ndarray, blocks: np.ndarray | None = None
) -> float:
    """Standard error of the difference in a metric between two models' predictions (N, ...) for the same rows."""

    def difference(rows: np.ndarray) -> list[float]:
        return [metric(one[rows], actual[rows]) - metric(other[rows], actual[rows])]

    return float(np.std(_resampled(difference, len(actual), blocks)[0]))


def exact_interval(count: int, rows: int) -> tuple[float, float]:
    """95 % interval of a share, `count` of `rows` (Clopper and Pearson 1934)."""
    low, high = binomtest(count, rows).proportion_ci(1 - 2 * OUTSIDE)
    return float(low), float(high)


def paired_interval(gained: int, lost: int, rows: int) -> tuple[float, float]:
    """95 % interval of the difference of two shares of the same rows: (gained - lost) / rows.

    The wider of two intervals: exact limits of both shares, combined by Zou and Donner ("Construction of confidence
    limits about effect measures", 2008), and limits conditional on the number of differing rows, as in McNemar's exact
    test. So the interval excludes 0 only if that test finds a difference.
    """
    (up, down), ends = (gained / rows, lost / rows), [exact_interval(count, rows) for count in (gained, lost)]
    (up_low, up_high), (down_low, down_high) = ends
    # Correlation of two of three shares that add up to 1.
    correlation = -sqrt(up * down / ((1 - up) * (1 - down))) if up < 1 and down < 1 else 0.0

    def reach(one: float, other: float) -> float:
        return sqrt(hypot(one, other) ** 2 - 2 * correlation * one * other)

    low, high = up - down - reach(up - up_low, down_high - down), up - down + reach(up_high - up, down - down_low)
    if differing := gained + lost:
        given = [(2 * end - 1) * differing / rows for end in exact_interval(gained, differing)]
        low, high = min(low, given[0]), max(high, given[1])
    return max(low, -1.0), min(high, 1.0)


def _exact(
    metric: Metric, predictions: np.ndarray, actual: np.ndarray, blocks: np.ndarray | None
) -> tuple[float, float] | None:
    """Exact interval of a share of rows, for which a bootstrap has zero width if all rows are right."""
    if not isinstance(metric, ShareOfRows):
        return None
    held = metric.holds(predictions, actual)
    if blocks is None:
        return exact_interval(int(held.sum()), len(held))
    # If all rows are alike, dependence within blocks cannot be estimated: each block counts once.
    units = _units(len(held), blocks)
    return exact_interval(units * int(held[0]), units) if held.all() or not held.any() else None


def _units(rows: int, blocks: np.ndarray | None) -> int:
    """Number of independent observations."""
    return rows if blocks is None else len(np.unique(blocks))


def _resampled(
    statistic: Callable[[np.ndarray], Sequence[float]],
    rows: int,
    blocks: np.ndarray | None,
    resamples: tuple[int, int] = RESAMPLES,
) -> np.ndarray:
    """Evaluate K statistics of row numbers in every resample, (K, R) float64; every call draws the same resamples."""
    members = None
    if blocks is not None:
        order, codes = np.argsort(blocks, kind="stable"), np.unique(blocks, return_inverse=True)[1]
        members = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    units = rows if members is None else len(members)

    def of_units(drawn: np.ndarray) -> np.ndarray:
        chosen = drawn if members is None else np.concatenate([members[unit] for unit in drawn])
        return np.array(statistic(chosen), np.float64)

    if units < 2 or not len(of_units(np.arange(units))):
        return np.empty((max(len(of_units(np.arange(units))), 1), 0))
    count = max(resamples[0], min(resamples[1], MOST_DRAWN // rows))
    options = {"n_resamples": count, "batch": max(1, 1_000_000 // units), "vectorized": False, "method": "percentile"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # a metric may be NaN in a resample
        found = bootstrap((np.arange(units),), of_units, rng=np.random.default_rng(0), **options)
    return np.asarray(found.bootstrap_distribution)


def _around(value: float, drawn: Sequence[np.ndarray], units: int) -> np.ndarray:
    """Centre resampled values on `value` and expand them for few units; deviations of several groupings are added.

    Resamples of few units vary too little. The factor widens their deviations to Student's distribution
    (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", expanded percentile intervals).
    """
    finite = [each[np.isfinite(each)] for each in drawn]
    length = min(len(each) for each in finite)
    if not length or units < 2:
        return np.empty(0)
    expansion = np.sqrt(units / (units - 1)) * student.ppf(1 - OUTSIDE, units - 1) / norm.ppf(1 - OUTSIDE)
    deviations = sum((each[:length] - each[:length].mean() for each in finite), np.zeros(length))
    return np.asarray(value + expansion * deviations)


def _ends(value: float, resampled: np.ndarray) -> tuple[float, float]:
    """Ends of the 95 % interval, extended to include the value, which rounding or a few odd rows can exclude."""
    if not len(resampled):
        return float("nan"), float("nan")
    low, high = np.quantile(resampled, (OUTSIDE, 1 - OUTSIDE))
    return min(float(low), value), max(float(high), value)
