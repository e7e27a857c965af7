"""Dates are read as they were meant, by a format that is found once and kept."""

import re
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from tests.models.tables.columns.test_dates import MOMENTS, UNITS
from unfreeze.models.errors import UserError
from unfreeze.models.tables.columns.date_texts import ISO, check_date_format, find_date_format, parse_dates, read_dates

BERLIN = "Europe/Berlin"


def parsed(*values: Any, dtype: Any = None) -> list[str]:
    """What is read, in ISO 8601; NaT where nothing is."""
    times = parse_dates(pd.Series(list(values), dtype=dtype), "when")
    assert times.dtype.kind == "M"
    return [time.isoformat() if isinstance(time, pd.Timestamp) else "NaT" for time in times]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2015-07-31", "2015-07-31T00:00:00"),
        ("2015-07-31 23:59", "2015-07-31T23:59:00"),
        ("2015-07-31T23:59:58.5", "2015-07-31T23:59:58.500000"),
        ("2015-07-31T23:59:58Z", "2015-07-31T23:59:58"),
        ("2015-07-31T23:59:58+02:00", "2015-07-31T23:59:58"),
        ("2015-07-31 23:59:58.25 -0530", "2015-07-31T23:59:58.250000"),
        ("2015-07-31 23:59:58 UTC", "2015-07-31T23:59:58"),
        ("20150731", "2015-07-31T00:00:00"),
        ("20150731T235958Z", "2015-07-31T23:59:58"),
        ("2015-07", "2015-07-01T00:00:00"),
        ("7/31/2015", "2015-07-31T00:00:00"),
        ("31/07/2015", "2015-07-31T00:00:00"),
        ("31.7.2015", "2015-07-31T00:00:00"),
        ("31-07-2015 10:30", "2015-07-31T10:30:00"),
        ("2015/07/31", "2015-07-31T00:00:00"),
        ("07/31/2015 11:30:05 PM", "2015-07-31T23:30:05"),
        ("31 Jul 2015", "2015-07-31T00:00:00"),
        ("July 31, 2015", "2015-07-31T00:00:00"),
        ("31-Jul-2015", "2015-07-31T00:00:00"),
        ("1700-01-01", "1700-01-01T00:00:00"),
        ("05/05/2015", "2015-05-05T00:00:00"),
    ],
)
def test_texts_are_read(text: str, expected: str) -> None:
    for dtype in ("str", "object", "category", "string"):
        assert parsed(text, None, " ", text, dtype=dtype) == [expected, "NaT", "NaT", expected]


def test_the_column_decides_whether_the_day_is_first() -> None:
    assert parsed("01/02/2015", "13/02/2015") == ["2015-02-01T00:00:00", "2015-02-13T00:00:00"]
    assert parsed("01/02/2015", "02/13/2015") == ["2015-01-02T00:00:00", "2015-02-13T00:00:00"]
    with pytest.raises(UserError, match="column 'when': nothing tells whether '01/02/2015' has the month or the day"):
        parsed("01/02/2015", "05/05/2015")


FORMATS = (
    (["12/03/16", "13/05/17"], "%d/%m/%y to {}", ["2016-03-12", "2017-05-13"]),
    (["03/13/16", "05/01/55"], "%m/%d/%y to {}", ["2016-03-13", "1955-05-01"]),
    (["7-Jan-18", "12-Feb-99"], "%d %b %y to {}", ["2018-01-07", "1999-02-12"]),
    (["January-1996", "May-1997"], "%b %Y", ["1996-01-01", "1997-05-01"]),
    (["Jan-96", "Feb-97"], "%b %y to {}", ["1996-01-01", "1997-02-01"]),
    (["1996 January", "1997 May"], "%Y %b", ["1996-01-01", "1997-05-01"]),
    (["03/2019", "11/2020"], "%m/%Y", ["2019-03-01", "2020-11-01"]),
    (["2019-Q3", "2020-Q1"], "quarter", ["2019-07-01", "2020-01-01"]),
    (["Q3 2019", "Q1 2020"], "quarter", ["2019-07-01", "2020-01-01"]),
    (["2019-W05", "2020-W53"], "week", ["2019-01-28", "2020-12-28"]),
    (["202103", "202012"], "%Y%m", ["2021-03-01", "2020-12-01"]),
    (["31122019", "01022020"], "%d%m%Y", ["2019-12-31", "2020-02-01"]),
    (["2015073112", "2015080100"], "%Y%m%d%H", ["2015-07-31T12", "2015-08-01"]),
    (["1514764800", "1514768400"], "unix s", ["2018-01-01", "2018-01-01T01"]),
    (["1514764800500"], "unix ms", ["2018-01-01T00:00:00.5"]),
    (["Mon, 07 Jan 2019 10:00:00", "Tue, 13 Aug 2019 23:59:59"], "%d %b %Y", ["2019-01-07T10", "2019-08-13T23:59:59"]),
    (["Thu Jan 04 10:00:00 +0000 2018"], "%b %d %Y", ["2018-01-04T10"]),
    (["7th January 2018", "2nd May, 2019"], "%d %b %Y", ["2018-01-07", "2019-05-02"]),
    (["04JAN2018:10:00:00"], "%d %b %Y", ["2018-01-04T10"]),
    (["12/03/2016 5:30 PM", "13/04/2016 12:00 a.m."], "%d/%m/%Y", ["2016-03-12T17:30", "2016-04-13"]),
    (["13.03.2016 10:00", "14.03.2016 11:30:05.25"], "%d.%m.%Y", ["2016-03-13T10", "2016-03-14T11:30:05.25"]),
    (["5 Mar 2012 10:00 EST"], "%d %b %Y", ["2012-03-05T10"]),
    (["2018-01-04 10:00 EST"], ISO, ["2018-01-04T10"]),
)


