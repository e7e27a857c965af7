"""Reading a learning rate off the finder's curve."""

from dataclasses import dataclass

import numpy as np
from scipy.signal import savgol_filter

CLEARLY_FALLING = 0.15
"""A slope counts as clearly falling while it is at least this share of the steepest."""
METHODS = ("falling", "valley", "steepest", "minimum")


def centred(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The trend of a curve and its slope, from a line through the neighbours of every point.

    The sweep's exponential average lags behind the loss by dozens of batches, which on this axis are decades of
    learning rate; with the whole curve at hand the neighbours on both sides say where the loss really fell. What rises
    beyond 1.5 times the first losses is cut off, so that the explosion at the end does not leak into the descent.

    Parameters
    ----------
    losses
        Loss of every batch, (N,) float64, N >= 5.

    Returns
    -------
    tuple of numpy.ndarray
        Trend (N,) and slope per batch (N,).
    """
    bounded = np.minimum(losses, 1.5 * np.median(losses[:5]))
    window = min(max(5, len(losses) // 8) | 1, (len(losses) - 1) | 1)
    trend = savgol_filter(bounded, window, polyorder=1)
    return trend, savgol_filter(bounded, window, polyorder=1, deriv=1)


def suggest(lrs: np.ndarray, losses: np.ndarray) -> dict[str, float]:
    """Learning rates by method.

    Parameters
    ----------
    lrs
        Learning rates of the sweep, (N,) float64, rising.
    losses
        Loss of the batch at each, (N,) float64.

    Returns
    -------
    dict
        ``falling``: the highest lr where the loss is still clearly falling, the course's rule: the end of the main
        descent, which begins at the steepest point and lasts while the slope over log lr is at least 0.15 of
        that. ``valley``: the middle of the longest descent (fastai 2, ``callback.schedule.valley``). ``steepest``: the
        steepest point. ``minimum``: a tenth of the lr of the lowest loss. Where the loss never falls, or there are
        fewer than five points, all are the sweep's first lr.
    """
    if len(lrs) < 5:
        return dict.fromkeys(METHODS, float(lrs[0]))
    trend, slopes = centred(losses)
    lowest = int(trend.argmin())
    steepest = int(slopes[: lowest + 1].argmin())
    if slopes[steepest] >= 0:
        return dict.fromkeys(METHODS, float(lrs[0]))
    falling = steepest
    while falling < lowest and slopes[falling + 1] <= CLEARLY_FALLING * slopes[steepest]:
        falling += 1
    start, end = longest_descent(trend)
    picks = {"falling": falling, "valley": (start + end) // 2, "steepest": steepest}
    return {**{name: float(lrs[index]) for name, index in picks.items()}, "minimum": float(lrs[lowest] / 10)}


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


@dataclass(frozen=True)
class LrCurve:
    """What the finder saw: one entry per batch."""

    lrs: np.ndarray
    """Learning rate of the head, (N,) float64."""
    losses: np.ndarray
    """Loss of the batch, (N,) float64."""
    smoothed: np.ndarray
    """Debiased exponential moving average of the losses, (N,) float64."""

    def suggestions(self) -> dict[str, float]:
        """Learning rates by method; see `suggest`."""
        return suggest(self.lrs, self.losses)
