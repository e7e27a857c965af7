"""Dates and times in text; training detects a column's format once and keeps it."""

import re
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from pandas.api import types

from unfreeze.models.errors import UserError
from unfreeze.models.tables.columns.number_texts import MOST_UNREADABLE

ISO = "ISO 8601"
"""Unambiguous dates; such texts are read in every column, regardless of its format."""
DATE_FORMATS = (
    *(form.replace("/", mark) for mark in "/-." for form in ("%d/%m/%Y", "%Y/%m/%d", "%d/%m/%y", "%m/%Y", "%Y/%m")),
    *(form.replace("/", mark) for mark in "/-" for form in ("%m/%d/%Y", "%m/%d/%y")),
    *("%d %b %Y", "%b %d %Y", "%Y %b %d", "%d %b %y", "%b %Y", "%Y %b", "%b %y"),
)
"""Formats tried on texts that are not ISO 8601. Month names may be written out, with any marks between the parts; a
time of day may precede or follow the date."""
DIGITS = {"%Y%m": 6, "%Y%m%d%H": 10, "%Y%m%d%H%M": 12, "%Y%m%d%H%M%S": 14, "%d%m%Y": 8, "%m%d%Y": 8}
"""Formats of bare digits -> number of digits."""
UNITS = {"unix s": 10, "unix ms": 13, "unix us": 16, "unix ns": 19}
"""Formats of ticks since 1970 -> digits of a present-day timestamp."""
PERIODS = {
    "quarter": re.compile(r"(?P<year>\d{4})\W?Q(?P<number>[1-4])|Q(?P<after>[1-4])\W?(?P<of>\d{4})", re.IGNORECASE),
    "week": re.compile(r"(?P<year>\d{4})\W?W(?P<number>\d{1,2})|W(?P<after>\d{1,2})\W?(?P<of>\d{4})", re.IGNORECASE),
}
"""Formats of periods, read as their first day; weeks follow ISO 8601."""
YEARS = 1900, 2100
"""First and last plausible year of a date written as a bare number, which might be another number."""
_SHOWN = 3  # rows named in an error
_SAMPLE = 100  # texts used to shortlist formats
_YEARS_AHEAD = 10
"""Two-digit years lie up to this many years after the training, or in the 99 years before that."""
_FEWEST_IN_ORDER = 8
_MICROSECONDS: Literal["datetime64[us]"] = "datetime64[us]"
_WINDOW = re.compile(r"(.*%y.*) to (\d{4})")
# Only look for a zone after a time: the end of 01-02-2020 looks like one too.
_ZONE = r"\s*(?:Z|UTC|GMT|[ECMP][SD]T|CES?T|BST|IST|JST|[+-]\d{2}(?::?\d{2})?)(?![^\s\])])"
_ISO_ZONE = re.compile(rf"([:T]\d{{2,6}}(?:[.,]\d+)?){_ZONE}", re.IGNORECASE)
# pandas would also read a lone year or number, a year before 0, and the words "now" and "today".
_ISO_BEGINS = r"\s*\d{4}(?:-|\d{4}(?:$|\D))"
_TIME = re.compile(
    rf"(?:^|(?<=[\sT:,@]))(\d{{1,2}}):(\d{{2}})(?::(\d{{2}}(?:[.,]\d+)?))?(?:\s*([ap])\.?m\b\.?)?(?:{_ZONE})?",
    re.IGNORECASE,
)
_MONTH = re.compile(
    r"(?<![a-z])(jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|"
    r"oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)(?![a-z])",
    re.IGNORECASE,
)
_BESIDE = re.compile(
    r"\b(?:mon|tues?|wed(?:nes)?|thu(?:rs?)?|fri|sat(?:ur)?|sun)(?:day)?\b|(?<=\d)(?:st|nd|rd|th)\b", re.IGNORECASE
)
"""Weekdays and ordinal suffixes (7th)."""


class DateFormat(NamedTuple):
    """Format of a date column; `reason` explains a guess, else it is empty."""

    form: str
    reason: str = ""