@pytest.mark.parametrize(("texts", "form", "times"), FORMATS)
def test_the_format_of_a_column_is_found_and_reads_it(texts: list[str], form: str, times: list[str]) -> None:
    found = find_date_format(pd.Series(texts), "when")
    assert found.form == form.format(date.today().year + 10)
    assert bool(found.reason) == ("to" in form)
    assert read_dates(pd.Series(texts), "when", found.form)[0].tolist() == [pd.Timestamp(time) for time in times]


@pytest.mark.parametrize(("texts", "form", "times"), FORMATS)
def test_a_row_is_read_by_the_format_of_the_training_whatever_is_beside_it(
    texts: list[str], form: str, times: list[str]
) -> None:
    form = find_date_format(pd.Series(texts), "when").form
    for text, time in zip(texts, times, strict=True):
        assert parse_dates(pd.Series([text]), "when", form).tolist() == [pd.Timestamp(time)]


def test_days_up_to_12_keep_the_order_of_the_training() -> None:
    assert parse_dates(pd.Series(["05/09/2024"]), "when", "%d/%m/%Y").tolist() == [pd.Timestamp("2024-09-05")]
    with pytest.raises(UserError, match=r"row 1 \('09/13/2024'\); write dates as YYYY-MM-DD, or %d/%m/%Y as in the"):
        parse_dates(pd.Series(["09/13/2024"]), "when", "%d/%m/%Y")
    # What reads alike everywhere is read by every format.
    assert parse_dates(pd.Series(["2024-09-05"]), "when", "%d/%m/%Y").tolist() == [pd.Timestamp("2024-09-05")]


def test_without_a_format_of_the_training_only_iso_is_read() -> None:
    with pytest.raises(UserError, match=r"row 1 \('13/09/2024'\)"):
        parse_dates(pd.Series(["13/09/2024"]), "when", ISO)


def test_what_a_column_leaves_open_the_order_of_rows_may_tell() -> None:
    days = pd.Series([f"{day:02}/{month:02}/2015" for month in range(1, 5) for day in (2, 5, 8, 11)])
    found = find_date_format(days, "when")
    assert found.form == "%d/%m/%Y"
    assert "order of time" in found.reason


def test_a_column_of_two_formats_is_refused() -> None:
    with pytest.raises(UserError, match="'13/01/2015' and '01/13/2015' cannot be of one format"):
        parsed("13/01/2015", "01/13/2015")


@pytest.mark.parametrize("form", ["d/m/Y", "%d/%m", "unix", "", "%d/%q/%Y"])
def test_a_format_that_is_none_is_named(form: str) -> None:
    with pytest.raises(UserError, match=r"^data.date_formats: day: .* is no format of dates; write it as %d/%m/%Y"):
        check_date_format(form, "data.date_formats: day")


@pytest.mark.parametrize("form", [ISO, "%d/%m/%Y", "%d/%m/%y to 2036", "unix ms", "quarter", "week", "%j %Y"])
def test_formats_are_checked(form: str) -> None:
    check_date_format(form, "data.date_formats: day")


