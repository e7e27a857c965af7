"""Days since, days until and means of the days before agree with loops, and never look where they must not."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from hypothesis import given, strategies as st

from unfreeze.models.tables.columns.calendar import days_since, days_until, rolling_mean

NAN = np.nan
EPOCH = pd.Timestamp("1969-12-20")
"""The days of tests lie on both sides of 1970."""


@dataclass
class Rows:
    """Rows by day, with two group columns; a day of None is missing."""

    days: list[int | None]
    shops: list[str | None]
    kinds: list[int]
    events: list[bool]
    values: list[float]

    @property
    def dates(self) -> pd.Series:
        # An hour of the day that differs from row to row, which must not matter.
        times = [
            pd.NaT if day is None else EPOCH + pd.Timedelta(days=day, hours=row % 24)
            for row, day in enumerate(self.days)
        ]
        return pd.Series(times, dtype="datetime64[us]", index=pd.RangeIndex(100, 100 + len(times)))

    @property
    def groups(self) -> list[pd.Series]:
        return [pd.Series(self.shops, dtype="str"), pd.Series(self.kinds, dtype="int64")]

    @property
    def flags(self) -> np.ndarray:
        return np.array(self.events, dtype=bool)

    @property
    def numbers(self) -> np.ndarray:
        return np.array(self.values, dtype=np.float64)

    def related(self, row: int, wanted: Callable[[int], bool]) -> list[int]:
        """Rows of the same group, whose day minus that of `row` is wanted."""
        own = self.days[row]
        return [
            other
            for other, day in enumerate(self.days)
            if own is not None and day is not None and wanted(day - own)
            if (self.shops[other], self.kinds[other]) == (self.shops[row], self.kinds[row])
        ]

    def distance(self, row: int, other: int) -> int:
        return abs((self.days[other] or 0) - (self.days[row] or 0))


@st.composite
def some_rows(draw: st.DrawFn) -> Rows:
    value = st.integers(-50, 50).map(float) | st.just(NAN)
    row = st.tuples(
        st.integers(0, 25) | st.none(), st.sampled_from(["a", "b", None]), st.integers(0, 1), st.booleans(), value
    )
    drawn = draw(st.lists(row, max_size=40))
    return Rows(*([list(column) for column in zip(*drawn, strict=True)] if drawn else [[], [], [], [], []]))


def series(*days: str) -> pd.Series:
    return pd.Series(pd.to_datetime(list(days), format="ISO8601"))


# --- events -----------------------------------------------------------------------------------------------------------


@given(some_rows())
def test_days_to_events_are_those_of_a_loop(rows: Rows) -> None:
    for function, wanted in (
        (days_since, lambda apart: apart <= 0),
        (days_until, lambda apart: apart >= 0),
    ):
        expected = [
            min((rows.distance(row, other) for other in rows.related(row, wanted) if rows.events[other]), default=NAN)
            for row in range(len(rows.days))
        ]
        np.testing.assert_array_equal(function(rows.dates, rows.flags, rows.groups), expected)


@given(some_rows(), st.data())
def test_a_later_event_changes_no_earlier_day_since(rows: Rows, data: st.DataObject) -> None:
    before = days_since(rows.dates, rows.flags, rows.groups)
    today = data.draw(st.integers(0, 25))
    later = np.array([day is not None and day > today for day in rows.days], dtype=bool)
    after = days_since(rows.dates, rows.flags ^ later, rows.groups)
    np.testing.assert_array_equal(before[~later], after[~later])


def test_an_event_ends_at_the_border_of_its_group() -> None:
    dates = series("2015-07-01", "2015-07-02", "2015-07-03", "2015-07-04")
    event = np.array([True, False, False, True])
    shops = [pd.Series([1, 1, 2, 2])]
    np.testing.assert_array_equal(days_since(dates, event, shops), [0, 1, NAN, 0])
    np.testing.assert_array_equal(days_until(dates, event, shops), [0, NAN, 1, 0])


def test_one_row_of_a_day_makes_it_a_day_of_the_event() -> None:
    dates = series("2015-07-02", "2015-07-01 23:00", "2015-07-01 01:00")
    event = np.array([False, False, True])
    np.testing.assert_array_equal(days_since(dates, event, []), [1, 0, 0])
    np.testing.assert_array_equal(days_until(dates, event, []), [NAN, 0, 0])


def test_many_group_columns_of_many_values_do_not_overflow() -> None:
    dates = series("1700-01-01", "2200-01-01").repeat(500).reset_index(drop=True)
    columns = [pd.Series(np.arange(1000) % 500) for _ in range(12)]
    event = np.arange(1000) < 500
    apart = (pd.Timestamp("2200-01-01") - pd.Timestamp("1700-01-01")).days
    np.testing.assert_array_equal(days_since(dates, event, columns), np.repeat([0, apart], 500))


# --- rolling means ----------------------------------------------------------------------------------------------------


@given(some_rows(), st.integers(1, 30))
def test_a_rolling_mean_is_that_of_a_loop(rows: Rows, window: int) -> None:
    expected = []
    for row in range(len(rows.days)):
        before = [rows.values[other] for other in rows.related(row, lambda apart: -window <= apart < 0)]
        present = [value for value in before if not np.isnan(value)]
        expected.append(sum(present) / len(present) if present else NAN)
    np.testing.assert_array_equal(rolling_mean(rows.numbers, rows.dates, rows.groups, window), expected)


@given(some_rows(), st.integers(1, 9), st.data())
def test_a_value_of_today_or_later_changes_no_rolling_mean(rows: Rows, window: int, data: st.DataObject) -> None:
    before = rolling_mean(rows.numbers / 7, rows.dates, rows.groups, window)
    today = data.draw(st.integers(0, 25))
    changed = rows.numbers / 7
    changed[[day is not None and day >= today for day in rows.days]] = data.draw(st.sampled_from([1e300, np.inf, NAN]))
    after = rolling_mean(changed, rows.dates, rows.groups, window)
    until_today = [day is None or day <= today for day in rows.days]
    np.testing.assert_array_equal(before[until_today], after[until_today])


def test_a_window_is_of_days_not_of_rows() -> None:
    dates = series("2015-07-01", "2015-07-08", "2015-07-09", "2015-07-09")
    means = rolling_mean(np.array([1.0, 2.0, 30.0, 40.0]), dates, [], 7)
    np.testing.assert_array_equal(means, [NAN, 1, 2, 2])


def test_a_huge_value_leaves_what_its_window_does_not_hold_as_it_is() -> None:
    dates = series("2015-07-01", "2015-07-02", "2015-07-03", "2015-07-04")
    np.testing.assert_array_equal(
        rolling_mean(np.array([1e300, np.inf, 0.1, 0.1]), dates, [], 1), [NAN, 1e300, np.inf, 0.1]
    )
    shops = [pd.Series([1, 1, 2, 2])]
    np.testing.assert_array_equal(rolling_mean(np.array([1e300, 5, 0.1, 0.2]), dates, shops, 9), [NAN, 1e300, NAN, 0.1])
