"""Dates are read as they were meant, and their parts are those of Python's own calendar, named as fastai names them."""

import calendar
import math
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from unfreeze.models.errors import UserError
from unfreeze.models.tables.columns.date_texts import parse_dates
from unfreeze.models.tables.columns.dates import add_datepart, add_datepart_to_file, date_parts

NUMBERS = ["Year", "Month", "Week", "Day", "Dayofweek", "Dayofyear"]
FLAGS = ["Is_month_end", "Is_month_start", "Is_quarter_end", "Is_quarter_start", "Is_year_end", "Is_year_start"]
TIMES = ["Hour", "Minute", "Second"]
UNITS = ["s", "ms", "us", "ns"]
NS_RANGE = (datetime(1678, 1, 1), datetime(2262, 1, 1))
MOMENTS = st.one_of(
    st.datetimes(*NS_RANGE),
    # Days about New Year and the end of February, where weeks and months are easily wrong.
    st.builds(
        lambda year, day, seconds: datetime(year, 1, 1) + timedelta(days=day, seconds=seconds),
        st.integers(1890, 2110),
        st.integers(-5, 5) | st.integers(56, 62),
        st.integers(0, 86_399),
    ),
)
EPOCH = datetime(1970, 1, 1)
BERLIN = "Europe/Berlin"


def naive_parts(moment: datetime) -> dict[str, Any]:
    """Parts by Python's own calendar."""
    last_day = calendar.monthrange(moment.year, moment.month)[1]
    starts, ends = moment.day == 1, moment.day == last_day
    return {
        "Year": moment.year,
        "Month": moment.month,
        "Week": moment.isocalendar().week,
        "Day": moment.day,
        "Dayofweek": moment.weekday(),
        "Dayofyear": moment.timetuple().tm_yday,
        "Is_month_end": ends,
        "Is_month_start": starts,
        "Is_quarter_end": ends and moment.month in (3, 6, 9, 12),
        "Is_quarter_start": starts and moment.month in (1, 4, 7, 10),
        "Is_year_end": (moment.month, moment.day) == (12, 31),
        "Is_year_start": (moment.month, moment.day) == (1, 1),
        "Hour": moment.hour,
        "Minute": moment.minute,
        "Second": moment.second,
        "Elapsed": (moment - EPOCH) // timedelta(seconds=1),
    }


def naive_waves(moment: datetime) -> dict[str, float]:
    days_of_year = 366 if calendar.isleap(moment.year) else 365
    shares = {
        "Month": (moment.month - 1) / 12,
        "Dayofweek": moment.weekday() / 7,
        "Dayofyear": (moment.timetuple().tm_yday - 1) / days_of_year,
        "Day": (moment.day - 1) / calendar.monthrange(moment.year, moment.month)[1],
        "Hour": moment.hour / 24,
    }
    return {
        f"{name}_{wave.__name__}": wave(2 * math.pi * share)
        for name, share in shares.items()
        for wave in (math.sin, math.cos)
    }


# --- parts ------------------------------------------------------------------------------------------------------------


@given(st.lists(MOMENTS, max_size=30), st.sampled_from(UNITS))
def test_parts_are_those_of_the_calendar(moments: list[datetime], unit: str) -> None:
    values = pd.Series(np.array(moments, dtype="datetime64[us]").astype(f"datetime64[{unit}]"))
    parts = date_parts(values, "", time=True)
    assert list(parts) == [*NUMBERS, *FLAGS, *TIMES, "Elapsed"]
    for name, part in parts.items():
        assert part.tolist() == [naive_parts(moment)[name] for moment in moments], name
        assert part.dtype == (bool if name in FLAGS else np.float64 if name == "Elapsed" else np.int32), name


def test_every_day_of_two_centuries_has_the_parts_of_the_calendar() -> None:
    days = [datetime(1899, 1, 1) + timedelta(days=day) for day in range(74_000)]
    expected = pd.DataFrame([naive_parts(day) for day in days])
    parts = date_parts(pd.Series(days, dtype="datetime64[us]"), "", time=True)
    pd.testing.assert_frame_equal(pd.DataFrame(parts), expected, check_dtype=False)


