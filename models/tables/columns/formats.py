"""Formats of numbers and dates in text, detected from whole columns and kept in the model."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype, is_bool_dtype, is_datetime64_any_dtype, is_numeric_dtype

from unfreeze.models.errors import UserError
from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.tables.columns.column_names import is_code, is_moment
from unfreeze.models.tables.columns.date_texts import (
    ISO,
    UNITS,
    YEARS,
    DateFormat,
    check_date_format,
    find_date_format,
    read_dates,
)
from unfreeze.models.tables.columns.encoding import is_quantity
from unfreeze.models.tables.columns.kinds import has_fractions
from unfreeze.models.tables.columns.number_texts import (
    MOST_UNREADABLE,
    DecimalMark,
    NumberFormat,
    check_number_format,
    demanded_mark,
    find_number_format,
    is_missing,
    read_numbers,
)
from unfreeze.models.tables.reading.frames import require

SAMPLE_ROWS = 20_000
"""Rows sampled to classify a column; conversions and counts of ids use all rows."""
FEWEST_ROWS = 20  # fewer rows say nothing about the column
_SHOWN = 10
"""Values of a column shown beside their reading."""
_FEW_VALUES = 1_000
"""Distinct texts tried as dates, which takes far longer than numbers."""
_YEAR_MONTH = r"(?:19|20)\d\d\.(?:0[1-9]|1[0-2])"
_FIRST_DATE = 100_000  # dates have at least six digits


class Formats(NamedTuple):
    """Formats by column, see `read_numbers` and `read_dates`, with remarks.

    `dates` includes dates named in the settings.
    """

    numbers: dict[str, str]
    dates: dict[str, str]
    reasons: dict[str, str]


def sample_of(column: pd.Series) -> pd.Series:
    """At most `SAMPLE_ROWS` non-missing values from the whole column."""
    return column.iloc[:: max(1, len(column) // SAMPLE_ROWS)].dropna()


def is_text(column: pd.Series) -> bool:
    """Whether a column holds neither numbers nor booleans nor dates."""
    return not (is_numeric_dtype(column) or is_bool_dtype(column) or is_datetime64_any_dtype(column))


def find_formats(frame: pd.DataFrame, data: TableDataSpec, named: set[str]) -> Formats:
    """Detect the formats of a training's columns; those stated in `data` are kept.

    Parameters
    ----------
    named
        Columns with a role in the settings; among them only targets, dates and `continuous` are read.

    Raises
    ------
    UserError
        For an invalid format, a missing column, or a named date column of ambiguous format.
    """
    for field, check in (("numbers", check_number_format), ("date_formats", check_date_format)):
        for name in require(frame, getattr(data, field), f"data.{field}"):
            check(getattr(data, field)[name], f"data.{field}: {name}")
    formats = Formats(dict(data.numbers), dict(data.date_formats), {})
    columns = [str(name) for name in frame if name not in data.drop]
    read = {*columns} - {*data.numbers} - (named - {*data.continuous, *data.target})
    _find_numbers(frame, [name for name in columns if name in read and is_text(frame[name])], data, formats)
    _find_dates(frame, [name for name in columns if name not in named or name in data.date], data, formats)
    return formats


def convert_numbers(frame: pd.DataFrame, numbers: Mapping[str, str]) -> tuple[pd.DataFrame, dict[str, pd.Series]]:
    """Read the texts of some columns as numbers; numeric and absent columns are left alone.

    Returns the table, and the unreadable texts of every column that was text.
    """
    read, unreadable = {}, {}
    for name, form in numbers.items():
        if name in frame and is_text(frame[name]):
            read[name], wrong = read_numbers(frame[name], form)
            unreadable[name] = frame[name][wrong]
    return frame.assign(**read) if read else frame, unreadable


def readings(raw: pd.Series, read: pd.Series) -> list[dict[str, Any]]:
    """Ten distinct values of a column beside their reading, for the report."""
    distinct = raw.dropna().drop_duplicates()
    rows = distinct.index[np.unique(np.linspace(0, len(distinct) - 1, min(_SHOWN, len(distinct))).astype(int))]
    shown = ["missing" if pd.isna(read[row]) else str(read[row]).removesuffix(" 00:00:00") for row in rows]
    return [
        {"column": raw.name, "value": str(raw[row]), "read as": each} for row, each in zip(rows, shown, strict=True)
    ]


# --- numbers ----------------------------------------------------------------------------------------------------------


def _find_numbers(frame: pd.DataFrame, columns: Sequence[str], data: TableDataSpec, formats: Formats) -> None:
    texts = {name: sample for name in columns if infer_dtype(sample := sample_of(frame[name])) == "string"}
    found = {name: _number_format(each, data, None) for name, each in texts.items()}
    marks = {demanded_mark(texts[name]) for name, each in found.items() if each.form is not None}
    if {",", "."} & marks == {","}:  # other columns have decimal commas
        found = {name: _number_format(each, data, ",") for name, each in texts.items()}
    formats.numbers.update({name: form for name, (form, _) in found.items() if form is not None})
    formats.reasons.update({name: reason for name, (_, reason) in found.items() if reason})


def _number_format(texts: pd.Series, data: TableDataSpec, mark: DecimalMark | None) -> NumberFormat:
    """The format of a column of numbers; no form for other text."""
    name = str(texts.name)
    form, reason = find_number_format(texts, mark)
    if form is None and name in data.continuous:
        decimal = demanded_mark(texts) or "."
        read, wrong = read_numbers(texts, decimal)
        return NumberFormat(decimal if np.isfinite(read).sum() > wrong.sum() else None, reason)
    if form is None or name in data.continuous:
        return NumberFormat(form, reason)
    missing = is_missing(texts)
    if is_code(name) or _is_padded(texts[~missing], name in data.target):
        return NumberFormat(None)
    if texts.str.fullmatch(_YEAR_MONTH).all():
        return NumberFormat(None)
    are_rare = missing.mean() <= MOST_UNREADABLE
    if name in data.target and data.task == "classification" and (form != "." or not are_rare):
        return NumberFormat(None)  # classes stay as written
    numbers = pd.Series(read_numbers(texts, form)[0])
    if name in data.target and data.task == "auto" and not are_rare and not is_quantity(numbers):
        beside = ", ".join(f"{number:g}" for number in numbers.dropna().drop_duplicates().head(3))
        raise UserError(
            f"target {name!r}: {texts[missing].iloc[0]!r} in {missing.mean():.0%} of the rows, beside {beside}, may be "
            "a class or stand for no value; set data.task to classification if it is a class, or data.numbers to "
            f"{{{name}: '.'}} to leave these rows out"
        )
    return NumberFormat(form, reason) if numbers.nunique() > 1 else NumberFormat(None)


def _is_padded(texts: pd.Series, any_length: bool) -> bool:
    """Whether all texts are digits, some with a leading 0, and of one length unless `any_length`."""
    one_length = any_length or texts.str.len().nunique() == 1
    return one_length and bool(texts.str.fullmatch(r"\d+").all() and texts.str.fullmatch(r"0\d+").any())


# --- dates ------------------------------------------------------------------------------------------------------------


def _find_dates(frame: pd.DataFrame, columns: Sequence[str], data: TableDataSpec, formats: Formats) -> None:
    """Add the formats of named dates, and of columns that hold only dates."""
    for name in (name for name in columns if name not in formats.dates):
        try:
            found = _date_format(frame[name], name, name in data.date)
        except UserError as question:
            if name in data.date:
                raise
            formats.reasons[name] = f"text of dates, but {str(question).partition(': ')[2]}"
            continue
        if found is not None:
            formats.dates[name], formats.reasons[name] = found
            formats.numbers.pop(name, None)  # such as 20240131, also a number


def _date_format(column: pd.Series, name: str, named: bool) -> DateFormat | None:
    """The format of a column of dates; None for other columns and for typed dates."""
    if is_datetime64_any_dtype(column) or is_bool_dtype(column):
        return None
    if named:
        return find_date_format(column, name)
    distinct = _distinct_texts(column)
    if len(distinct) < 2 or not distinct.str.contains(r"\d").mean() > 1 - MOST_UNREADABLE:
        return None
    if distinct.str.fullmatch(r"\s*\d+\s*").all():
        return _of_bare_numbers(distinct, name)
    found = find_date_format(distinct, name)
    return found if read_dates(distinct, name, found.form)[1].mean() <= MOST_UNREADABLE else None


def _distinct_texts(column: pd.Series) -> pd.Series:
    """Up to about 1,000 distinct texts, or whole numbers of six digits or more as text; empty for other columns."""
    sample = sample_of(column)
    if is_numeric_dtype(column) and len(sample) and sample.min() >= _FIRST_DATE and not has_fractions(sample):
        sample = sample.astype("Int64").astype("str")
    if len(sample) < FEWEST_ROWS or infer_dtype(sample) != "string":
        return sample.iloc[:0].astype("str")
    distinct = sample[~is_missing(sample)].drop_duplicates()
    return distinct.iloc[:: max(1, len(distinct) // _FEW_VALUES)]


def _of_bare_numbers(texts: pd.Series, name: str) -> DateFormat | None:
    """The format of whole numbers that are dates rather than ids, phone numbers or amounts."""
    try:
        found = find_date_format(texts, name)
    except UserError:  # six or eight ambiguous digits are more likely no dates
        return None
    times, wrong = read_dates(texts, name, found.form)
    if wrong.any() or not times.dt.year.between(*YEARS).all():
        return None
    in_order = times.is_monotonic_increasing or times.is_monotonic_decreasing
    if is_moment(name) or (found.form in (ISO, "%Y%m") and len(texts) > 2) or (found.form in UNITS and in_order):
        what = "months such as 202103" if found.form == "%Y%m" else "numbers that are dates"
        return DateFormat(found.form, found.reason or f"{what} ({found.form})")
    return None
