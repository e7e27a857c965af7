"""What a table's columns are for, found by looking at them; whatever a setting says about a column wins.

Text that holds numbers or dates is read as such, ids and row numbers are left out, and codes are categories. What is
found becomes settings, so that a model reads rows as its training did.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype, is_bool_dtype, is_datetime64_any_dtype, is_numeric_dtype

from unfreeze.models.errors import UserError
from unfreeze.models.specs.tables import TableDataSpec
from unfreeze.models.tables.column_names import is_code, is_counter, is_id, is_order
from unfreeze.models.tables.columns import has_fractions, whole_numbers_of
from unfreeze.models.tables.dates import read_dates
from unfreeze.models.tables.encoding import TableEncoder
from unfreeze.models.tables.number_texts import MISSING_WORDS, DecimalMark, decimal_mark, read_numbers
from unfreeze.models.tables.reading import unknown_column

SAMPLE_ROWS = 20_000
"""Rows at most that decide what a column is; conversions and counts of ids take all of them."""
MOST_UNREADABLE = 0.05
"""Share of the texts that may be no number, or no date, in a column of these."""
FEW_VALUES = 1_000
"""Distinct texts that are tried as dates, which takes far longer than numbers."""
ALL_DISTINCT = 0.99
"""Share of distinct values from which on a column identifies its rows."""
_FEWEST_ROWS = 20  # what fewer rows have in common says nothing about the column
_WORDS_OF_TEXT = 4  # free text has more words a value than a name of something
_FIRST_DAY, _LAST_DAY = 19_000_101, 21_001_231


class Role(NamedTuple):
    """What a column is for: a line that people read, with the flag that changes it."""

    column: str
    role: str
    reason: str
    flag: str

    def __str__(self) -> str:
        return f"{self.column}: {self.role}, {self.reason}" + (f" (else {self.flag})" if self.flag else "")


class Found(NamedTuple):
    """What was found in a table.

    Attributes
    ----------
    columns
        All of the table.
    data
        The settings with what was found filled in.
    roles
        Column -> its role, for columns that are not plainly numbers or categories.
    lenient
        Columns in which what cannot be read is missing, instead of an error.
    """

    columns: list[str]
    data: TableDataSpec
    roles: dict[str, Role]
    lenient: list[str]


def infer_roles(frame: pd.DataFrame, data: TableDataSpec) -> tuple[pd.DataFrame, Found]:
    """Find numbers and dates in text, ids, row numbers and codes; returns the table with texts of numbers converted.

    Parameters
    ----------
    frame
        The joined table with all its rows.
    data
        Columns that it names keep the role that they have there: only targets and `continuous` are converted.
    """
    for name in data.numbers:
        if name not in frame:
            raise unknown_column(name, frame.columns, "data.numbers")
    found: dict[str, list[str]] = {"date": [], "drop": [], "categorical": []}
    numbers: dict[str, DecimalMark] = dict(data.numbers)
    roles: dict[str, Role] = {}
    for name in (str(each) for each in frame if each not in data.drop):
        if name not in data.numbers and _may_convert(frame[name], name, data) and (mark := _mark(frame[name], data)):
            numbers[name] = mark
    frame, unreadable = convert_numbers(frame, numbers)
    for name, (count, texts) in unreadable.items():
        roles[name] = _number_role(name, numbers[name], count, texts, len(frame))
    named = _named(data)
    for name in (str(each) for each in frame if each not in named):
        if (role := _look(frame[name])) is not None:
            roles[name] = role
            found[_SETTINGS[role.role]].append(name)
            numbers.pop(name, None)  # such as 20240131, which is read as a date
    if not {str(each) for each in frame} - {*data.target, *data.drop, *found["drop"]}:
        for name in found["drop"]:  # a row number is better than nothing to predict from
            del roles[name]
        found["drop"] = []
    settings: dict[str, Any] = {field: [*getattr(data, field), *names] for field, names in found.items()}
    lenient = [*numbers, *found["date"]]
    data = data.model_copy(update={**settings, "numbers": numbers})
    return frame, Found([str(name) for name in frame], data, roles, lenient)


_SETTINGS = {"date": "date", "left out": "drop", "category": "categorical"}
"""Role -> the setting that it becomes."""


def describe_roles(
    found: Found, stated: TableDataSpec, encoder: TableEncoder, rejected: Sequence[Mapping[str, Any]]
) -> list[Role]:
    """The role of every column, targets first.

    Parameters
    ----------
    found, stated
        What was found, and the settings before that.
    encoder
        What the training rows made of columns about which nothing was found.
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


