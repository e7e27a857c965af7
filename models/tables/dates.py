"""Dates: read whatever a table writes them as, and make the parts of a date that the course trains on."""

import difflib
import re
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from unfreeze.models.errors import UserError
from unfreeze.models.regular_files import irregular_kind

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""Ticks per second of the units that pandas keeps times in."""
DAY = 86_400
"""Seconds of a day."""
DATE_FORMATS = (
    *("%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%m-%d-%Y", "%d-%m-%Y", "%Y/%m/%d"),
    *("%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%B %d %Y"),
)
TIME_FORMATS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
"""Besides ISO 8601, a text may be one of the date formats followed by one of the time formats."""
SHOWN = 3
"""Rows that an error names."""
SAMPLE = 100
"""Texts that decide which formats are worth trying on all."""
# A zone is looked for after a time only: the end of 01-02-2020 looks like one too.
_ZONE = re.compile(r"([:T]\d{2,6}(?:[.,]\d+)?)\s*(?:Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)\s*$", re.IGNORECASE)
# pandas would also read a lone year or number, a year before 0, and the words "now" and "today".
_ISO_BEGINS = r"\s*\d{4}(?:-|\d{4})"

_Function = TypeVar("_Function")
_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    # In one piece: pieces may disagree about the type of a column.
    ".csv": lambda path: pd.read_csv(path, low_memory=False),
    ".parquet": pd.read_parquet,
    ".feather": pd.read_feather,
}
_WRITERS: dict[str, Callable[[pd.DataFrame, Path], Any]] = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".parquet": lambda frame, path: frame.to_parquet(path, index=False),
    ".feather": lambda frame, path: frame.to_feather(path),
}


def parse_dates(values: pd.Series, name: str) -> pd.Series:
    """Read a column as dates and times.

    Times with a zone keep the wall clock of their own zone and lose the zone: the hour at which a shop opens says
    more than the hour in Greenwich. A text is read as ISO 8601, or with the one of `DATE_FORMATS` and `TIME_FORMATS`
    that fits every text that is not. Whole numbers are read as YYYYMMDD.

    Parameters
    ----------
    values : Series of length n
        Times, dates, texts, or a mix of them. Missing values and blank texts become NaT.
    name : str
        The column's name, for errors.

    Returns
    -------
    Series of length n, datetime64 in the unit of `values` if it has one
        With the index of `values`.

    Raises
    ------
    UserError
        If a value is not a date, or if nothing in the column tells whether the month or the day comes first.
    """
    times, wrong = read_dates(values, name)
    if wrong.any():
        raise _no_dates(_as_texts(_without_categories(values), name), wrong, name)
    return times


def read_dates(values: pd.Series, name: str) -> tuple[pd.Series, np.ndarray]:
    """Read a column as `parse_dates` does, but say which values are not dates instead of failing.

    Parameters
    ----------
    values, name
        See `parse_dates`.

    Returns
    -------
    tuple
        The dates, NaT where there is none, and which values are not dates although there is one, (n,) bool.

    Raises
    ------
    UserError
        If nothing in the column tells whether the month or the day comes first.
    """
    values = _without_categories(values)
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        return _without_zone(values), np.zeros(len(values), dtype=bool)
    texts = _as_texts(values, name)
    codes, distinct = pd.factorize(texts)
    parsed = _parse_texts(pd.Series(distinct, dtype="str"), name)
    # One more entry, NaT, which the code -1 of a missing text finds.
    times = np.append(parsed.to_numpy(), np.datetime64("NaT"))[codes]
    return pd.Series(times, index=values.index, name=values.name), np.isnat(times) & texts.notna().to_numpy()


def date_parts(values: pd.Series, prefix: str, time: bool = False, cyclic: bool = False) -> dict[str, np.ndarray]:
    """The parts of dates by name, as fastai 2.8 names and types them.

    Year, Month, Week (ISO 8601), Day, Dayofweek (Monday is 0), Dayofyear, six flags for the ends and starts of month,
    quarter and year, with `time` also Hour, Minute and Second, and Elapsed (whole seconds since 1970). With `cyclic`
    the sine and cosine of Month, Dayofweek, Dayofyear, Day, and with `time` Hour, as shares of their period: a month
    has 28 to 31 days and a year 365 or 366.

    Parameters
    ----------
    values : Series of length n, datetime64 without a zone
        See `parse_dates`.
    prefix : str
        Put before each name.
    time : bool
        Whether to make the parts of the time of day.
    cyclic : bool
        Whether to make sines and cosines.

    Returns
    -------
    dict of arrays of shape (n,)
        int32 for numbers, bool for flags, float64 for Elapsed, float32 for sines and cosines. Where a date is missing,
        flags are False and all else is NaN; then the numbers are float64.

    Notes
    -----
    After `add_datepart` of fastai 2.8 and `cyclic_dt_features` of fastai 1 (fastai/tabular/core.py and transform.py).
    """
    moments = values.to_numpy()
    missing = np.isnat(moments)
    blanks = bool(missing.any())
    ticks = np.where(missing, 0, moments.view(np.int64)) if blanks else moments.view(np.int64)
    seconds = ticks // PER_SECOND[np.datetime_data(moments.dtype)[0]]
    days = seconds // DAY
    # Millions of rows share a few thousand days: each day's parts are found once.
    codes, distinct = _distinct_days(days)
    of_days = _parts_of_days(distinct)
    parts = {name: part[codes] for name, part in of_days.items()}
    if time:
        parts |= _parts_of_time((seconds - days * DAY).astype(np.int32))
    parts["Elapsed"] = seconds.astype(np.float64)
    if cyclic:
        parts |= {name: wave[codes] for name, wave in _waves_of_days(distinct, of_days).items()}
        if time:
            parts |= {name: wave[parts["Hour"]] for name, wave in _waves("Hour", np.arange(24) / 24).items()}
    if blanks:
        parts = {name: _blank(part, missing) for name, part in parts.items()}
    return {prefix + name: part for name, part in parts.items()}


def add_datepart(
    frame: pd.DataFrame,
    column: str,
    time: bool = False,
    cyclic: bool = False,
    drop: bool = True,
    prefix: str | None = None,
) -> pd.DataFrame:
    """A table with the parts of one of its dates as columns, at its end.

    Parameters
    ----------
    frame : DataFrame
        Is not changed. A column that has the name of a part gives way to it, as with fastai.
    column : str
        The date; see `parse_dates` for what is read.
    time, cyclic : bool
        See `date_parts`.
    drop : bool
        Whether to drop the date itself; if not, it is kept as read.
    prefix : str or None
        Put before the name of each part. None: the name of the column without Date or date at its end.

    Returns
    -------
    DataFrame
        See `date_parts` for the columns added.

    Raises
    ------
    UserError
        If there is no such column, or it holds something else than dates.
    """
    if column not in frame.columns:
        raise _no_column(column, [str(name) for name in frame.columns])
    dates = parse_dates(frame[column], column)
    prefix = re.sub("[Dd]ate$", "", column) if prefix is None else prefix
    rest = frame.drop(columns=column) if drop else frame.assign(**{column: dates})
    # Not by assigning columns, which copies each.
    parts = pd.DataFrame(date_parts(dates, prefix, time, cyclic), index=frame.index, copy=False)
    return pd.concat([rest.drop(columns=rest.columns.intersection(parts.columns)), parts], axis=1)


def add_datepart_to_file(source: Path, column: str, out: Path, time: bool = False, cyclic: bool = False) -> int:
    """Write a table's file anew with the parts of one of its dates; see `add_datepart`.

    Parameters
    ----------
    source : Path
        A .csv, .parquet or .feather file.
    column : str
        The date, which is replaced by its parts.
    out : Path
        What to write, by its ending one of the same formats. A file that is there is replaced once all is written.
    time, cyclic : bool
        See `date_parts`.

    Returns
    -------
    int
        The number of rows.

    Raises
    ------
    UserError
        If a file cannot be read or written, or if the column is missing or holds something else than dates.
    """
    if (kind := irregular_kind(source)) is not None:
        raise UserError(f"{source} is {kind}; give the path of a file")
    read, write = _by_suffix(source, _READERS), _by_suffix(out, _WRITERS)
    try:
        frame = read(source)
    except FileNotFoundError as error:
        raise UserError(f"{source} does not exist; check the path") from error
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{source} cannot be read as {source.suffix.lower()[1:]} ({reason}); check the file") from error
    try:
        frame = add_datepart(frame, column, time, cyclic)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    partial = out.with_name(f".{out.name}.part")
    try:
        write(frame, partial)
        partial.replace(out)
    except (OSError, ValueError) as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{out} cannot be written ({error}); check that its folder is there and has room") from error
    return len(frame)


# --- reading dates ----------------------------------------------------------------------------------------------------


def _without_categories(values: pd.Series) -> pd.Series:
    is_categorical = isinstance(values.dtype, pd.CategoricalDtype)
    return values.astype(values.cat.categories.dtype) if is_categorical else values


def _without_zone(values: pd.Series) -> pd.Series:
    if isinstance(values.dtype, pd.ArrowDtype):
        # Arrow's dates and times are read as objects or with their zone; numpy's types are what the rest expects.
        arrow = values.array.__arrow_array__()
        plain = arrow.to_pandas(date_as_object=False)
        values = pd.Series(plain.array, index=values.index, name=values.name)
    return values.dt.tz_localize(None)


def _as_texts(values: pd.Series, name: str) -> pd.Series:
    """Each value as a text without zone; missing where there is none."""
    dtype, is_object = values.dtype, pd.api.types.is_object_dtype(values.dtype)
    if pd.api.types.is_string_dtype(dtype) and not is_object:
        texts = values.astype("str")
    elif is_object or values.isna().all():
        texts = pd.Series([_as_text(value) for value in values], index=values.index, dtype="str")
    elif pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype):
        texts = _whole_numbers(values, name)
    else:
        raise UserError(
            f"column {name!r} holds {dtype}, not dates; name a column of dates, or write them as YYYY-MM-DD"
        )
    return texts.mask(texts.str.strip() == "")


def _as_text(value: Any) -> str | None:
    if isinstance(value, datetime):  # pandas' Timestamp and NaT are datetimes too
        return None if pd.isna(value) else value.replace(tzinfo=None).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    return None if pd.isna(value) else str(value)


def _whole_numbers(values: pd.Series, name: str) -> pd.Series:
    try:
        return values.astype("Int64").astype("str")
    except (TypeError, ValueError) as error:
        raise UserError(
            f"column {name!r} holds {values.dtype} with fractions, not dates; name a column of dates, or write them as "
            "YYYY-MM-DD"
        ) from error


def _parse_texts(texts: pd.Series, name: str) -> pd.Series:
    """Times of texts, NaT where none can be read."""
    local = texts.str.replace(_ZONE, r"\1", regex=True)
    parsed = pd.to_datetime(local.where(local.str.match(_ISO_BEGINS)), format="ISO8601", errors="coerce")
    other = parsed.isna() & local.str.contains(r"\d")
    if other.any():
        found = _parse_other(local[other], name)
        return parsed if found is None else parsed.fillna(found)
    return parsed


def _parse_other(texts: pd.Series, name: str) -> pd.Series | None:
    """Times of texts that are not ISO 8601, by the format that reads most of them; None if none reads any."""
    formats = [day + time for day in DATE_FORMATS for time in TIME_FORMATS]
    sample = texts.iloc[:SAMPLE]
    likely = [form for form in formats if pd.to_datetime(sample, format=form, errors="coerce").notna().any()]
    readings = [pd.to_datetime(texts, format=form, errors="coerce") for form in likely]
    if not readings:
        return None
    full = [reading for reading in readings if reading.notna().all()]
    if any(not (reading == full[0]).all() for reading in full):
        raise UserError(
            f"column {name!r}: nothing tells whether {texts.iloc[0]!r} has the month or the day first; write the dates "
            "as YYYY-MM-DD"
        )
    return max(readings, key=lambda reading: reading.notna().sum())


def _no_dates(texts: pd.Series, wrong: np.ndarray, name: str) -> UserError:
    rows = np.flatnonzero(wrong)
    shown = ", ".join(f"row {row + 1} ({texts.iloc[row]!r})" for row in rows[:SHOWN])
    more = f" and {len(rows) - SHOWN:,} more" if len(rows) > SHOWN else ""
    what = "1 value is not a date" if len(rows) == 1 else f"{len(rows):,} values are not dates"
    return UserError(f"column {name!r}: {what}: {shown}{more}; write dates as YYYY-MM-DD, and leave missing ones empty")


# --- parts ------------------------------------------------------------------------------------------------------------


def _distinct_days(days: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row's position among distinct days, and these days."""
    first, last = (int(days.min()), int(days.max())) if len(days) else (0, -1)
    if last - first < len(days):
        # Rather some days too many than a hash of each row, which takes longer than all parts together.
        return days - first, np.arange(first, last + 1)
    return pd.factorize(days)