def parse_dates(values: pd.Series, name: str, form: str | None = None) -> pd.Series:
    """Read a column as dates and times, datetime64 in the unit of `values` if it has one, with its index.

    Times with a zone keep their local wall clock and lose the zone: the hour at which a shop opens says more than
    the hour in Greenwich. Missing values and blank texts become NaT.

    Parameters
    ----------
    form
        The format of texts and whole numbers that are not ISO 8601; None: detected by `find_date_format`.

    Raises UserError, naming the column, if a value is not a date or the order of day and month is ambiguous.
    """
    times, wrong = read_dates(values, name, form)
    if not wrong.any():
        return times
    rows = np.flatnonzero(wrong)
    shown = ", ".join(f"row {row + 1} ({str(values.iloc[row])!r})" for row in rows[:_SHOWN])
    more = f" and {len(rows) - _SHOWN:,} more" if len(rows) > _SHOWN else ""
    what = "1 value is not a date" if len(rows) == 1 else f"{len(rows):,} values are not dates"
    like = f", or {form} as in the training" if form not in (None, ISO) else ""
    raise UserError(
        f"column {name!r}: {what}: {shown}{more}; write dates as YYYY-MM-DD{like}, and leave missing ones empty"
    )


def read_dates(values: pd.Series, name: str, form: str | None = None) -> tuple[pd.Series, np.ndarray]:
    """Read a column as `parse_dates` does; values that are not dates become NaT and are marked, (n,) bool."""
    values = _without_categories(values)
    if types.is_datetime64_any_dtype(values.dtype):
        return _without_zone(values), np.zeros(len(values), dtype=bool)
    texts = _as_texts(values, name)
    if form in DIGITS and types.is_numeric_dtype(values.dtype):  # a number has no leading zeros
        texts = texts.str.zfill(DIGITS[form])
    codes, distinct = pd.factorize(texts)
    parsed = _parse(pd.Series(distinct, dtype="str"), form or _find(pd.Series(distinct, dtype="str"), name).form)
    # Append NaT: code -1 (missing text) selects it.
    times = np.append(parsed.to_numpy(), np.datetime64("NaT"))[codes]
    return pd.Series(times, index=values.index, name=values.name), np.isnat(times) & texts.notna().to_numpy()


def find_date_format(values: pd.Series, name: str) -> DateFormat:
    """Find the format in which most of a column's texts or whole numbers are dates: `ISO`, one of `DATE_FORMATS`, ...

    If several formats read all values but disagree, the only one under which the rows are in time order wins.

    Raises
    ------
    UserError
        If the format is ambiguous, or the column mixes formats that no single one covers.
    """
    values = _without_categories(values)
    if types.is_datetime64_any_dtype(values.dtype):
        return DateFormat(ISO)
    return _find(pd.Series(_as_texts(values, name).dropna().unique(), dtype="str"), name)


def check_date_format(form: str, where: str) -> None:
    """Raise a `UserError` that names `where` unless `read_dates` supports the format."""
    if form in (ISO, *UNITS, *PERIODS) or _WINDOW.fullmatch(form):
        return
    parts = set(re.findall("%(.)", form))
    if not (parts & set("yY") and parts & set("mbBj") and parts <= set("YymdbBjHMSfpIaAz")):
        raise UserError(
            f"{where}: {form!r} is no format of dates; write it as %d/%m/%Y, or take one of "
            f"{', '.join((ISO, *UNITS, *PERIODS))}"
        )


# --- reading by a format ----------------------------------------------------------------------------------------------


def _parse(texts: pd.Series, form: str) -> pd.Series:
    """Parse texts by ISO 8601, else by the format; NaT where neither applies."""
    local = texts.str.replace(_ISO_ZONE, r"\1", regex=True)
    iso = local.str.match(_ISO_BEGINS).to_numpy(bool)
    if form in UNITS or form in DIGITS:
        iso = iso & ~local.str.fullmatch(r"\d+").to_numpy(bool)
    parsed: pd.Series = pd.to_datetime(local.where(iso), format="ISO8601", errors="coerce")
    others = texts[parsed.isna() & texts.str.contains(r"\d")]
    if others.empty or form == ISO:
        return parsed
    finest: Any = "datetime64[ns]" if parsed.dt.unit == "ns" else _MICROSECONDS
    return parsed.astype(finest).fillna(_by_format(others, form).astype(finest))


