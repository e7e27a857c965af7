"""Dates: read whatever a table writes them as, and make the parts of a date that the course trains on."""

import re
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from unfreeze.models.csv_header import csv_header
from unfreeze.models.errors import UserError
from unfreeze.models.regular_files import irregular_kind
from unfreeze.models.tables.reading import unknown_column

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # ticks of the units that pandas keeps times in
DAY = 86_400  # seconds
DATE_FORMATS = (
    *("%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%m-%d-%Y", "%d-%m-%Y", "%Y/%m/%d"),
    *("%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%B %d %Y"),
)
TIME_FORMATS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
"""Besides ISO 8601, a text may be one of the date formats followed by one of the time formats."""
SHOWN = 3  # rows that an error names
SAMPLE = 100  # texts that decide which formats are tried on all
# A zone is looked for after a time only: the end of 01-02-2020 looks like one too.
_ZONE = re.compile(r"([:T]\d{2,6}(?:[.,]\d+)?)\s*(?:Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)\s*$", re.IGNORECASE)
# pandas would also read a lone year or number, a year before 0, and the words "now" and "today".
_ISO_BEGINS = r"\s*\d{4}(?:-|\d{4})"
_DAY_FLAGS = tuple(f"Is_{period}_{side}" for period in ("month", "quarter", "year") for side in ("end", "start"))


def parse_dates(values: pd.Series, name: str) -> pd.Series:
    """Read a column as dates and times, datetime64 in the unit of `values` if it has one, with its index.

    Times with a zone keep the wall clock of their own zone and lose the zone: the hour at which a shop opens says
    more than the hour in Greenwich. A text is read as ISO 8601, or with the one of `DATE_FORMATS` and `TIME_FORMATS`
    that fits every text that is not. Whole numbers are read as YYYYMMDD. Missing values and blank texts become NaT.

    Raises UserError if a value is not a date, or if nothing in the column tells whether the month or the day comes
    first; it names the column `name`.
    """
    times, wrong = read_dates(values, name)
    if not wrong.any():
        return times
    rows = np.flatnonzero(wrong)
    shown = ", ".join(f"row {row + 1} ({str(values.iloc[row])!r})" for row in rows[:SHOWN])
    more = f" and {len(rows) - SHOWN:,} more" if len(rows) > SHOWN else ""
    what = "1 value is not a date" if len(rows) == 1 else f"{len(rows):,} values are not dates"
    raise UserError(f"column {name!r}: {what}: {shown}{more}; write dates as YYYY-MM-DD, and leave missing ones empty")


