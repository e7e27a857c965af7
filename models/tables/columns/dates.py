"""Parts of dates as columns, as in the fast.ai course, and dates assembled from columns."""

import re
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from unfreeze.models.errors import UserError
from unfreeze.models.tables.columns.column_names import words_of
from unfreeze.models.tables.columns.date_texts import check_date_format, parse_dates
from unfreeze.models.tables.reading.columnar_files import PER_SECOND
from unfreeze.models.tables.reading.frames import open_table, require, to_frame, write_feather

DAY = 86_400  # seconds
_DAY_FLAGS = tuple(f"Is_{period}_{side}" for period in ("month", "quarter", "year") for side in ("end", "start"))
_PART_NAMES = {
    "year": {"year", "yr", "yyyy"},
    "month": {"month", "mon", "mnth", "mo", "mm"},
    "day": {"day", "dy", "dd", "mday", "dayofmonth"},
    "hour": {"hour", "hr", "hh"},
    "minute": {"minute", "min", "mi"},
}
"""Part of a date -> words that name its columns."""
_RANGES = {"year": (1900, 2100), "month": (1, 12), "day": (1, 31), "hour": (0, 24), "minute": (0, 59)}
_FEWEST = 2
"""Combinations of parts that make a date; a year alone is a number."""


def date_parts(values: pd.Series, prefix: str, time: bool = False, cyclic: bool = False) -> dict[str, np.ndarray]:
    """Parts of dates by name, named and typed as in fastai 2.8.

    Year, Month, Week (ISO 8601), Day, Dayofweek (Monday is 0), Dayofyear, six flags for the ends and starts of month,
    quarter and year, with `time` also Hour, Minute and Second, and Elapsed (whole seconds since 1970). With `cyclic`
    the sine and cosine of Month, Dayofweek, Dayofyear, Day, and with `time` Hour, as shares of their period: a month
    has 28 to 31 days and a year 365 or 366.

    Parameters
    ----------
    values : Series of length n, datetime64 without a zone
        See `parse_dates`.
    prefix : str
        Prefix of each name.

    Returns
    -------
    dict of arrays of shape (n,)
        int32 for numbers, bool for flags, float64 for Elapsed, float32 for sines and cosines. Where a date is missing,
        flags are False and the rest NaN; the numbers are then float64.

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
    # Millions of rows share a few thousand days: compute each day's parts once.
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


def varies_in_time(dates: pd.Series) -> bool:
    """Whether the time of day varies among dates (n,)."""
    times = dates.dropna()
    return len(times) > 0 and bool(((times - times.dt.normalize()) != times.iloc[0] - times.iloc[0].normalize()).any())


def part_names(column: str, time: bool = False, cyclic: bool = False) -> list[str]:
    """Names of the columns that `add_datepart` derives from a column."""
    return list(date_parts(pd.Series(pd.to_datetime(["2000-01-01"])), _prefix_of(column), time, cyclic))


def elapsed_name(column: str) -> str:
    """Name of the column of seconds since 1970 that `add_datepart` derives."""
    return f"{_prefix_of(column)}Elapsed"


def add_datepart(
    frame: pd.DataFrame, column: str, time: bool = False, cyclic: bool = False, form: str | None = None
) -> pd.DataFrame:
    """Replace a date column by its parts in a copy of a table (see `parse_dates`, `date_parts`).

    The parts come last, named after the column without a trailing Date or date. An existing column with the name of a
    part is replaced, as in fastai.

    Parameters
    ----------
    form : str or None
        Format of the dates; None: detected by `find_date_format`.

    Raises UserError if the column is missing or holds anything but dates.
    """
    require(frame, [column], "date column")
    dates = parse_dates(frame[column], column, form)
    # Assigning columns one at a time would copy each.
    parts = pd.DataFrame(date_parts(dates, _prefix_of(column), time, cyclic), index=frame.index, copy=False)
    return pd.concat([frame.drop(columns=[column, *frame.columns.intersection(parts.columns)]), parts], axis=1)


_WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".csv": partial(pd.DataFrame.to_csv, index=False),
    ".parquet": partial(pd.DataFrame.to_parquet, index=False),
    ".feather": pd.DataFrame.to_feather,
}


def add_datepart_to_file(
    source: Path, column: str, out: Path, time: bool = False, cyclic: bool = False, form: str | None = None
) -> int:
    """Write a copy of a table file with one date column replaced by its parts; return the number of rows.

    The source is read as for a training (see `write_feather`); an existing `out` (.csv, .parquet or .feather) is
    replaced once everything is written.

    Raises UserError if a file cannot be read or written, or the column is missing or holds anything but dates.
    """
    if form is not None:
        check_date_format(form, "format")
    if (write := _WRITERS.get(out.suffix.lower())) is None:
        raise UserError(f"{out} ends in none of {', '.join(_WRITERS)}; give a file of one of these formats")
    with tempfile.TemporaryDirectory() as folder:
        read = Path(folder) / "read.arrow"
        write_feather(source, read, text=[column])
        frame = to_frame(open_table(read))
    try:
        frame = add_datepart(frame, column, time, cyclic, form=form)
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


def _distinct_days(days: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row's position among the distinct days, and those days."""
    first, last = (int(days.min()), int(days.max())) if len(days) else (0, -1)
    if last - first < len(days):
        # A few unused days cost less than hashing each row, which takes longer than computing all parts.
        return days - first, np.arange(first, last + 1)
    return pd.factorize(days)


