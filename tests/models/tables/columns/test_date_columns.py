"""Dates whose parts are columns of their own are put together."""

import numpy as np
import pandas as pd
import pytest

from unfreeze.models.errors import UserError
from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.tables.columns.dates import find_date_columns, with_dates
from unfreeze.models.tables.preparing.prepare import prepare

HOURS = pd.date_range("2019-01-01", periods=400, freq="h")


def frame(**columns: object) -> pd.DataFrame:
    return pd.DataFrame(columns | {"load": np.random.default_rng(0).normal(size=400)})


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (["year", "month", "day", "hour"], {"date": ["year", "month", "day", "hour"]}),
        (["Hour", "Day", "Year", "Month"], {"date": ["Year", "Month", "Day", "Hour"]}),
        (["pickup_year", "pickup_month"], {"pickup_date": ["pickup_year", "pickup_month"]}),
        (["year"], {}),
        (["month", "day"], {}),
        (["year", "day"], {}),
        (["month", "hour"], {}),
    ],
)
def test_columns_from_the_year_on_are_a_date(columns: list[str], found: dict[str, list[str]]) -> None:
    values = {name: getattr(HOURS, name.rpartition("_")[2].lower()) for name in columns}
    assert find_date_columns(frame(**values), ["load"]) == found


def test_columns_of_other_values_are_no_date() -> None:
    assert find_date_columns(frame(year=range(400), month=HOURS.month), []) == {}
    assert find_date_columns(frame(year=HOURS.year, month=range(400)), []) == {}


def test_a_date_is_missing_where_a_part_is_or_where_there_is_no_such_day() -> None:
    parts = pd.DataFrame({"y": [2019, 2019, None], "m": [1, 2, 3], "d": [31, 30, 1]})
    assert with_dates(parts, {"when": ["y", "m", "d"]})["when"].tolist() == [pd.Timestamp("2019-01-31"), pd.NaT, pd.NaT]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["year"], "data.date_from: when: name columns of year, month, day, hour, minute"),
        (["year", "moon"], "data.date_from: when: the table has no column 'moon'"),
        (["year", "name"], "data.date_from: when: column name holds no numbers"),
    ],
)
def test_columns_that_make_no_date_are_named(columns: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        with_dates(frame(year=HOURS.year, name=["a"] * 400), {"when": columns})


def test_a_table_whose_date_is_in_several_columns_is_split_by_time_and_its_hours_are_used() -> None:
    parts = {name: getattr(HOURS, name) for name in ("year", "month", "day", "hour")}
    prepared = prepare(frame(**parts), [], TableDataSpec(target=["load"]))
    assert (prepared.data.split, prepared.data.date) == ("last_days", ["date"])
    assert prepared.raw.needed == ["year", "month", "day", "hour"]
    assert "Hour" in prepared.encoder.kinds
    assert "hour" not in prepared.encoder.kinds
