"""Roles of a table's columns, inferred from their values; settings take precedence.

Text with numbers or dates is converted, ids and row numbers are left out, and codes are categories. The findings
become settings, so a model reads rows as its training did.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype, is_bool_dtype, is_datetime64_any_dtype, is_numeric_dtype

from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.tables.columns.column_names import is_code, is_counter, is_id, is_order
from unfreeze.models.tables.columns.date_texts import read_dates
from unfreeze.models.tables.columns.dates import find_date_columns, with_dates
from unfreeze.models.tables.columns.encoding import TableEncoder
from unfreeze.models.tables.columns.formats import (
    FEWEST_ROWS,
    Formats,
    convert_numbers,
    find_formats,
    readings,
    sample_of,
)
from unfreeze.models.tables.columns.kinds import has_fractions, whole_numbers_of
from unfreeze.models.tables.columns.number_texts import describe_format

ALL_DISTINCT = 0.99
"""Least share of distinct values at which a column identifies its rows."""
MOST_ALONE = 0.9
"""Share of rows with a unique text above which a column does not generalise to other rows."""
_WORDS_OF_TEXT = 4  # free text has more words per value than a name
_EXAMPLES = 2  # readings shown per line
_FIRST_ROWS = 1_000  # source of the readings shown
_CHANCE = 1e-4  # probability that measurements in this range are all distinct
_MOST_GAPS = 0.2  # share of the steps of row numbers, where rows were left out
_FEWEST_NUMBERS = 40
_LONG = 9  # digits: measurements are not that exact
_FIRST_KEY = 100  # least first key: a series of settings, such as 18, 19, 20 degrees, begins lower


class Role(NamedTuple):
    """Use of a column, the reason, and the flag that changes it; printed as a line."""

    column: str
    role: str
    reason: str
    flag: str

    def __str__(self) -> str:
        return f"{self.column}: {self.role}, {self.reason}" + (f" (else {self.flag})" if self.flag else "")


class Found(NamedTuple):
    """Findings about a table's columns.

    Attributes
    ----------
    columns
        All of the table.
    data
        The settings, completed with the findings.
    roles
        Column -> its role, for columns other than plain numbers and categories.
    lenient
        Columns in which unreadable values are missing instead of an error.
    readings
        Values of text columns beside their readings, see `unfreeze.models.tables.columns.formats.readings`.
    """

    columns: list[str]
    data: TableDataSpec
    roles: dict[str, Role]
    lenient: list[str]
    readings: list[dict[str, Any]]


def infer_roles(frame: pd.DataFrame, data: TableDataSpec) -> tuple[pd.DataFrame, Found]:
    """Find numbers and dates in text, ids, row numbers and codes.

    Returns the table with texts of numbers and dates converted, and with dates assembled from columns.

    Parameters
    ----------
    frame
        The joined table with all rows and the dates of `data.date_from`.
    data
        Columns named here keep their role; only targets, dates and `continuous` are converted.
    """
    named = _named(data)
    formats = find_formats(frame, data, named)
    raw, (frame, unreadable) = frame, convert_numbers(frame, formats.numbers)
    shown = {name: readings(raw[name], frame[name]) for name in unreadable}
    roles = {name: _number_role(name, formats, shown[name], texts, len(frame)) for name, texts in unreadable.items()}
    for name in (name for name in formats.dates if name in raw):
        some = raw[name].dropna().iloc[:_FIRST_ROWS]
        shown[name] = readings(some, read_dates(some, name, formats.dates[name])[0])
        roles[name] = _date_role(name, formats, shown[name])
    found: dict[str, list[str]] = {"date": [], "drop": [], "categorical": []}
    for name in (str(each) for each in frame if each not in named):
        if (role := roles[name] if name in formats.dates else _look(frame[name], formats.reasons)) is not None:
            roles[name] = role
            found[_SETTINGS[role.role]].append(name)
    date_from = data.date_from
    if not (date_from or data.date or found["date"]):
        date_from = find_date_columns(frame, named)
        frame = with_dates(frame, date_from)
        found["date"] += date_from
    for date, columns in date_from.items():
        roles[date] = Role(date, "date", f"put together from {', '.join(columns)}", "--data.split random")
        found["drop"] += (parts := [name for name in columns if name not in named])
        roles |= {name: Role(name, "left out", f"{date} has it", f"--data.continuous {name}") for name in parts}
    if not {str(each) for each in frame} - {*data.target, *data.drop, *found["drop"]}:
        for name in found["drop"]:  # a row number is better than nothing to predict from
            del roles[name]
        found["drop"] = []
    settings: dict[str, Any] = {field: [*getattr(data, field), *names] for field, names in found.items()}
    settings |= {"numbers": formats.numbers, "date_formats": formats.dates, "date_from": date_from}
    lenient = [name for name, texts in unreadable.items() if len(texts)]
    for name in (name for name in found["date"] if name in formats.dates):
        times, wrong = read_dates(raw[name], name, formats.dates[name])
        frame = frame.assign(**{name: times})
        lenient += [name] if wrong.any() else []
    every = [row for rows in shown.values() for row in rows]
    return frame, Found([str(name) for name in frame], data.model_copy(update=settings), roles, lenient, every)


_FORMAT_FLAG = "--data.numbers or --data.date_formats"
_SETTINGS = {"date": "date", "left out": "drop", "category": "categorical"}
"""Role -> the setting that stores it."""


def describe_roles(
    found: Found, stated: TableDataSpec, encoder: TableEncoder, rejected: Sequence[Mapping[str, Any]]
) -> list[Role]:
    """The role of every column, targets first.

    Parameters
    ----------
    found, stated
        The findings, and the settings before them.
    encoder
        Decides columns without a finding, by the training rows.
    rejected
        See `drop_unusable_columns`.
    """
    roles = [_target_role(name, found.roles, encoder) for name in stated.target]
    useless = {str(entry["what"]): str(entry["reason"]) for entry in rejected} | encoder.rejected
    for name in (name for name in found.columns if name not in stated.target):
        role = found.roles.get(name)
        if name in stated.drop:
            roles.append(Role(name, "left out", "as data.drop says", ""))
        elif name == stated.split_column and stated.split == "column":
            roles.append(Role(name, "split", "as data.split_column says", ""))
        elif name in stated.date:
            roles.append(Role(name, "date", "as data.date says", ""))
        elif name in useless and not (role and role.role == "date"):
            roles.append(Role(name, "left out", useless[name], ""))
        elif name in encoder.categorical and not (role and role.role == "category"):
            roles.append(_category_role(name, role, encoder))
        else:
            plain = Role(name, "number", "it has many values or fractions", f"--data.categorical {name}")
            roles.append(role or plain)
    return roles


def _target_role(name: str, found: Mapping[str, Role], encoder: TableEncoder) -> Role:
    if encoder.classes:
        reason = f"classification of {len(encoder.classes):,} classes, such as {encoder.classes[0]!r}"
        return Role(name, "target", reason, "" if isinstance(encoder.classes[0], str) else "--data.task regression")
    text = f"; {found[name].reason}" if name in found else ""
    return Role(name, "target", f"regression of its numbers{text}", "--data.task classification")


def _category_role(name: str, role: Role | None, encoder: TableEncoder) -> Role:
    kind = {"text": "text", "bool": "true or false"}.get(encoder.kinds.get(name, ""), "whole numbers")
    reason = f"{role.reason if role else kind} with {len(encoder.categorical[name]):,} values"
    return Role(name, "category", reason, f"--data.{'drop' if kind == 'text' else 'continuous'} {name}")


def _named(data: TableDataSpec) -> set[str]:
    """Columns with a role in the settings."""
    fields = ("target", "date", "drop", "categorical", "continuous", "group", "events", "rolling")
    named = {name for field in fields for name in getattr(data, field)}
    return named | ({data.split_column} if data.split_column else set())


def _number_role(
    name: str, formats: Formats, shown: Sequence[Mapping[str, Any]], unreadable: pd.Series, rows: int
) -> Role:
    parts = [f"text of {describe_format(formats.numbers[name])}{_examples(shown)}", formats.reasons.get(name, "")]
    if len(unreadable):
        examples = ", ".join(repr(str(value)) for value in unreadable.drop_duplicates().head(3))
        parts.append(f"{len(unreadable):,} of {rows:,} values cannot be read ({examples}) and are missing")
    return Role(name, "number", "; ".join(filter(None, parts)), f"--data.categorical {name}")


def _date_role(name: str, formats: Formats, shown: Sequence[Mapping[str, Any]] = ()) -> Role:
    form, reason = formats.dates[name], formats.reasons.get(name, "")
    parts = [f"its values are dates, written as {form}{_examples(shown)}", reason]
    return Role(name, "date", "; ".join(filter(None, parts)), f"--data.categorical {name}")


def _examples(shown: Sequence[Mapping[str, Any]]) -> str:
    read = sorted((each for each in shown if each["read as"] != "missing"), key=lambda each: -len(each["value"]))
    examples = [f"{each['value']!r} is {each['read as']}" for each in read]
    return f" ({', '.join(examples[:_EXAMPLES])})" if examples else ""


def _look(column: pd.Series, reasons: Mapping[str, str]) -> Role | None:
    """The role of a column that no setting names; None for plain numbers and categories."""
    name = str(column.name)
    if is_datetime64_any_dtype(column):
        return Role(name, "date", "it holds dates", f"--data.drop {name}")
    sample = sample_of(column)
    if len(sample) < FEWEST_ROWS or is_bool_dtype(column):
        return None
    if is_numeric_dtype(column):
        return _look_at_numbers(column, sample)
    if infer_dtype(sample) == "string" and (role := _text_id_role(column, sample)):
        return role
    return Role(name, "category", reasons[name], _FORMAT_FLAG) if name in reasons else None


def _look_at_numbers(column: pd.Series, sample: pd.Series) -> Role | None:
    if has_fractions(sample) or has_fractions(column):  # a measurement, however distinct
        return None
    name = str(column.name)
    if not is_code(name) and sample.nunique() < ALL_DISTINCT * len(sample):  # the share among all rows is no larger
        return None
    values, rows = int(column.nunique()), int(column.count())
    if reason := _why_id(column, values, rows):
        return Role(name, "left out", reason, f"--data.{'categorical' if is_code(name) else 'continuous'} {name}")
    reason = f"a code by its name, {values:,} values"
    return Role(name, "category", reason, f"--data.continuous {name}") if is_code(name) else None


def _why_id(column: pd.Series, values: int, rows: int) -> str:
    """Why whole numbers identify their rows; empty if they do not."""
    name, are_distinct = str(column.name), values >= ALL_DISTINCT * rows
    what = "an id" if is_id(name) and values * 2 > rows else ""
    what = what or ("a row number" if is_counter(name) else "a code" if is_code(name) else "") * are_distinct
    if what:
        return f"{what} by its name, {values:,} values in {rows:,} rows"
    return _why_numbering(column) if values == rows == len(column) and not is_order(name) else ""


def _why_numbering(column: pd.Series) -> str:
    """Why distinct whole numbers number the rows; empty if they may be a measurement.

    They are consecutive in row order; or so dense in their range that measurements would hardly all be distinct (the
    birthday problem, with a probability below 1 in 10,000); or have equally many digits, at least nine, like hashes
    and telephone numbers.
    """
    numbers = whole_numbers_of(column).to_numpy(np.int64)
    low, high, rows = int(numbers.min()), int(numbers.max()), len(numbers)
    steps = np.abs(np.diff(numbers))
    if low < 0 or rows < 2:
        return ""
    if (np.diff(numbers) > 0).all() or (np.diff(numbers) < 0).all():
        if (steps == 1).all() and (low in (0, 1) or low >= _FIRST_KEY):
            return "a row number: it counts the rows"
        if rows >= _FEWEST_NUMBERS and (steps == 1).mean() >= 1 - _MOST_GAPS and (low in (0, 1) or low >= _FIRST_KEY):
            return f"a row number: it counts from {low:,} to {high:,}, with few gaps"
    elif rows >= _FEWEST_NUMBERS and rows**2 / (2 * (high - low + 1)) > -math.log(_CHANCE):
        return f"a key: {rows:,} numbers from {low:,} to {high:,}, and none occurs twice"
    digits = len(str(low))
    if rows >= _FEWEST_NUMBERS and digits == len(str(high)) >= _LONG and not (numbers % 1000 == 0).any():
        return f"a key: {rows:,} different numbers of {digits} digits"
    return ""


def _text_id_role(column: pd.Series, sample: pd.Series) -> Role | None:
    name, rows = str(column.name), int(column.count())
    share = sample.nunique() / len(sample)  # at least the share among all rows
    if is_id(name) and share > 1 / 2 and (values := int(column.nunique())) * 2 > rows:
        return _left_out(name, f"an id by its name, {values:,} values in {rows:,} rows")
    if share >= MOST_ALONE and (column.value_counts() == 1).sum() >= MOST_ALONE * rows:
        values = int(column.nunique())
        return _left_out(name, f"text with {values:,} values in {rows:,} rows, which hardly any two rows share")
    if share > 1 / 2 and sample.str.count(r"\S+").mean() >= _WORDS_OF_TEXT and column.nunique() * 2 > rows:
        return _left_out(name, "free text, of which hardly any value occurs twice")
    return None


def _left_out(name: str, reason: str) -> Role:
    return Role(name, "left out", reason, f"--data.categorical {name}")