def _by_format(texts: pd.Series, form: str) -> pd.Series:
    """Parse texts (n,) to datetime64[us]."""
    texts = texts.str.strip()
    if form in PERIODS:
        return _first_days(texts, form)
    if form in UNITS:
        ticks = pd.to_numeric(texts.where(texts.str.fullmatch(r"\d{9,19}(\.0*)?")), errors="coerce").astype("Int64")
        unit: Any = form.removeprefix("unix ")
        since: pd.Series = pd.to_datetime(ticks, unit=unit, errors="coerce")
        return since.astype(_MICROSECONDS)
    if form in DIGITS:
        heads, seconds = texts.where(texts.str.fullmatch(rf"\d{{{DIGITS[form]}}}")), pd.Series(0.0, texts.index)
    else:
        heads, seconds = _split(texts.where(~texts.str.startswith("-"), ""))  # pandas reads years before 0
    window = _WINDOW.fullmatch(form)
    codes, distinct = pd.factorize(heads)  # many times share a day
    days = pd.to_datetime(pd.Series(distinct, dtype="str"), format=window[1] if window else form, errors="coerce")
    days = days.dt.tz_localize(None).astype(_MICROSECONDS)
    if window:
        last = int(window[2])
        late, early = days.dt.year > last, days.dt.year <= last - 100
        days = days.mask(late, days - pd.DateOffset(years=100)).mask(early, days + pd.DateOffset(years=100))
    moments = np.append(days.to_numpy(), np.datetime64("NaT"))[codes]
    return pd.Series(moments + pd.to_timedelta(seconds, unit="s").astype("timedelta64[us]").to_numpy(), texts.index)


def _first_days(texts: pd.Series, form: str) -> pd.Series:
    found = texts.str.extract(PERIODS[form])
    found = found.where(texts.str.fullmatch(PERIODS[form]))
    year, number = found["year"].fillna(found["of"]), found["number"].fillna(found["after"])
    if form == "week":  # some years have no week 53
        days = pd.to_datetime(year + " " + number.str.zfill(2) + " 1", format="%G %V %u", errors="coerce")
    else:
        days = pd.to_datetime(year + " " + (3 * number.astype("Int64") - 2).astype("str"), format="%Y %m")
    return pd.Series(days.astype(_MICROSECONDS))