def test_iso_texts_and_others_may_be_mixed() -> None:
    assert parsed("2015-07-31", "31.07.2015") == ["2015-07-31T00:00:00"] * 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["2015-07-31", "soon"], "column 'when': 1 value is not a date: row 2 ('soon');"),
        (["2015-02-29"], "row 1 ('2015-02-29')"),
        (
            ["x", None, "x", "2015-07-31", "y", "z"],
            "4 values are not dates: row 1 ('x'), row 3 ('x'), row 5 ('y') and 1 more",
        ),
        (["31.07.2015", "31.02.2015"], "1 value is not a date: row 2 ('31.02.2015')"),
        (["2015"], "row 1 ('2015')"),
        (["2015-07-31", "-2015-07-31"], "row 2 ('-2015-07-31')"),
        (["now", "today", "31.07.2015"], "row 1 ('now'), row 2 ('today');"),
        ([2015, 2016], "2 values are not dates: row 1 ('2015')"),
        ([1.5, 2.5], "holds float64 with fractions, not dates"),
        ([True, False], "holds bool, not dates"),
        ([timedelta(days=1)], "not dates"),
    ],
)
def test_what_is_no_date_is_named_with_its_rows(values: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        parsed(*values)
    assert "\n" not in str(caught.value)


def test_whole_numbers_are_read_as_year_month_and_day() -> None:
    assert parsed(20150731, 20150801) == ["2015-07-31T00:00:00", "2015-08-01T00:00:00"]
    assert parsed(20150731, None) == ["2015-07-31T00:00:00", "NaT"]


def test_a_column_of_nothing_is_missing_throughout() -> None:
    for dtype in ("object", "float64", "str", "datetime64[s]"):
        assert parsed(None, None, dtype=dtype) == ["NaT", "NaT"]
        assert parsed(dtype=dtype) == []


def test_times_with_a_zone_keep_the_clock_of_their_zone() -> None:
    # Noon in Berlin on both sides of the change to summer time.
    texts = ["2015-03-28T12:00:00+01:00", None, "2015-03-29T12:00:00+02:00"]
    noons = ["2015-03-28T12:00:00", "NaT", "2015-03-29T12:00:00"]
    zoned = pd.to_datetime(pd.Series(texts), utc=True).dt.tz_convert(BERLIN)
    assert parsed(*texts) == noons
    assert parsed(*zoned, dtype=zoned.dtype) == noons
    assert parsed(*zoned, dtype=object) == noons
    assert parsed(*zoned, dtype=f"timestamp[us, tz={BERLIN}][pyarrow]") == noons


def test_the_same_instant_in_two_zones_is_two_wall_clocks() -> None:
    instant = datetime(2015, 7, 31, 23, tzinfo=UTC)
    east = instant.astimezone(timezone(timedelta(hours=2)))
    assert parsed(instant, east, dtype=object) == ["2015-07-31T23:00:00", "2015-08-01T01:00:00"]


def test_dates_and_times_of_python_and_arrow_are_read() -> None:
    assert parsed(date(2015, 7, 31), None) == ["2015-07-31T00:00:00", "NaT"]
    assert parsed(date(2015, 7, 31), None, dtype="date32[pyarrow]") == ["2015-07-31T00:00:00", "NaT"]
    assert parsed(datetime(2015, 7, 31, 1), dtype="timestamp[ns][pyarrow]") == ["2015-07-31T01:00:00"]
    assert parsed(np.datetime64("2015-07-31"), "2015-08-01", pd.NaT, dtype=object) == [
        "2015-07-31T00:00:00",
        "2015-08-01T00:00:00",
        "NaT",
    ]


@given(st.lists(MOMENTS | st.none(), max_size=20), st.sampled_from(UNITS))
def test_dates_stay_what_they_are(moments: list[datetime | None], unit: str) -> None:
    values = pd.Series(np.array(moments, dtype="datetime64[us]").astype(f"datetime64[{unit}]"), name="when")
    values.index += 5
    pd.testing.assert_series_equal(parse_dates(values, "when"), values)
    written = parse_dates(pd.Series([value.isoformat() for value in values.dropna()], dtype="str"), "when")
    assert written.tolist() == values.dropna().tolist()


def test_a_column_of_numbers_with_an_infinite_one_holds_no_dates() -> None:
    with pytest.raises(UserError, match=r"column 'day' holds float64 with fractions, not dates"):
        read_dates(pd.Series([20240101.0, np.inf]), "day")
