"""Shares of rows, such as an accuracy: intervals that hold for few rows and for none or all of them as well.

A bootstrap of rows that are all right draws nothing but rows that are right, and would be sure.
"""

from collections.abc import Callable
from math import hypot, sqrt

import numpy as np
from scipy.stats import beta, t as student

OUTSIDE = 0.025
"""Share of cases beyond each end of an interval."""


class ShareOfRows:
    """A metric that is a share of rows: `holds` says of which, (N,) bool, and takes what the metric takes."""

    def __init__(self, holds: Callable[..., np.ndarray]) -> None:
        self.holds = holds

    def __call__(self, *arrays: np.ndarray) -> float:
        """The share."""
        return float(self.holds(*arrays).mean())


def share_interval(held: np.ndarray, blocks: np.ndarray | None = None) -> tuple[float, float]:
    """95 % interval of the share of rows, (N,) bool, for which something holds (Clopper and Pearson 1934).

    Parameters
    ----------
    held
        Of every row.
    blocks
        Block of every row (N,), where rows are not independent: they count as fewer, by Korn and Graubard ("Confidence
        intervals for proportions with small expected number of positive counts estimated from survey data", 1998).
        Rows that are all alike do not show how much those of a block depend on each other: each block counts once.
    """
    if blocks is None:
        return exact_interval(int(held.sum()), len(held))
    share, codes = float(held.mean()), np.unique(blocks, return_inverse=True)[1]
    count = int(codes.max()) + 1
    rows = float(count)
    if count > 1 and 0 < share < 1:
        variance = count / (count - 1) * np.square(np.bincount(codes, held - share)).sum() / len(held) ** 2
        rows = len(held) if variance == 0 else min(len(held), share * (1 - share) / variance)
        rows *= (student.ppf(OUTSIDE, len(held) - 1) / student.ppf(OUTSIDE, count - 1)) ** 2
    return exact_interval(share * rows, rows)


def exact_interval(count: float, rows: float) -> tuple[float, float]:
    """Clopper and Pearson's 95 % interval of a share: `count` of `rows`."""
    low = float(beta.ppf(OUTSIDE, count, rows - count + 1)) if count > 0 else 0.0
    high = float(beta.ppf(1 - OUTSIDE, count + 1, rows - count)) if count < rows else 1.0
    return low, high


def paired_interval(gained: int, lost: int, rows: int) -> tuple[float, float]:
    """95 % interval of the difference of two shares of the same rows: (gained - lost) / rows.

    The wider of two: exact limits of both parts, put together by Zou and Donner ("Construction of confidence limits
    about effect measures", 2008), and those given how many rows differ, which is all that McNemar's exact test looks
    at. So the interval excludes 0 only where that test sees a difference.
    """
    (up, down), ends = (gained / rows, lost / rows), [exact_interval(count, rows) for count in (gained, lost)]
    (up_low, up_high), (down_low, down_high) = ends
    # Of three shares that add up to 1.
    correlation = -sqrt(up * down / ((1 - up) * (1 - down))) if up < 1 and down < 1 else 0.0

    def reach(one: float, other: float) -> float:
        return sqrt(hypot(one, other) ** 2 - 2 * correlation * one * other)

    low, high = up - down - reach(up - up_low, down_high - down), up - down + reach(up_high - up, down - down_low)
    if differing := gained + lost:
        given = [(2 * end - 1) * differing / rows for end in exact_interval(gained, differing)]
        low, high = min(low, given[0]), max(high, given[1])
    return max(low, -1.0), min(high, 1.0)