def read_dates(values: pd.Series, name: str) -> tuple[pd.Series, np.ndarray]:
    """Read a column as `parse_dates` does; values that are not dates become NaT and are marked, (n,) bool."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(values.cat.categories.dtype)
    if types.is_datetime64_any_dtype(values.dtype):
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
    of_days = pd.DatetimeIndex((distinct * DAY).astype("datetime64[s]"))
    numbers = {
        "Year": of_days.year,
        "Month": of_days.month,
        "Week": of_days.isocalendar().week,
        "Day": of_days.day,
        "Dayofweek": of_days.day_of_week,
        "Dayofyear": of_days.day_of_year,
    }
    parts = {name: np.asarray(part, np.int32)[codes] for name, part in numbers.items()}
    parts |= {name: np.asarray(getattr(of_days, name.lower()))[codes] for name in _DAY_FLAGS}
    if time:
        minutes, second = np.divmod((seconds - days * DAY).astype(np.int32), np.int32(60))
        parts |= {"Hour": minutes // 60, "Minute": minutes % 60, "Second": second}
    parts["Elapsed"] = seconds.astype(np.float64)
    if cyclic:
        shares = {
            "Month": (of_days.month - 1) / 12,
            "Dayofweek": of_days.day_of_week / 7,
            "Dayofyear": (of_days.day_of_year - 1) / (365 + of_days.is_leap_year),
            "Day": (of_days.day - 1) / of_days.days_in_month,
        }
        angles = {name: (2 * np.pi * np.asarray(share), codes) for name, share in shares.items()}
        if time:
            angles["Hour"] = 2 * np.pi * np.arange(24) / 24, parts["Hour"]
        for name, (angle, rows) in angles.items():
            parts[f"{name}_sin"] = np.sin(angle).astype(np.float32)[rows]
            parts[f"{name}_cos"] = np.cos(angle).astype(np.float32)[rows]
    if blanks:
        parts = {name: _blank(part, missing) for name, part in parts.items()}
    return {prefix + name: part for name, part in parts.items()}


def part_names(column: str, time: bool = False, cyclic: bool = False) -> list[str]:
    """Names of the parts that `add_datepart` makes of a column."""
    return list(date_parts(pd.Series(pd.to_datetime(["2000-01-01"])), _prefix_of(column), time, cyclic))


def add_datepart(
    frame: pd.DataFrame,
    column: str,
    time: bool = False,
    cyclic: bool = False,
    drop: bool = True,
    prefix: str | None = None,
) -> pd.DataFrame:
    """A copy of a table with the parts of one of its dates (see `parse_dates`, `date_parts`) as columns at its end.

    A column that has the name of a part gives way to it, as with fastai.

    Parameters
    ----------
    drop : bool
        Whether to drop the date itself; if not, it is kept as read.
    prefix : str or None
        Put before the name of each part. None: the name of the column without Date or date at its end.

    Raises UserError if there is no such column, or it holds something else than dates.
    """
    if column not in frame.columns:
        raise unknown_column(column, frame.columns, "date column")
    dates = parse_dates(frame[column], column)
    prefix = _prefix_of(column) if prefix is None else prefix
    rest = frame.drop(columns=column) if drop else frame.assign(**{column: dates})
    # Not by assigning columns, which copies each.
    parts = pd.DataFrame(date_parts(dates, prefix, time, cyclic), index=frame.index, copy=False)
    return pd.concat([rest.drop(columns=rest.columns.intersection(parts.columns)), parts], axis=1)


def _read_csv(source: Path) -> pd.DataFrame:
    # In one piece: pieces may disagree about the type of a column.
    return pd.read_csv(source, sep=csv_header(source).separator, low_memory=False)


_FORMATS: dict[str, tuple[Any, Any]] = {
    ".csv": (_read_csv, partial(pd.DataFrame.to_csv, index=False)),
    ".parquet": (pd.read_parquet, partial(pd.DataFrame.to_parquet, index=False)),
    ".feather": (pd.read_feather, pd.DataFrame.to_feather),
}


def add_datepart_to_file(source: Path, column: str, out: Path, time: bool = False, cyclic: bool = False) -> int:
    """Write a table's file anew with the parts of one of its dates (see `add_datepart`); return the number of rows.

    Both files are .csv, .parquet or .feather; an existing `out` is replaced once all is written.

    Raises UserError if a file cannot be read or written, or if the column is missing or holds something else than
    dates.
    """
    if (kind := irregular_kind(source)) is not None:
        raise UserError(f"{source} is {kind}; give the path of a file")
    for path in (source, out):
        if path.suffix.lower() not in _FORMATS:
            raise UserError(f"{path} ends in none of {', '.join(_FORMATS)}; give a file of one of these formats")
    read, write = _FORMATS[source.suffix.lower()][0], _FORMATS[out.suffix.lower()][1]
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
    partial_file = out.with_name(f".{out.name}.part")
    try:
        write(frame, partial_file)
        partial_file.replace(out)
    except (OSError, ValueError) as error:
        partial_file.unlink(missing_ok=True)
        raise UserError(f"{out} cannot be written ({error}); check that its folder is there and has room") from error
    return len(frame)


def _prefix_of(column: str) -> str:
    return re.sub("[Dd]ate$", "", column)


def _without_zone(values: pd.Series) -> pd.Series:
    if isinstance(values.dtype, pd.ArrowDtype):
        # Arrow's dates and times are read as objects or with their zone; numpy's types are what the rest expects.
        plain = values.array.__arrow_array__().to_pandas(date_as_object=False)
        values = pd.Series(plain.array, index=values.index, name=values.name)
    local: pd.Series = values.dt.tz_localize(None)
    return local


def _as_texts(values: pd.Series, name: str) -> pd.Series:
    """Each value as a text without zone; missing where there is none."""
    dtype, is_object = values.dtype, types.is_object_dtype(values.dtype)
    if types.is_string_dtype(dtype) and not is_object:
        texts = values.astype("str")
    elif is_object or values.isna().all():
        texts = pd.Series([_as_text(value) for value in values], index=values.index, dtype="str")
    else:
        try:
            if types.is_bool_dtype(dtype) or not types.is_numeric_dtype(dtype):
                raise TypeError
            texts = values.astype("Int64").astype("str")
        except (TypeError, ValueError, OverflowError) as error:
            fractions = " with fractions" if types.is_float_dtype(dtype) else ""
            raise UserError(
                f"column {name!r} holds {dtype}{fractions}, not dates; name a column of dates, or write them as "
                "YYYY-MM-DD"
            ) from error
    return texts.mask(texts.str.strip() == "")


def _as_text(value: Any) -> str | None:
    if pd.isna(value):
        return None
    return str(value.replace(tzinfo=None) if isinstance(value, datetime) else value)


def _parse_texts(texts: pd.Series, name: str) -> pd.Series:
    """Times of texts by ISO 8601, of the others by the format that reads most of them; NaT where none can be read."""
    local = texts.str.replace(_ZONE, r"\1", regex=True)
    parsed = pd.to_datetime(local.where(local.str.match(_ISO_BEGINS)), format="ISO8601", errors="coerce")
    others = local[parsed.isna() & local.str.contains(r"\d")]
    if others.empty:
        return parsed
    formats = [day + time for day in DATE_FORMATS for time in TIME_FORMATS]
    sample = others.iloc[:SAMPLE]
    likely = [form for form in formats if pd.to_datetime(sample, format=form, errors="coerce").notna().any()]
    readings = [pd.to_datetime(others, format=form, errors="coerce") for form in likely]
    full = [reading for reading in readings if reading.notna().all()]
    if any(not (reading == full[0]).all() for reading in full):
        raise UserError(
            f"column {name!r}: nothing tells whether {others.iloc[0]!r} has the month or the day first; "
            "write the dates as YYYY-MM-DD"
        )
    return parsed.fillna(max(readings, key=lambda reading: reading.notna().sum())) if readings else parsed


def _distinct_days(days: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row's position among distinct days, and these days."""
    first, last = (int(days.min()), int(days.max())) if len(days) else (0, -1)
    if last - first < len(days):
        # Rather some days too many than a hash of each row, which takes longer than all parts together.
        return days - first, np.arange(first, last + 1)
    return pd.factorize(days)


def _blank(part: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """A part without the values of the day that stands in for missing dates."""
    if part.dtype == bool:
        present: np.ndarray = part & ~missing
        return present
    part = part if part.dtype.kind == "f" else part.astype(np.float64)
    part[missing] = np.nan
    return part
