"""Reading a learning rate off the finder's curve."""

import numpy as np
from scipy.signal import savgol_filter

CLEARLY_FALLING = 0.25
"""A slope counts as clearly falling while it is at least this share of the steepest."""


def suggest(rates: np.ndarray, smoothed: np.ndarray) -> dict[str, float]:
    """Learning rates by method.

    Parameters
    ----------
    rates
        Learning rates of the sweep, (N,) float64, rising.
    smoothed
        Smoothed loss at each, (N,) float64.

    Returns
    -------
    dict
        ``falling``: the highest rate where the loss is still clearly falling, the course's rule: the last point before
        the minimum whose slope over log rate is at least a quarter of the steepest slope. ``steepest``: the point of the
        steepest slope. ``valley``: the middle of the longest descent (fastai 2, ``callback.schedule.valley``).
        ``minimum``: a tenth of the rate of the lowest loss. Where the loss never falls, all are the sweep's first rate.
    """
    if len(rates) < 3 or smoothed.argmin() == 0:
        return dict.fromkeys(("falling", "steepest", "valley", "minimum"), float(rates[0]))
    lowest = int(smoothed.argmin())
    # The slope of a line through the neighbours: from point to point, noise is steeper than the descent.
    window = max(3, len(rates) // 8) | 1
    slopes = savgol_filter(smoothed, window, polyorder=1, deriv=1, mode="interp")[: lowest + 1]
    steepest = int(slopes.argmin())
    falling = int(np.flatnonzero(slopes <= CLEARLY_FALLING * slopes[steepest])[-1])
    start, end = longest_descent(smoothed)
    picks = {"falling": falling, "steepest": steepest, "valley": (start + end) // 2}
    return {**{name: float(rates[index]) for name, index in picks.items()}, "minimum": float(rates[lowest] / 10)}


def longest_descent(values: np.ndarray) -> tuple[int, int]:
    """First and last index of the longest strictly falling subsequence of `values` (N,)."""
    lengths = np.ones(len(values), dtype=np.int64)
    starts = np.arange(len(values))
    for index in range(1, len(values)):
        higher = np.flatnonzero(values[:index] > values[index])
        if len(higher):
            best = higher[lengths[higher].argmax()]
            lengths[index], starts[index] = lengths[best] + 1, starts[best]
    end = int(lengths.argmax())
    return int(starts[end]), end
