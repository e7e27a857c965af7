"""Features of a series from its own calendar: days since and until an event, and means of the days before.

In all functions `dates` (n,) are datetime64 in any order, whose time of day is ignored; a day may have several rows.
`groups` are the columns that name a group: a missing value is a value like any other, no columns are one group. Results
are (n,) float64 and NaN where the date is missing. A ValueError is raised for columns of different lengths, dates with
a zone or of another type, and events that are not bool.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def days_since(dates: pd.Series, event: np.ndarray, groups: Sequence[pd.Series]) -> np.ndarray:
    """Whole days since the last event of a row's group, 0 on its day; NaN before the group's first event.

    `event` (n,) bool marks days of an event of the row's group; one such row of a day is enough.
    """
    day, group, known = _days(dates, event, groups)
    return _days_to_last(day, group, event, known)


def days_until(dates: pd.Series, event: np.ndarray, groups: Sequence[pd.Series]) -> np.ndarray:
    """Whole days until the next event of a row's group, 0 on its day; NaN after the group's last event.

    This looks ahead: it is a feature only where the events are planned and known beforehand.
    """
    day, group, known = _days(dates, event, groups)
    # With the calendar backwards, the next event is the last one.
    return _days_to_last(day.max(initial=0) - day, group, event, known)


def rolling_mean(values: np.ndarray, dates: pd.Series, groups: Sequence[pd.Series], days: int) -> np.ndarray:
    """Mean of a row's group over the days before, without the row's own day; NaN where there is no value.

    The window is one of time, not of rows: with `days` 7, the rows of the seven calendar days before, however many;
    missing `values` (n,) are ignored. Nothing of the same day, a later day or another group takes part, not even by
    rounding: each day's sums are added up anew for every window, in the order of the days.
    """
    if days < 1:
        raise ValueError(f"a window needs at least 1 day, not {days}")
    numbers = np.asarray(values, dtype=np.float64)
    day, group, known = _days(dates, numbers, groups)
    # With empty days between the groups, no window reaches into another group.
    keys, position = np.unique(group * (day.max(initial=0) + 1 + days) + day, return_inverse=True)
    present = ~np.isnan(numbers[known])
    counts = np.bincount(position, weights=present, minlength=len(keys))
    sums = np.bincount(position, weights=np.where(present, numbers[known], 0), minlength=len(keys))
    total, count = np.zeros(len(keys)), np.zeros(len(keys))
    for before in range(days, 0, -1):
        place = np.searchsorted(keys, keys - before)
        found = keys[place] == keys - before
        total[found] += sums[place[found]]
        count[found] += counts[place[found]]
    means = np.divide(total, count, out=np.full(len(keys), np.nan), where=count > 0)
    return _scatter(means[position], known)


def _days(
    dates: pd.Series, values: np.ndarray, groups: Sequence[pd.Series]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Day, from 0, and number of the group of the rows with a date; and which rows have one."""
    lengths = [len(dates), len(values), *(len(column) for column in groups)]
    if len(set(lengths)) > 1:
        raise ValueError(f"dates, values and groups differ in length: {', '.join(map(str, lengths))}")
    if values.dtype not in (np.bool_, np.float64):
        raise ValueError(f"events must be bool, not {values.dtype}: decide first which texts or missing values are one")
    if dates.dtype.kind != "M" or isinstance(dates.dtype, pd.DatetimeTZDtype):
        raise ValueError(f"dates must be datetime64 without a zone, not {dates.dtype}")
    known = dates.notna().to_numpy()
    day = dates.to_numpy()[known].astype("datetime64[D]").astype(np.int64)
    group: np.ndarray = np.zeros(len(dates), np.int64)
    if groups:
        columns = pd.DataFrame({number: column.array for number, column in enumerate(groups)})
        group = columns.groupby([*columns], dropna=False, sort=False).ngroup().to_numpy()
    return day - day.min(initial=np.iinfo(np.int64).max), group[known], known


def _days_to_last(day: np.ndarray, group: np.ndarray, event: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Days since the last event of each row's group."""
    span = day.max(initial=0) + 1
    keys = group * span + day
    events = np.append(-1, np.unique(keys[event[known]]))  # -1 is below all groups, so that every key has one
    last = events[np.searchsorted(events, keys, side="right") - 1]
    return _scatter(np.where(last >= group * span, keys - last, np.nan), known)


def _scatter(results: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Results in the rows that have a date, NaN in the others."""
    everywhere = np.full(len(known), np.nan)
    everywhere[known] = results
    return everywhere