def convert_numbers(
    frame: pd.DataFrame, numbers: dict[str, DecimalMark]
) -> tuple[pd.DataFrame, dict[str, tuple[int, list[str]]]]:
    """Read the texts of some columns as numbers; those that are numbers already, or absent, stay as they are.

    Returns the table, and for every column that was text how many values could not be read, and the first of them.
    """
    read, unreadable = {}, {}
    for name, mark in numbers.items():
        if name in frame and _is_text(frame[name]):
            read[name], wrong = read_numbers(frame[name], mark)
            shown = frame[name][wrong].drop_duplicates().head(3)
            unreadable[name] = int(wrong.sum()), [str(value) for value in shown]
    return frame.assign(**read) if read else frame, unreadable


def _is_text(column: pd.Series) -> bool:
    return not (is_numeric_dtype(column) or is_bool_dtype(column) or is_datetime64_any_dtype(column))


def _named(data: TableDataSpec) -> set[str]:
    """Columns whose role a setting states."""
    lists = (
        data.target,
        data.date,
        data.drop,
        data.categorical,
        data.continuous,
        data.group,
        data.events,
        data.rolling,
    )
    return {name for names in lists for name in names} | ({data.split_column} if data.split_column else set())


def _may_convert(column: pd.Series, name: str, data: TableDataSpec) -> bool:
    wanted = name in data.continuous or (name in data.target and data.task != "classification")
    return _is_text(column) and (wanted or name not in _named(data))


