"""Features of a series from its own calendar: days since and until an event, and means of the days before."""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def days_since(dates: pd.Series, event: np.ndarray, groups: Sequence[pd.Series]) -> np.ndarray:
    """Days since the last event of a row's group, up to and including the row's day.

    Parameters
    ----------
    dates : Series of length n, datetime64
        In any order; the time of day is ignored, and a day may have several rows.
    event : array of shape (n,), bool
        Whether the row's day is a day of the event for its group; one such row of a day is enough.
    groups : sequence of Series of length n
        The columns that name a group. A missing value is a value like any other; no columns are one group.

    Returns
    -------
    array of shape (n,), float64
        Whole days, 0 on a day of the event; NaN before the group's first event and where the date is missing.

    Raises
    ------
    ValueError
        If the lengths differ, `event` is not bool or `dates` are not naive dates.
    """
    days, known, codes, span = _calendar(dates, event, groups)
    keys = codes * span + days
    return _scatter(_distance_to_last(keys, keys[event[known]], span), known)


def days_until(dates: pd.Series, event: np.ndarray, groups: Sequence[pd.Series]) -> np.ndarray:
    """Days until the next event of a row's group, from the row's day on.

    This looks ahead: it is a feature only where the events are planned and known beforehand.

    Parameters
    ----------
    dates, event, groups
        See `days_since`.

    Returns
    -------
    array of shape (n,), float64
        Whole days, 0 on a day of the event; NaN after the group's last event and where the date is missing.

    Raises
    ------
    ValueError
        See `days_since`.
    """
    days, known, codes, span = _calendar(dates, event, groups)
    # With the calendar backwards, the next event is the last one.
    keys = codes * span + (span - 1 - days)
    return _scatter(_distance_to_last(keys, keys[event[known]], span), known)


def rolling_mean(values: np.ndarray, dates: pd.Series, groups: Sequence[pd.Series], days: int) -> np.ndarray:
    """Mean of a row's group over the days before, without the row's own day.

    The window is one of time, not of rows: with `days` 7, the rows of the seven calendar days before, however many.
    Nothing of the same day, a later day or another group takes part, not even by rounding.

    Parameters
    ----------
    values : array of shape (n,), numbers
        Missing (NaN) ones are ignored.
    dates : Series of length n, datetime64
        In any order; the time of day is ignored, and a day may have several rows.
    groups : sequence of Series of length n
        The columns that name a group; see `days_since`.
    days : int
        Length of the window, at least 1.

    Returns
    -------
    array of shape (n,), float64
        NaN where the window holds no value, and where the date is missing.

    Raises
    ------
    ValueError
        If the lengths differ, `days` is below 1 or `dates` are not naive dates.
    """
    if days < 1:
        raise ValueError(f"a window needs at least 1 day, not {days}")
    numbers = np.asarray(values, dtype=np.float64)
    day, known, codes, span = _calendar(dates, numbers, groups)
    unique, position = np.unique(codes * span + day, return_inverse=True)
    present = ~np.isnan(numbers[known])
    counts = np.bincount(position, weights=present, minlength=len(unique))
    sums = np.bincount(position, weights=np.where(present, numbers[known], 0), minlength=len(unique))
    first = np.searchsorted(unique, np.maximum(unique - days, unique // span * span))
    total, count = _window_sums(sums, first), _window_sums(counts, first)
    means = np.divide(total, count, out=np.full(len(unique), np.nan), where=count > 0)
    return _scatter(means[position], known)


def _calendar(
    dates: pd.Series, values: np.ndarray, groups: Sequence[pd.Series]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Days from the first one and codes of groups of the rows with a date, which rows these are, and the days in all.

    A group's code times the days in all, plus the day, numbers the days of all groups without overlap.
    """
    lengths = [len(dates), len(values), *(len(column) for column in groups)]
    if len(set(lengths)) > 1:
        raise ValueError(f"dates, values and groups differ in length: {', '.join(map(str, lengths))}")
    if values.dtype not in (np.bool_, np.float64):
        raise ValueError(
            f"events must be bool, not {values.dtype}: whether text or a missing value is one is yours to say"
        )
    if dates.dtype.kind != "M" or isinstance(dates.dtype, pd.DatetimeTZDtype):
        raise ValueError(f"dates must be datetime64 without a zone, not {dates.dtype}")
    known = dates.notna().to_numpy()
    days = dates.to_numpy()[known].astype("datetime64[D]").astype(np.int64)
    days -= days.min(initial=np.iinfo(np.int64).max)
    return days, known, _codes(groups, len(dates))[known], int(days.max(initial=0)) + 1


def _codes(groups: Sequence[pd.Series], rows: int) -> np.ndarray:
    """One number from 0 per combination of values."""
    codes = np.zeros(rows, dtype=np.int64)
    for column in groups:
        more, values = pd.factorize(column, use_na_sentinel=False)
        # Numbered anew after each column: products of many columns' counts would overflow.
        codes = pd.factorize(codes * max(len(values), 1) + more)[0]
    return codes


def _distance_to_last(keys: np.ndarray, events: np.ndarray, span: int) -> np.ndarray:
    """How far below each key the nearest of `events` lies, NaN if it is in another group."""
    # Below all groups, so that every key has one.
    events = np.append(-1, np.unique(events))
    last = events[np.searchsorted(events, keys, side="right") - 1]
    return np.where(last >= keys // span * span, keys - last, np.nan)


def _window_sums(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Sums of `values[first[i]:i]` for each i.

    Each window is put together from sums of 1, 2, 4, ... neighbours, so that a sum holds nothing from outside its
    window. Differences of running sums would: one huge, infinite or merely other value would change all that follow.
    """
    position, length = first.copy(), np.arange(len(values)) - first
    total, block, width = np.zeros(len(values)), values, 1
    while (length >= width).any():
        taken = (length & width) > 0
        total[taken] += block[position[taken]]
        position[taken] += width
        block = block[:-width] + block[width:]
        width *= 2
    return total


def _scatter(results: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Results in the rows that have a date, NaN in the others."""
    everywhere = np.full(len(known), np.nan)
    everywhere[known] = results
    return everywhere
