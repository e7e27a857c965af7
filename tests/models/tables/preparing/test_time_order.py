import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.tables.preparing.prepare import Prepared, prepare
from unfreeze.models.tables.preparing.splits import choose_split, is_series, row_blocks, time_blocks, validation_days

RANDOM = np.random.default_rng(0)
DAILY = pd.date_range("2020-01-01", periods=400)


def table_of(days: pd.Series | pd.DatetimeIndex, **data: object) -> Prepared:
    rows = len(days)
    frame = pd.DataFrame({"day": np.asarray(days.strftime("%Y-%m-%d")), "area": RANDOM.normal(size=rows)})
    return prepare(frame.assign(sold=RANDOM.normal(size=rows)), [], TableDataSpec(target=["sold"], **data))


SERIES = {
    "in order": DAILY,
    "backward": DAILY[::-1],
    "many rows a day": DAILY.repeat(3),
    "a series below the other": DAILY.append(DAILY),
    "one row a day, shuffled": DAILY[RANDOM.permutation(400)],
    "one row a week, shuffled": pd.date_range("2015-01-01", periods=200, freq="7D")[RANDOM.permutation(200)],
    "nearly in order": DAILY[np.arange(400) + np.where(np.arange(400) % 40 == 0, 1, 0) * (np.arange(400) < 399)],
}


@pytest.mark.parametrize("kind", SERIES)
def test_a_series_is_split_by_its_last_days_although_nobody_named_the_date(kind: str) -> None:
    table = table_of(SERIES[kind])
    assert (table.data.split, table.data.date) == ("last_days", ["day"])
    days = table.frame["day"]
    assert days.iloc[table.train].max() < days.iloc[table.valid].min()
    assert "order of day" in table.roles[0].reason


BIRTHDAYS = DAILY[RANDOM.integers(0, 400, 300)]
FAR_APART = pd.Timestamp("1950-01-01") + pd.to_timedelta(RANDOM.integers(0, 20_000, 300), unit="D")


@pytest.mark.parametrize("days", [BIRTHDAYS, pd.DatetimeIndex(FAR_APART)], ids=["repeated", "nearly one a row"])
def test_dates_in_no_order_split_nothing_unless_they_are_named(days: pd.DatetimeIndex) -> None:
    found = table_of(days)
    assert found.data.split == "random"
    assert any("at random although day holds dates" in warning for warning in found.warnings)
    assert table_of(days, date=["day"]).data.split == "last_days"
    assert table_of(DAILY, split="random").data.split == "random"


def test_constant_and_missing_dates_are_no_series() -> None:
    assert not is_series(pd.Series(pd.to_datetime(["2020-01-01"] * 30)))
    assert not is_series(pd.Series(pd.to_datetime([None] * 30)))


@given(days=st.integers(2, 4000), test=st.integers(0, 30))
def test_about_a_fifth_of_the_time_validates_from_a_day_to_a_year(days: int, test: int) -> None:
    dates = pd.Series(pd.date_range("2001-01-01", periods=days))
    found = validation_days(dates, TableDataSpec(date=["day"], test_days=test))
    assert 1 <= found <= 365
    fifth = (days - test) / 5
    assert found in {1, 365} or abs(found - fifth) <= 1 + 0.01 * days


def test_a_few_wrong_years_do_not_stretch_the_time() -> None:
    dates = pd.Series([pd.Timestamp("1900-01-01"), *pd.date_range("2020-01-01", periods=400)])
    assert 75 <= validation_days(dates, TableDataSpec(date=["day"])) <= 85
    assert validation_days(dates, TableDataSpec(date=["day"], valid_days=3)) == 3


def test_the_days_that_validate_are_stated_with_the_flag_that_changes_them() -> None:
    line = str(table_of(DAILY).roles[0])
    assert line.startswith("rows: split by time, the last 79 days of day validate, as the rows are in the order of day")
    assert "--data.valid_days DAYS, or --data.split random" in line
    assert "but for the 10 last, which test" in str(table_of(DAILY, test_days=10).roles[0])


def test_parts_of_dates_that_the_training_never_saw_are_left_out_and_stated() -> None:
    table = table_of(DAILY, date=["day"], valid_days=60)  # ends in February 2021
    left_out = {role.column for role in table.roles if "no training row has" in role.reason}
    assert {"dayYear", "dayDayofyear"} <= left_out
    assert "dayElapsed" in table.encoder.continuous  # what is later than all that was seen is like the last of it
    assert not left_out & {"dayDayofweek", "dayDay"}
    assert not left_out & set(table.encoder.columns())
    assert "--data.continuous dayYear" in next(str(role) for role in table.roles if role.column == "dayYear")


def test_parts_that_a_setting_names_stay() -> None:
    table = table_of(DAILY, date=["day"], valid_days=60, continuous=["dayDayofyear"])
    assert "dayDayofyear" in table.encoder.continuous


def test_a_random_split_leaves_no_part_out() -> None:
    table = table_of(BIRTHDAYS)
    assert not [role for role in table.roles if "no training row has" in role.reason]
    assert {"dayMonth", "dayElapsed"} <= set(table.encoder.columns())


def hourly(rows: int) -> pd.DataFrame:
    """What a sensor measured hour by hour, without a date."""
    random = np.random.default_rng(0)
    temperature = np.cumsum(random.normal(size=rows)) + 5 * np.sin(np.arange(rows) * np.pi / 12)
    humidity = np.cumsum(random.normal(size=rows))
    return pd.DataFrame(
        {"temperature": temperature, "humidity": humidity, "load": temperature + random.normal(size=rows)}
    )


def test_rows_that_are_a_series_without_a_date_are_split_by_their_order() -> None:
    data, role = choose_split(hourly(300), TableDataSpec(target=["load"]), TableDataSpec(target=["load"]))
    assert data.split == "last_rows"
    assert str(role).startswith("rows: split by their order, the last 20% of the rows validate, as rows one after the")
    assert role.flag == "--data.split random"


@pytest.mark.parametrize(
    ("name", "frame"),
    {
        "shuffled": hourly(300).sample(frac=1, random_state=0),
        "sorted by the target": hourly(300).sort_values("load"),
        "few rows": hourly(60),
        "sorted by classes": hourly(300).assign(load=np.repeat(["a", "b", "c"], 100)),
        "a target of chance": hourly(300).assign(load=np.random.default_rng(1).normal(size=300)),
    }.items(),
)
def test_other_rows_without_a_date_are_split_at_random(name: str, frame: pd.DataFrame) -> None:
    frame = frame.reset_index(drop=True)
    assert choose_split(frame, TableDataSpec(target=["load"]), TableDataSpec(target=["load"]))[0].split == "random"


def test_rows_are_resampled_by_weeks_or_by_days_where_there_are_few_weeks() -> None:
    hours = pd.Series(pd.date_range("2024-01-04", periods=24 * 20, freq="h"))
    assert len(np.unique(time_blocks(hours))) == 20
    assert len(np.unique(time_blocks(pd.Series(pd.date_range("2024-01-04", periods=70))))) == 10
    assert np.bincount(row_blocks(100)).tolist() == [5] * 20