def _sample(column: pd.Series) -> pd.Series:
    """At most `SAMPLE_ROWS` values from the whole column, those missing left out."""
    return column.iloc[:: max(1, len(column) // SAMPLE_ROWS)].dropna()


def _mark(column: pd.Series, data: TableDataSpec) -> DecimalMark | None:
    """The decimal mark of a column of numbers; None for other text."""
    sample = _sample(column)
    if infer_dtype(sample) != "string":
        return None  # values of several types: the encoder says what is wrong
    mark = decimal_mark(sample)
    numbers, wrong = read_numbers(sample, mark)
    read = int(np.isfinite(numbers).sum())
    if pd.Series(numbers).nunique() < 2:
        return None
    if column.name in data.continuous:
        return mark if read > wrong.sum() else None
    is_name = is_code(str(column.name)) or _is_padded(sample)
    return mark if not is_name and wrong.sum() <= MOST_UNREADABLE * (read + wrong.sum()) else None


def _is_padded(texts: pd.Series) -> bool:
    """Whether these are digits of one length, of which some begin with 0."""
    lengths = texts.str.len().unique()
    return len(lengths) == 1 and bool(texts.str.fullmatch(r"\d+").all() and texts.str.startswith("0").any())


def _number_role(name: str, mark: str, wrong: int, examples: Sequence[str], rows: int) -> Role:
    reason = f"text of numbers with a decimal {'comma' if mark == ',' else 'point'}"
    if wrong:
        reason += f"; {wrong:,} of {rows:,} values cannot be read ({', '.join(map(repr, examples))}) and are missing"
    return Role(name, "number", reason, f"--data.categorical {name}")


def _look(column: pd.Series) -> Role | None:
    """The role of a column that no setting names; None for plain numbers and categories."""
    name = str(column.name)
    if is_datetime64_any_dtype(column):
        return Role(name, "date", "it holds dates", f"--data.drop {name}")
    sample = _sample(column)
    if len(sample) < _FEWEST_ROWS or is_bool_dtype(column):
        return None
    if is_numeric_dtype(column):
        return _look_at_numbers(column, sample)
    if infer_dtype(sample) != "string":
        return None
    return _date_role(sample, name) or _text_id_role(column, sample)


def _look_at_numbers(column: pd.Series, sample: pd.Series) -> Role | None:
    if has_fractions(sample) or has_fractions(column):  # a measurement, however distinct
        return None
    name = str(column.name)
    if sample.between(_FIRST_DAY, _LAST_DAY).all() and (role := _date_role(sample.astype("Int64").astype("str"), name)):
        return role
    if not is_code(name) and sample.nunique() < ALL_DISTINCT * len(sample):  # of all rows a smaller share is distinct
        return None
    values, rows = int(column.nunique()), int(column.count())
    if reason := _why_id(column, values, rows):
        return _left_out(name, reason)
    reason = f"a code by its name, {values:,} values"
    return Role(name, "category", reason, f"--data.continuous {name}") if is_code(name) else None


def _why_id(column: pd.Series, values: int, rows: int) -> str:
    """Why whole numbers identify their rows; empty where they do not."""
    name = str(column.name)
    if is_id(name) and values * 2 > rows:
        return f"an id by its name, {values:,} values in {rows:,} rows"
    if is_counter(name) and values >= ALL_DISTINCT * rows:
        return f"a row number by its name, {values:,} values in {rows:,} rows"
    if is_code(name) and values >= ALL_DISTINCT * rows:
        return f"a code by its name, {values:,} values in {rows:,} rows"
    if values == rows == len(column) and not is_order(name) and _counts_rows(column):
        return "a row number: it counts the rows"
    return ""


def _counts_rows(column: pd.Series) -> bool:
    """Whether distinct whole numbers are 0, 1, 2 ... or 1, 2, 3 ..., from above or from below."""
    numbers = whole_numbers_of(column)
    steps = numbers.is_monotonic_increasing or numbers.is_monotonic_decreasing
    return bool(steps) and numbers.min() in (0, 1) and int(numbers.max() - numbers.min()) == len(numbers) - 1


def _date_role(sample: pd.Series, name: str) -> Role | None:
    """The role of texts that are nearly all dates."""
    distinct = sample[~sample.str.strip().str.lower().isin(MISSING_WORDS)].drop_duplicates()
    distinct = distinct.iloc[:: max(1, len(distinct) // FEW_VALUES)]
    if len(distinct) < 2 or not distinct.head(FEW_VALUES).str.contains(r"\d").mean() > 1 - MOST_UNREADABLE:
        return None
    try:
        _, wrong = read_dates(distinct, name)
    except UserError:  # the month or the day first: only a person can tell
        return Role(
            name,
            "category",
            f"text of dates such as {distinct.iloc[0]}, of which nothing tells whether the month comes first",
            "write them as YYYY-MM-DD",
        )
    if wrong.mean() > MOST_UNREADABLE:
        return None
    return Role(name, "date", f"its values are dates, such as {distinct.iloc[0]}", f"--data.categorical {name}")


def _text_id_role(column: pd.Series, sample: pd.Series) -> Role | None:
    name, rows = str(column.name), int(column.count())
    share = sample.nunique() / len(sample)  # of all rows it is at most as large
    if share >= ALL_DISTINCT and (values := int(column.nunique())) >= ALL_DISTINCT * rows:
        return _left_out(name, f"text with {values:,} values in {rows:,} rows, which identifies the row")
    if share > 1 / 2 and sample.str.count(r"\S+").mean() >= _WORDS_OF_TEXT and column.nunique() * 2 > rows:
        return _left_out(name, "free text, of which hardly any value occurs twice")
    return None


def _left_out(name: str, reason: str) -> Role:
    return Role(name, "left out", reason, f"--data.categorical {name}")