def _parts_of_days(numbers: np.ndarray) -> dict[str, np.ndarray]:
    """Parts of days given as numbers since 1970-01-01."""
    days = numbers.astype("datetime64[D]")
    months, years = days.astype("datetime64[M]"), days.astype("datetime64[Y]")
    month = months.astype(np.int64) % 12 + 1
    weekday = (numbers + 3) % 7  # 1970 began on a Thursday
    month_start, month_end = days == _first(months), days + 1 == _first(months + 1)
    ends_quarter, starts_quarter = month % 3 == 0, month % 3 == 1
    whole = {
        "Year": years.astype(np.int64) + 1970,
        "Month": month,
        "Week": _iso_week(days, weekday),
        "Day": (days - _first(months)).astype(np.int64) + 1,
        "Dayofweek": weekday,
        "Dayofyear": (days - _first(years)).astype(np.int64) + 1,
    }
    return {name: part.astype(np.int32) for name, part in whole.items()} | {
        "Is_month_end": month_end,
        "Is_month_start": month_start,
        "Is_quarter_end": month_end & ends_quarter,
        "Is_quarter_start": month_start & starts_quarter,
        "Is_year_end": month_end & (month == 12),
        "Is_year_start": month_start & (month == 1),
    }


def _iso_week(days: np.ndarray, weekday: np.ndarray) -> np.ndarray:
    """Week of ISO 8601: a week belongs to the year of its Thursday."""
    thursday = days - weekday + 3
    return (thursday - _first(thursday.astype("datetime64[Y]"))).astype(np.int64) // 7 + 1