@given(st.lists(MOMENTS, min_size=1, max_size=30))
def test_waves_go_once_around_in_their_period(moments: list[datetime]) -> None:
    parts = date_parts(pd.Series(np.array(moments, dtype="datetime64[us]")), "", time=True, cyclic=True)
    waves = {name: part for name, part in parts.items() if name.endswith(("_sin", "_cos"))}
    assert sorted(waves) == sorted(naive_waves(moments[0]))
    for name, wave in waves.items():
        assert wave.dtype == np.float32
        np.testing.assert_allclose(wave, [naive_waves(moment)[name] for moment in moments], atol=1e-6)


@given(st.lists(MOMENTS | st.none(), max_size=30))
def test_missing_dates_are_nan_and_change_no_other_row(moments: list[datetime | None]) -> None:
    missing = np.array([moment is None for moment in moments], dtype=bool)
    every = pd.Series(np.array(moments, dtype="datetime64[us]"))
    parts = date_parts(every, "", time=True, cyclic=True)
    of_present = date_parts(every[~missing], "", time=True, cyclic=True)
    for name, part in parts.items():
        np.testing.assert_array_equal(part[~missing], of_present[name])
        blank = part[missing]
        assert not blank.any() if name in FLAGS else np.isnan(blank).all()
        assert part.dtype == (np.float64 if missing.any() and name in NUMBERS + TIMES else of_present[name].dtype)


@pytest.mark.parametrize(
    ("day", "week"),
    [
        ("2015-12-31", 53),
        ("2016-01-03", 53),
        ("2016-01-04", 1),
        ("2018-12-31", 1),
        ("2020-12-31", 53),
        ("2021-01-03", 53),
        ("1969-12-28", 52),
        ("1969-12-29", 1),
        ("1965-12-31", 52),
        ("1954-01-03", 53),
    ],
)
def test_a_week_belongs_to_the_year_of_its_thursday(day: str, week: int) -> None:
    assert date_parts(parse_dates(pd.Series([day]), "day"), "")["Week"].tolist() == [week]


def test_a_second_before_1970_is_the_last_of_1969() -> None:
    parts = date_parts(pd.Series(pd.to_datetime(["1969-12-31T23:59:59.5"])), "", time=True)
    assert {name: part.item() for name, part in parts.items()} == naive_parts(datetime(1969, 12, 31, 23, 59, 59))


def test_without_cyclic_or_time_there_are_neither() -> None:
    assert list(date_parts(pd.Series(pd.to_datetime(["2015-07-31"])), "x")) == [
        f"x{name}" for name in [*NUMBERS, *FLAGS, "Elapsed"]
    ]
    assert not any(name.startswith("Hour") for name in date_parts(pd.Series([EPOCH]), "", cyclic=True))


# --- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "first"),
    [("Date", "Year"), ("saledate", "saleYear"), ("date_of_sale", "date_of_saleYear"), ("Dated", "DatedYear")],
)
def test_parts_are_named_after_the_column_without_date(column: str, first: str) -> None:
    frame = pd.DataFrame({"a": [1], column: ["2015-07-31"], "b": [2]}, index=[7])
    added = add_datepart(frame, column)
    assert list(added.columns[:3]) == ["a", "b", first]
    assert added.index.tolist() == [7]
    assert added[first].tolist() == [2015]


def test_the_table_given_stays_as_it_is() -> None:
    frame = pd.DataFrame({"Date": ["2015-07-31", None], "Year": [1, 2]})
    before = frame.copy(deep=True)
    added = add_datepart(frame, "Date", time=True, cyclic=True)
    pd.testing.assert_frame_equal(frame, before)
    assert list(added.columns[:2]) == ["Year", "Month"]
    assert added["Year"].tolist()[:1] == [2015]


