"""How sure a metric is: percentile intervals of the bootstrap over rows.

After Efron and Tibshirani, "An Introduction to the Bootstrap", 1993.
"""

from collections.abc import Mapping

import numpy as np

from unfreeze.models.training.metrics import Metric

RESAMPLES, MOST_DRAWN = 500, 20_000_000
"""Resamples, and rows drawn in all of them together, which make fewer resamples of many rows."""
FEWEST = 50


def intervals(
    metrics: Mapping[str, Metric], predictions: np.ndarray, actual: np.ndarray, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Interval of every metric; the rows are taken to be independent.

    Parameters
    ----------
    metrics
        Functions of predictions (N, ...) and actual targets (N, ...).
    level
        Share of resamples within the interval.

    Returns
    -------
    dict
        Metric -> lower and upper end; NaN where no resample has a finite value.
    """
    rng, resamples = np.random.default_rng(0), max(FEWEST, min(RESAMPLES, MOST_DRAWN // max(len(actual), 1)))
    drawn: dict[str, list[float]] = {name: [] for name in metrics}
    for _ in range(resamples):
        rows = rng.integers(len(actual), size=len(actual))
        for name, metric in metrics.items():
            drawn[name].append(metric(predictions[rows], actual[rows]))
    outside = (1 - level) / 2
    found = {}
    for name, values in drawn.items():
        finite = np.array(values)[np.isfinite(values)]
        low, high = np.quantile(finite, (outside, 1 - outside)) if len(finite) else (np.nan, np.nan)
        found[name] = (float(low), float(high))
    return found
