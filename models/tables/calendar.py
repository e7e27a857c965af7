"""Features of a row from other days of its group: the training's days are kept, so that predictions see the same.

The days since and until an event and the mean of the week before look at other rows. Computed from the rows of a
request alone they would depend on how the request was cut; a model therefore carries its calendar: date, group and the
columns of events of every row that it was trained or validated on. Rows of a request add days that it does not have.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from unfreeze.models.errors import UserError
from unfreeze.models.specs.tables import TableDataSpec
from unfreeze.models.tables.events import days_since, days_until, rolling_mean

ROLLING_DAYS = 7
_DAY = pd.Timedelta(days=1)


@dataclass(frozen=True, eq=False)
class Calendar:
    """Days that features of events are computed from.

    Attributes
    ----------
    days
        A row per row of the training's table, in its order: date, group, events and values.
    data
        `date`, `group`, `events`, `rolling` and `event_horizon` are used.
    """

    days: pd.DataFrame
    data: TableDataSpec

    @classmethod
    def of(cls, frame: pd.DataFrame, data: TableDataSpec) -> "Calendar":
        """The calendar of a training's rows, dates read; without a date a `UserError`."""
        if not data.date:
            raise UserError("data.events and data.rolling need a date column in data.date")
        names = dict.fromkeys([data.date[0], *data.group, *data.events, *data.rolling])
        days = frame[list(names)].reset_index(drop=True)
        # Rolling means count rows; of events only the days matter.
        return cls(days if data.rolling else days.drop_duplicates(ignore_index=True), data)

    @property
    def window(self) -> int:
        """Days before and after a row that its features look at."""
        return max(self.data.event_horizon if self.data.events else 0, ROLLING_DAYS if self.data.rolling else 0)

    def save(self, path: Path) -> None:
        """Write a feather file that `load` reads."""
        self.days.to_feather(path, compression="zstd")

    @classmethod
    def load(cls, path: Path, data: TableDataSpec) -> "Calendar":
        """The calendar that `save` wrote."""
        return cls(pd.read_feather(path), data)

    def own_features(self, frame: pd.DataFrame) -> dict[str, np.ndarray]:
        """Features (n,) float64 by name of the rows that the calendar was made of."""
        return self._features(frame, np.ones(len(frame), bool))

    def features(self, frame: pd.DataFrame) -> tuple[dict[str, np.ndarray], dict[int, str]]:
        """Features (n,) float64 by name of other rows, and which rows have none for lack of days before them.

        A day of a group that the calendar has is taken from there, whatever the row contains; other days are taken
        from the rows.
        """
        try:  # in the calendar's types: 1 and "1" would be two groups
            frame = frame.astype({name: self.days[name].dtype for name in self.data.group})
        except (TypeError, ValueError) as error:
            known = ", ".join(f"{name} ({self.days[name].dtype})" for name in self.data.group)
            raise UserError(f"data.group: the training had {known}; write these columns likewise ({error})") from error
        # Days further away change nothing, to the last bit.
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
        """Features of every row; rows that do not count have features, but take part in nobody's."""
        data, added = self.data, dict[str, np.ndarray]()
        dates, groups = frame[data.date[0]], [frame[name] for name in data.group]
        for name in data.events:
            event = _is_event(frame[name]) & counts
            for direction, days in (("since", days_since), ("until", days_until)):
                # Without an end, rows near the end of the table would differ from all before: no event is known yet.
                distance = np.nan_to_num(days(dates, event, groups), nan=data.event_horizon)
                added[f"days_{direction}_{name}"] = np.minimum(distance, data.event_horizon)
        for name in data.rolling:
            values = frame[name] if is_numeric_dtype(frame[name]) else _is_event(frame[name])
            numbers = np.where(counts, np.asarray(values, dtype=np.float64), np.nan)
            added[f"{name}_last_{ROLLING_DAYS}_days"] = rolling_mean(numbers, dates, groups, ROLLING_DAYS)
        return added

    def _unknown(self, dates: pd.Series) -> dict[int, str]:
        """Rows after a gap behind the calendar's end that is longer than any gap in it."""
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