def _first(periods: np.ndarray) -> np.ndarray:
    """The first day of months or years."""
    return periods.astype("datetime64[D]")


def _parts_of_time(seconds: np.ndarray) -> dict[str, np.ndarray]:
    minutes = seconds // 60
    return {"Hour": minutes // 60, "Minute": minutes % 60, "Second": seconds % 60}


def _waves_of_days(numbers: np.ndarray, parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    days = numbers.astype("datetime64[D]")
    months, years = days.astype("datetime64[M]"), days.astype("datetime64[Y]")
    days_of_month = (_first(months + 1) - _first(months)).astype(np.int64)
    days_of_year = (_first(years + 1) - _first(years)).astype(np.int64)
    return (
        _waves("Month", (parts["Month"] - 1) / 12)
        | _waves("Dayofweek", parts["Dayofweek"] / 7)
        | _waves("Dayofyear", (parts["Dayofyear"] - 1) / days_of_year)
        | _waves("Day", (parts["Day"] - 1) / days_of_month)
    )


def _waves(name: str, share: np.ndarray) -> dict[str, np.ndarray]:
    angle = 2 * np.pi * share
    return {f"{name}_sin": np.sin(angle).astype(np.float32), f"{name}_cos": np.cos(angle).astype(np.float32)}


def _blank(part: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """A part without what the placeholder day says of missing dates."""
    if part.dtype == bool:
        return part & ~missing
    part = part if part.dtype.kind == "f" else part.astype(np.float64)
    part[missing] = np.nan
    return part


# --- files ------------------------------------------------------------------------------------------------------------


def _by_suffix(path: Path, functions: dict[str, _Function]) -> _Function:
    if (function := functions.get(path.suffix.lower())) is None:
        raise UserError(f"{path} ends in none of {', '.join(functions)}; give a file of one of these formats")
    return function


def _no_column(column: str, columns: list[str]) -> UserError:
    near = difflib.get_close_matches(column, columns, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"the columns are {', '.join(columns)}"
    return UserError(f"there is no column {column!r}; {hint}")