def test_rows_whose_index_repeats_stay_apart() -> None:
    frame = pd.DataFrame({"Date": ["2015-07-31", "2016-08-01"], "a": [1, 2]}, index=[3, 3])
    added = add_datepart(frame, "Date")
    assert added[["a", "Year"]].to_numpy().tolist() == [[1, 2015], [2, 2016]]
    assert add_datepart(frame.iloc[:0], "Date").columns.tolist() == added.columns.tolist()


@pytest.mark.parametrize(
    ("column", "message"),
    [("date", "no column 'date'; did you mean Date?"), ("xyz", "no column 'xyz'; it has: Date, Store")],
)
def test_a_column_that_is_not_there_is_named(column: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        add_datepart(pd.DataFrame({"Date": ["2015-07-31"], "Store": [1]}), column)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".feather"])
@pytest.mark.parametrize("out_suffix", [".csv", ".parquet", ".feather", ".FEATHER"])
def test_files_of_every_format_become_files_of_every_format(tmp_path: Path, suffix: str, out_suffix: str) -> None:
    frame = pd.DataFrame({"Date": ["2015-07-31", "2015-08-01"], "Sales": [5, 6]})
    source, out = tmp_path / f"in{suffix}", tmp_path / f"out{out_suffix}"
    {".csv": lambda path: frame.to_csv(path, index=False), ".parquet": frame.to_parquet, ".feather": frame.to_feather}[
        suffix
    ](source)
    assert add_datepart_to_file(source, "Date", out, cyclic=True) == 2
    readers = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".feather": pd.read_feather}
    written: pd.DataFrame = readers[out_suffix.lower()](out)
    pd.testing.assert_frame_equal(written, add_datepart(frame, "Date", cyclic=True), check_dtype=out_suffix != ".csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, out.name])


@pytest.mark.parametrize(
    ("source", "column", "out", "message"),
    [
        ("none.csv", "Date", "out.csv", "none.csv: there is no such file"),
        ("sales.json", "Date", "out.csv", "sales.json: unknown suffix"),
        ("sales.csv", "Date", "out.xlsx", "out.xlsx ends in none of"),
        ("sales.csv", "date", "out.csv", "sales.csv: date column: the table has no column 'date'; did you mean Date?"),
        (
            "sales.csv",
            "Store",
            "out.csv",
            "sales.csv: column 'Store': 2 values are not dates: row 1 ('1'), row 2 ('2')",
        ),
        ("sales.csv", "Date", "none/out.csv", "out.csv cannot be written"),
        ("empty.csv", "Date", "out.csv", "empty.csv is empty"),
        ("sales.parquet", "Date", "out.csv", "sales.parquet is not a readable Parquet file"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, source: str, column: str, out: str, message: str) -> None:
    for name in ("sales.csv", "sales.json", "sales.parquet"):
        (tmp_path / name).write_text("Date,Store\n2015-07-31,1\n2015-08-01,2\n")
    (tmp_path / "empty.csv").touch()
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        add_datepart_to_file(tmp_path / source, column, tmp_path / out)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*out*"))


def test_dates_that_may_be_read_in_two_ways_are_read_by_the_format_that_is_given(tmp_path: Path) -> None:
    (tmp_path / "sales.csv").write_text("Date,Sales\n05/09/24,1\n06/10/24,2\n")
    with pytest.raises(UserError, match=r"nothing tells whether '05/09/24' has the month or the day first"):
        add_datepart_to_file(tmp_path / "sales.csv", "Date", tmp_path / "out.csv")
    add_datepart_to_file(tmp_path / "sales.csv", "Date", tmp_path / "out.csv", form="%d/%m/%y")
    assert pd.read_csv(tmp_path / "out.csv")[["Month", "Day"]].to_numpy().tolist() == [[9, 5], [10, 6]]
    with pytest.raises(UserError, match=r"^format: 'day first' is no format of dates"):
        add_datepart_to_file(tmp_path / "sales.csv", "Date", tmp_path / "out.csv", form="day first")
