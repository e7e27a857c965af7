"""Learning rates, with their uncertainty, from the finder's curve."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.signal import savgol_filter

from unfreeze.models.evaluation.plots import Figure, plot_lr_curve

CLEARLY_FALLING = 0.15
"""A slope counts as clearly falling while it is at least this share of the steepest."""
METHODS = ("falling", "valley", "steepest", "minimum")
LEAST_SPREAD = 0.3
"""Minimum uncertainty of a curve's suggestions in decades, even if they agree."""


AS_GOOD = 0.1
"""An lr is as good as the best if its loss exceeds the lowest by at most this share."""


class LrPrior(NamedTuple):
    """Log-normal prior of a good learning rate."""

    lr: float
    """Its median."""
    decades: float
    """Standard deviation of log10(lr)."""


def centred(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Trend of a curve and its slope, from a line through the neighbours of every point.

    The sweep's exponential average lags behind the loss by dozens of batches, which are decades of learning rate here;
    neighbours on both sides locate the fall correctly. Losses are capped at 1.5 times the first ones to keep the final
    explosion out of the descent.

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
    window = _window(len(losses))
    trend = savgol_filter(bounded, window, polyorder=1)
    return trend, savgol_filter(bounded, window, polyorder=1, deriv=1)


def _window(points: int) -> int:
    """Odd number of neighbours to fit a line through."""
    return min(max(5, points // 8) | 1, (points - 1) | 1)


def falls_clearly(losses: np.ndarray) -> bool:
    """Whether the loss of a sweep (N,) falls by more than three standard errors of its trend before it rises."""
    if len(losses) < 5:
        return False
    trend, _ = centred(losses)
    lowest = int(trend.argmin())
    before = slice(0, lowest + 1)
    error = float(np.std(losses[before] - trend[before])) / _window(len(losses)) ** 0.5
    return bool(trend[before].max() - trend[lowest] > 3 * error)


def suggest(lrs: np.ndarray, losses: np.ndarray) -> dict[str, float]:
    """Suggest a learning rate by each method.

    Parameters
    ----------
    lrs
        Learning rates of the sweep, (N,) float64, rising.
    losses
        Batch loss at each, (N,) float64.

    Returns
    -------
    dict
        ``falling``: the highest lr where the loss is still clearly falling (the course's rule), which is the end of
        the main descent; it begins at the steepest point and lasts while the slope over log lr is at least 0.15 of
        that. ``valley``: the middle of the longest descent (fastai 2, ``callback.schedule.valley``). ``steepest``: the
        steepest point. ``minimum``: a tenth of the lr of the lowest loss. If the loss never falls, or with fewer than
        five points, all are the sweep's first lr.
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
class LrTrials:
    """Held-out losses of trial learning rates."""

    lrs: np.ndarray
    """The head's lrs, (K,) float64, rising."""
    losses: np.ndarray
    """Held-out loss by fold and lr, (F, K) float64; infinite if training diverged."""

    def estimate(self) -> tuple[float, float]:
        """Middle of the lrs that are as good as the best, and half of their span in decades.

        The lowest loss on a few held-out rows may be at either end of a plateau; the plateau's middle is far from both
        slopes. The tolerance is a share of the loss, not of the gain: if training lowers the loss from 0.7 to 0.0003,
        0.01 is a small share of the gain but 30 times the loss.
        """
        means = self.losses.mean(axis=0)
        good = means <= (1 + AS_GOOD) * means.min()
        places = np.log10(self.lrs)
        return float(10 ** places[good].mean()), float(max(np.ptp(places[good]), np.diff(places).min()) / 2)

    def __str__(self) -> str:
        means = zip(self.lrs, self.losses.mean(axis=0), strict=True)
        return ", ".join(f"{lr:.2g} loss {loss:.3g}" for lr, loss in means)


@dataclass(frozen=True)
class LrCurve:
    """Finder's curve, with one entry per batch."""

    lrs: np.ndarray
    """The head's learning rates, (N,) float64."""
    losses: np.ndarray
    """Batch losses, (N,) float64."""
    smoothed: np.ndarray
    """Debiased exponential moving average of the losses, (N,) float64."""
    prior: LrPrior | None = None
    """Prior to combine with; None to use the curve alone."""
    sweeps: "tuple[LrCurve, ...]" = ()
    """Sweeps that this curve averages."""
    trials: LrTrials | None = None
    """Trials of lrs around the suggestion, if any."""

    def curves(self) -> dict[str, np.ndarray]:
        """Losses to plot, (N,) each: per batch, their running average, and from five points on the trend."""
        trend = {"trend": centred(self.losses)[0]} if len(self.losses) >= 5 else {}
        return {"loss of the batch": self.losses, "running average": self.smoothed, **trend}

    def plot(self, title: str = "Learning rate", used: str = "stable") -> Figure:
        """Plot the curve with all suggestions, `used` highlighted.

        Examples
        --------
        >>> rising = np.geomspace(1e-4, 1, 50)
        >>> LrCurve(rising, np.linspace(2, 1, 50), np.linspace(2, 1, 50)).plot().axes[0].get_xlabel()
        'learning rate of the head'
        """
        return plot_lr_curve(self.lrs, self.curves(), self.suggestions(), used, title)

    def suggestions(self) -> dict[str, float]:
        """Suggest learning rates by method: ``stable`` (see `estimate`), and those of `suggest`."""
        return {"stable": self.estimate()[0], **suggest(self.lrs, self.losses)}

    def estimate(self) -> tuple[float, float]:
        """Estimate the learning rate to use, and its uncertainty in decades.

        A single rule moves by a decade between sweeps, so the curves' estimate is the mean of the four rules on the
        averaged sweep, in log10(lr), and its error is the standard deviation over rules and sweeps. It is combined
        with the prior by inverse variances, as for independent measurements. If the loss falls by no more than its
        noise, as with an already trained head, only the prior counts. Trials of lrs override both.
        """
        return self.trials.estimate() if self.trials is not None else self.read()

    def read(self) -> tuple[float, float]:
        """Estimate as `estimate` does, from curves and prior alone."""
        if self.prior is not None and not falls_clearly(self.losses):
            return self.prior.lr, self.prior.decades
        read = np.log10([list(suggest(curve.lrs, curve.losses).values()) for curve in self.sweeps or (self,)])
        seen = float(np.log10(list(suggest(self.lrs, self.losses).values())).mean())
        spread = max(float(read.std()), LEAST_SPREAD)
        if self.prior is None:
            return 10**seen, spread
        weights = np.array([1 / spread**2, 1 / self.prior.decades**2])
        log_lr = float(weights @ [seen, np.log10(self.prior.lr)] / weights.sum())
        return 10**log_lr, float(weights.sum() ** -0.5)


def mean_curve(sweeps: tuple[LrCurve, ...], prior: LrPrior | None) -> LrCurve:
    """Average sweeps over the same learning rates, up to the end of the shortest."""
    end = min(len(sweep.lrs) for sweep in sweeps)
    losses, smoothed = (
        np.mean([getattr(sweep, name)[:end] for sweep in sweeps], axis=0) for name in ("losses", "smoothed")
    )
    return LrCurve(sweeps[0].lrs[:end], losses, smoothed, prior, sweeps)