def _blank(part: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Blank one part where the date is missing."""
    if part.dtype == bool:
        present: np.ndarray = part & ~missing
        return present
    part = part if part.dtype.kind == "f" else part.astype(np.float64)
    part[missing] = np.nan
    return part


# --- dates assembled from columns -------------------------------------------------------------------------------------


def find_date_columns(frame: pd.DataFrame, left_out: Collection[str]) -> dict[str, list[str]]:
    """Find columns of whole numbers named like parts of a date.

    Returns the name of each date -> its columns, from the year to the finest.
    """
    parts: dict[str, dict[str, str]] = {}
    for name in (str(each) for each in frame if each not in left_out):
        words = words_of(name)
        for part, called in _PART_NAMES.items():
            if (here := called.intersection(words)) and _holds(frame[name], part):
                stem = "_".join(word for word in words if word not in here)
                parts.setdefault(stem, {}).setdefault(part, name)
    found = {}
    for stem, columns in parts.items():
        order = [part for number, part in enumerate(_PART_NAMES) if {*list(_PART_NAMES)[: number + 1]} <= {*columns}]
        name = f"{stem}_date" if stem else "date"
        if len(order) >= _FEWEST and name not in frame:
            found[name] = [columns[part] for part in order]
    return found


def with_dates(frame: pd.DataFrame, date_from: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Add dates assembled from columns; impossible and incomplete dates are missing.

    Raises
    ------
    UserError
        If a column is missing or not numeric, or a date has fewer than two or more than five columns.
    """
    made = {}
    for date, columns in date_from.items():
        if not _FEWEST <= len(columns) <= len(_PART_NAMES):
            raise UserError(
                f"data.date_from: {date}: name columns of {', '.join(_PART_NAMES)}, in this order, at least two"
            )
        for name in require(frame, columns, f"data.date_from: {date}"):
            if not is_numeric_dtype(frame[name]):
                raise UserError(f"data.date_from: {date}: column {name} holds no numbers; drop it from the list")
        parts = pd.DataFrame({part: frame[name] for part, name in zip(_PART_NAMES, columns, strict=False)})
        parts = parts if "day" in parts else parts.assign(day=1)
        made[date] = pd.to_datetime(parts, errors="coerce").astype("datetime64[us]")
    return frame.assign(**made)


def _holds(column: pd.Series, part: str) -> bool:
    if not is_numeric_dtype(column) or column.dtype == bool:
        return False
    first, last = _RANGES[part]
    known = column.dropna()
    return len(known) > 0 and bool(known.between(first, last).all() and (np.mod(known, 1) == 0).all())
