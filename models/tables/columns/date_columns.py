"""Dates whose year, month, day and hour are columns of their own."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from unfreeze.models.errors import UserError
from unfreeze.models.tables.columns.column_names import words_of
from unfreeze.models.tables.reading.frames import unknown_column

_NAMES = {
    "year": {"year", "yr", "yyyy"},
    "month": {"month", "mon", "mnth", "mo", "mm"},
    "day": {"day", "dy", "dd", "mday", "dayofmonth"},
    "hour": {"hour", "hr", "hh"},
    "minute": {"minute", "min", "mi"},
}
"""Part of a date -> words by which columns of it are called."""
_RANGES = {"year": (1900, 2100), "month": (1, 12), "day": (1, 31), "hour": (0, 24), "minute": (0, 59)}
_FEWEST = 2
"""Parts, from the year on, that make a date: a year alone is a number."""


def find_date_columns(frame: pd.DataFrame, left_out: Collection[str]) -> dict[str, list[str]]:
    """Name of a date -> its columns, from the year to the finest, where columns of whole numbers are called so."""
    parts: dict[str, dict[str, str]] = {}
    for name in (str(each) for each in frame if each not in left_out):
        words = words_of(name)
        for part, called in _NAMES.items():
            if (here := called.intersection(words)) and _holds(frame[name], part):
                stem = "_".join(word for word in words if word not in here)
                parts.setdefault(stem, {}).setdefault(part, name)
    found = {}
    for stem, columns in parts.items():
        order = [part for number, part in enumerate(_NAMES) if {*list(_NAMES)[: number + 1]} <= {*columns}]
        name = f"{stem}_date" if stem else "date"
        if len(order) >= _FEWEST and name not in frame:
            found[name] = [columns[part] for part in order]
    return found


def with_dates(frame: pd.DataFrame, date_from: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The rows with dates put together from columns; a date is missing where one of them is, or where it cannot be.

    Raises
    ------
    UserError
        If there is no such column, a date has fewer than two or more than five, or they are not numbers.
    """
    made = {}
    for date, columns in date_from.items():
        if not _FEWEST <= len(columns) <= len(_NAMES):
            raise UserError(f"data.date_from: {date}: name columns of {', '.join(_NAMES)}, in this order, at least two")
        for name in columns:
            if name not in frame:
                raise unknown_column(name, frame.columns, f"data.date_from: {date}")
            if not is_numeric_dtype(frame[name]):
                raise UserError(f"data.date_from: {date}: column {name} holds no numbers; drop it from the list")
        parts = pd.DataFrame({part: frame[name] for part, name in zip(_NAMES, columns, strict=False)})
        parts = parts if "day" in parts else parts.assign(day=1)
        made[date] = pd.to_datetime(parts, errors="coerce").astype("datetime64[us]")
    return frame.assign(**made)


def _holds(column: pd.Series, part: str) -> bool:
    if not is_numeric_dtype(column) or column.dtype == bool:
        return False
    first, last = _RANGES[part]
    known = column.dropna()
    return len(known) > 0 and bool(known.between(first, last).all() and (np.mod(known, 1) == 0).all())
