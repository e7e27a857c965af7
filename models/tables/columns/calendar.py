"""Features of a row from other days of its group.

The days since and until an event and the mean of the week before look at other rows. From the rows of a request alone
they would depend on how the request was cut, so a model carries its calendar: date, group and event columns of every
row it was trained or validated on. Rows of a request add days that the calendar lacks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from unfreeze.models.errors import UserError
from unfreeze.models.settings.tables import TableDataSpec

ROLLING_DAYS = 7
_DAY = pd.Timedelta(days=1)


@dataclass(frozen=True, eq=False)
class Calendar:
    """Days from which event features are computed.

    Attributes
    ----------
    days
        One row per row of the training table, in its order: date, group, events and values.
    data
        `date`, `group`, `events`, `rolling` and `event_horizon` are used.
    """

    days: pd.DataFrame
    data: TableDataSpec

    @classmethod
    def of(cls, frame: pd.DataFrame, data: TableDataSpec) -> "Calendar":
        """Build the calendar from training rows with parsed dates; `UserError` without a date column."""
        if not data.date:
            raise UserError("data.events and data.rolling need a date column in data.date")
        names = dict.fromkeys([data.date[0], *data.group, *data.events, *data.rolling])
        days = frame[list(names)].reset_index(drop=True)
        # Rolling means count rows; for events only the days matter.
        return cls(days if data.rolling else days.drop_duplicates(ignore_index=True), data)

    @property
    def window(self) -> int:
        """Days before and after a row that can affect its features."""
        return max(self.data.event_horizon if self.data.events else 0, ROLLING_DAYS if self.data.rolling else 0)

    def save(self, path: Path) -> None:
        """Write a feather file that `load` reads."""
        self.days.to_feather(path, compression="zstd")

    @classmethod
    def load(cls, path: Path, data: TableDataSpec) -> "Calendar":
        """Read the calendar that `save` wrote."""
        return cls(pd.read_feather(path), data)

    def own_features(self, frame: pd.DataFrame) -> dict[str, np.ndarray]:
        """Features (n,) float64 by name, for the calendar's own rows."""
        return self._features(frame, np.ones(len(frame), bool))

    def features(self, frame: pd.DataFrame) -> tuple[dict[str, np.ndarray], dict[int, str]]:
        """Features (n,) float64 by name for other rows, and the rows without features because earlier days are missing.

        A group's day in the calendar takes precedence over the row's values; other days come from the rows.
        """
        try:  # cast to the calendar's types: 1 and "1" would be two groups
            frame = frame.astype({name: self.days[name].dtype for name in self.data.group})
        except (TypeError, ValueError) as error:
            known = ", ".join(f"{name} ({self.days[name].dtype})" for name in self.data.group)
            raise UserError(f"data.group: the training had {known}; write these columns likewise ({error})") from error
        # Days further away do not change the features, bit for bit.
        dates, reach = frame[self.data.date[0]], (self.window + 1) * _DAY
        near = self.days[self.days[self.data.date[0]].between(dates.min() - reach, dates.max() + reach)]
        is_new = ~self._keys(frame).isin(self._keys(near))
        whole = pd.concat([near, frame[near.columns]], ignore_index=True)
        features = self._features(whole, np.concatenate([np.ones(len(near), bool), is_new]))
        return {name: values[len(near) :] for name, values in features.items()}, self._unknown(dates)

    def _keys(self, frame: pd.DataFrame) -> pd.MultiIndex:
        """(day, group) of every row."""
        day = frame[self.data.date[0]].dt.normalize()
        return pd.MultiIndex.from_arrays([day, *(frame[name] for name in self.data.group)])

    def _features(self, frame: pd.DataFrame, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Features of every row, computed from the rows marked in `counts`."""
        data, added = self.data, dict[str, np.ndarray]()
        dates, groups = frame[data.date[0]], [frame[name] for name in data.group]
        for name in data.events:
            event = _is_event(frame[name]) & counts
            for direction, days in (("since", days_since), ("until", days_until)):
                # Without a horizon, rows near the table's end would differ from the rest: no later event is known yet.
                distance = np.nan_to_num(days(dates, event, groups), nan=data.event_horizon)
                added[f"days_{direction}_{name}"] = np.minimum(distance, data.event_horizon)
        for name in data.rolling:
            values = frame[name] if is_numeric_dtype(frame[name]) else _is_event(frame[name])
            numbers = np.where(counts, np.asarray(values, dtype=np.float64), np.nan)
            added[f"{name}_last_{ROLLING_DAYS}_days"] = rolling_mean(numbers, dates, groups, ROLLING_DAYS)
        return added

    def _unknown(self, dates: pd.Series) -> dict[int, str]:
        """Rows past the calendar's end after a gap longer than any within it, with the reason."""
        day = dates.dt.normalize()
        known = self.days[self.data.date[0]].dropna().dt.normalize().drop_duplicates().sort_values()
        longest = known.diff().fillna(_DAY).max()
        days = pd.concat([known.tail(1), day[day > known.max()].drop_duplicates().sort_values()])
        unknown: dict[int, str] = {}
        for after, gap in zip(days, days.diff(), strict=True):
            if gap > longest:
                reason = (
                    f"column {dates.name!r}: the days from {(after - gap + _DAY).date()} to {(after - _DAY).date()} "
                    "are in neither the training nor these rows, so that days since events and means of the last days "
                    "are unknown; give their rows as well"
                )
                affected = (day >= after) & (day < after + self.window * _DAY)
                unknown |= dict.fromkeys(np.flatnonzero(affected).tolist(), reason)
        return unknown


def _is_event(column: pd.Series) -> np.ndarray:
    """Whether each row marks an event: a number other than 0, or a text other than "0", "", "no" and "false"."""
    if is_numeric_dtype(column):
        return np.asarray(column.fillna(0) != 0)
    return np.asarray(~column.astype("string").fillna("0").str.lower().isin(["0", "", "false", "no"]), dtype=bool)


def days_since(dates: pd.Series, event: np.ndarray, groups: Sequence[pd.Series]) -> np.ndarray:
    """Whole days since the last event of a row's group, 0 on its day; NaN before the group's first event.

    `event` (n,) bool marks rows with an event; one marked row per day and group is enough.
    """
    day, group, known = _days(dates, groups)
    return _days_to_last(day, group, event, known)


def days_until(dates: pd.Series, event: np.ndarray, groups: Sequence[pd.Series]) -> np.ndarray:
    """Whole days until the next event of a row's group, 0 on its day; NaN after the group's last event.

    This looks ahead, so use it only for events that are planned and known beforehand.
    """
    day, group, known = _days(dates, groups)
    # With time reversed, the next event is the last one.
    return _days_to_last(day.max(initial=0) - day, group, event, known)


def rolling_mean(values: np.ndarray, dates: pd.Series, groups: Sequence[pd.Series], days: int) -> np.ndarray:
    """Mean of a row's group over the `days` before, excluding the row's own day; NaN where there is no value.

    The window counts calendar days, not rows; missing `values` (n,) are ignored. The same day, later days and other
    groups have no effect, not even by rounding: each window adds up its days' sums in order.
    """
    numbers = np.asarray(values, dtype=np.float64)
    day, group, known = _days(dates, groups)
    # Empty days between groups keep windows within their group.
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


def _days(dates: pd.Series, groups: Sequence[pd.Series]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Day (from 0) and group number of the rows with a date, and a mask of those rows."""
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
    events = np.append(-1, np.unique(keys[event[known]]))  # -1 sorts below all groups: every key finds one
    last = events[np.searchsorted(events, keys, side="right") - 1]
    return _scatter(np.where(last >= group * span, keys - last, np.nan), known)


def _scatter(results: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Spread results over the rows with a date; NaN elsewhere."""
    everywhere = np.full(len(known), np.nan)
    everywhere[known] = results
    return everywhere