def _split(texts: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Split texts into dates, with abbreviated months, and times of day in seconds."""
    split = [_date_and_seconds(text) for text in texts]
    heads = pd.Series([head for head, _ in split], index=texts.index, dtype="str")
    return heads, pd.Series([seconds for _, seconds in split], index=texts.index, dtype=float)


def _date_and_seconds(text: str) -> tuple[str, float]:
    seconds = 0.0
    if found := _TIME.search(text):
        hours, minutes, half = int(found[1]), int(found[2]), (found[4] or "").lower()
        hours = hours % 12 + 12 * (half == "p") if half else hours
        seconds = 3600 * hours + 60 * minutes + float((found[3] or "0").replace(",", "."))
        seconds = seconds if hours < 24 and minutes < 60 else np.nan
        text = f"{text[: found.start()]} {text[found.end() :]}"
    if month := _MONTH.search(text):
        plain = f"{text[: month.start()]} {month[1][:3].title()} {text[month.end() :]}"
        return re.sub(r"[\s,./'\u2019:-]+", " ", _BESIDE.sub(" ", plain)).strip(), seconds
    return _BESIDE.sub(" ", text).strip(" \tT,:@"), seconds


# --- finding a format -------------------------------------------------------------------------------------------------


def _find(texts: pd.Series, name: str) -> DateFormat:
    """`find_date_format` for distinct texts in row order."""
    others = texts[_parse(texts, ISO).isna() & texts.str.contains(r"\d")].str.strip()
    if others.empty:
        return DateFormat(ISO)
    if others.str.fullmatch(r"\d+").all():
        likely = [form for form in DIGITS if _plausible(others, form)]
        likely = likely or [form for form in UNITS if _plausible(others, form)]
        return _most_readable(others, likely, name)
    periods = [form for form, pattern in PERIODS.items() if others.iloc[:_SAMPLE].str.fullmatch(pattern).any()]
    last = date.today().year + _YEARS_AHEAD
    heads = _split(others.iloc[:_SAMPLE])[0].unique()
    likely = [form for form in DATE_FORMATS if any(_is_date(head, form) for head in heads)]
    windows = [f"{form} to {last}" if "%y" in form else form for form in likely]
    return _most_readable(others, [*periods, *windows], name)


def _is_date(text: str, form: str) -> bool:
    try:
        datetime.strptime(text, form)
    except ValueError:
        return False
    return True


def _plausible(texts: pd.Series, form: str) -> bool:
    times = _by_format(texts, form)
    first, last = YEARS
    return bool(times.notna().all() and times.dt.year.between(max(first, 1971) if form in UNITS else first, last).all())


def _most_readable(texts: pd.Series, likely: Sequence[str], name: str) -> DateFormat:
    """The format that reads most of the texts; `UserError` where several do and disagree."""
    if not likely:
        return DateFormat(ISO)  # it reads none of them
    readings = {form: _by_format(texts, form) for form in likely}
    most = max(int(reading.notna().sum()) for reading in readings.values())
    best = {form: reading for form, reading in readings.items() if reading.notna().sum() == most}
    form, reading = next(iter(best.items()))
    if pd.concat(readings, axis=1).notna().any(axis=1).mean() < 1 - MOST_UNREADABLE:
        return DateFormat(form)  # mostly not dates: the caller reports the rest
    left = texts[reading.isna()]
    if other := next((other for other in readings if readings[other][left.index].notna().any()), None):
        text = left[readings[other][left.index].notna()].iloc[0]
        raise UserError(
            f"column {name!r}: {texts[reading.notna()].iloc[0]!r} and {text!r} cannot be of one format ({form} or "
            f"{other}); write the dates as YYYY-MM-DD"
        )
    if all(other.equals(reading) for other in best.values()):
        return DateFormat(form, f"two-digit years as {int(form[-4:]) - 99} to {form[-4:]}" if "%y" in form else "")
    ordered = [form for form, each in best.items() if each.is_monotonic_increasing or each.is_monotonic_decreasing]
    if len(ordered) == 1 and len(texts) >= _FEWEST_IN_ORDER:
        return DateFormat(ordered[0], f"as {ordered[0]} the rows are in the order of time")
    other = next(each for each in best if not best[each].equals(reading))
    raise UserError(
        f"column {name!r}: nothing tells whether {texts.iloc[0]!r} has the month or the day first; set its format "
        f"(data.date_formats, or --format of add-datepart) to {form!r} or {other!r}, or write the dates as YYYY-MM-DD"
    )


# --- values of any type -----------------------------------------------------------------------------------------------


def _without_categories(values: pd.Series) -> pd.Series:
    return values.astype(values.cat.categories.dtype) if isinstance(values.dtype, pd.CategoricalDtype) else values


def _without_zone(values: pd.Series) -> pd.Series:
    if isinstance(values.dtype, pd.ArrowDtype):
        # Arrow's dates and times come as objects or with a zone; the rest expects numpy types.
        plain = values.array.__arrow_array__().to_pandas(date_as_object=False)
        values = pd.Series(plain.array, index=values.index, name=values.name)
    local: pd.Series = values.dt.tz_localize(None)
    return local


def _as_texts(values: pd.Series, name: str) -> pd.Series:
    """Values as texts without time zones."""
    if types.is_string_dtype(values.dtype) and values.dtype != object:
        texts = values.astype("str")
    elif values.dtype == object or values.isna().all():
        texts = pd.Series([_as_text(value) for value in values], index=values.index, dtype="str")
    else:
        try:
            if types.is_bool_dtype(values.dtype) or not types.is_numeric_dtype(values.dtype):
                raise TypeError
            texts = values.astype("Int64").astype("str")
        except (TypeError, ValueError, OverflowError) as error:
            fractions = " with fractions" if types.is_float_dtype(values.dtype) else ""
            raise UserError(
                f"column {name!r} holds {values.dtype}{fractions}, not dates; name a column of dates, or write them as "
                "YYYY-MM-DD"
            ) from error
    return texts.mask(texts.str.strip() == "")


def _as_text(value: Any) -> str | None:
    if pd.isna(value):
        return None
    return str(value.replace(tzinfo=None) if isinstance(value, datetime) else value)
