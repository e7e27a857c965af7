"""Convert raw rows to a model's training types, and report values that do not fit."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api import types

from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.tables.columns.date_texts import ISO, read_dates
from unfreeze.models.tables.columns.encoding import TableEncoder
from unfreeze.models.tables.columns.kinds import has_fractions, without_categories
from unfreeze.models.tables.columns.number_texts import read_numbers
from unfreeze.models.tables.reading.table_file import plain_name

_SHOWN = 40
"""Characters of a value shown in an error."""
_NO_NAME = re.compile(r"Unnamed: (\d+)")


@dataclass(frozen=True)
class RawColumns:
    """A model's requirements on the columns of raw rows.

    Attributes
    ----------
    needed
        Columns of the main table required to predict.
    lenient
        Columns in which an unreadable value is missing, as in training; elsewhere it is an error.
    whole
        Columns of whole numbers written with dots between thousands.
    """

    needed: list[str]
    lenient: list[str]
    whole: list[str]


@dataclass(frozen=True)
class TrainedTypes:
    """Types of the training rows' columns.

    Attributes
    ----------
    numbers, dates
        Column of numbers, or of dates -> format of its texts, see `read_numbers` and `read_dates`.
    texts
        Text column -> function that writes values of other types as its texts.
    truths
        Boolean columns.
    written
        Columns whose numbers training read from text in a format other than plain decimals.
    lenient, whole
        See `RawColumns`.
    """

    numbers: Mapping[str, str]
    dates: Mapping[str, str]
    texts: Mapping[str, Callable[[pd.Series], pd.Series]]
    truths: Sequence[str]
    lenient: Sequence[str]
    written: Sequence[str]
    whole: Sequence[str]

    @classmethod
    def of(
        cls, encoder: TableEncoder, joined: Sequence[pd.DataFrame], data: TableDataSpec, raw: RawColumns
    ) -> "TrainedTypes":
        """Derive the types from the encoder and the key columns of the joined tables."""
        kinds = {name: kind for name, kind in encoder.kinds.items() if name not in {*data.date, *data.target}}
        for keys in joined:
            kinds |= {str(name): "text" for name in keys if types.is_string_dtype(keys[name])}
            kinds |= {str(name): "number" for name in keys if types.is_numeric_dtype(keys[name])}
        forms = {name: data.numbers.get(name, ".") for name, kind in kinds.items() if kind == "number"}
        dates = {name: data.date_formats.get(name, ISO) for name in data.date if name not in data.date_from}
        texts = {name: _writer(encoder.categorical.get(name, [])) for name, kind in kinds.items() if kind == "text"}
        truths = [name for name, kind in kinds.items() if kind == "bool"]
        return cls(forms, dates, texts, truths, raw.lenient, [*data.numbers], raw.whole)

    def text_columns(self) -> list[str]:
        """File columns to read as text: 007 is a name, and 1.234 may be a thousand."""
        dates = [name for name, form in self.dates.items() if form != ISO]
        return sorted({*self.texts, *dates, *self.written})

    def apply(self, frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[int, str]]:
        """Convert rows to these types; return them and row -> why it is unusable."""
        frame = without_categories(frame).infer_objects()
        errors, read = dict[int, str](), dict[str, Any]()
        for name in (name for name in self.numbers if name in frame):
            if types.is_numeric_dtype(frame[name]):
                if name in self.whole and types.is_float_dtype(frame[name]):  # pandas read 6.611, which is six thousand
                    reject(errors, frame[name], frame[name].notna().to_numpy(), "whole number; pass the text")
            else:
                read[name], wrong = read_numbers(frame[name], self.numbers[name])
                if name not in self.lenient:
                    reject(errors, frame[name], wrong, "number")
        for name in (name for name in self.truths if name in frame):
            if types.is_string_dtype(frame[name]):
                lowered = frame[name].str.strip().str.lower()
                read[name] = lowered.map({"true": True, "1": True, "false": False, "0": False}).astype(object)
                reject(errors, frame[name], (read[name].isna() & frame[name].notna()).to_numpy(), "true or false")
        for name in (name for name in self.texts if name in frame):
            read[name] = self.texts[name](frame[name])
        return frame.assign(**read), errors


class RowReader:
    """Reader of a mapped table's rows with the training's types and formats; columns may be absent."""

    def __init__(self, table: pa.Table, trained: TrainedTypes) -> None:
        self._table, self._trained = table, trained
        here = [name for name in trained.dates if name in table.column_names]
        read = [name for name in here if not pa.types.is_timestamp(table[name].type)]
        self._dates = {name: _dates_of(table[name], name, trained.dates[name]) for name in read}

    def read(self, first: int, last: int) -> tuple[pd.DataFrame, dict[int, str]]:
        """Read rows from `first` up to `last` (exclusive); return them and row -> why it is unusable."""
        raw, errors = self._table.slice(first, last - first).to_pandas(), dict[int, str]()
        dates = {}
        for name, (times, wrong) in self._dates.items():
            if name not in self._trained.lenient:
                reject(errors, raw[name], raw[name].isin(wrong).to_numpy(), "date")
            dates[name] = times.reindex(raw[name]).to_numpy()
        frame, unusable = self._trained.apply(raw.assign(**dates))
        for row, why in unusable.items():
            errors[row] = f"{errors[row]}; {why}" if row in errors else why
        return frame, errors


def plainly_named(frame: pd.DataFrame) -> pd.DataFrame:
    """Rename columns as this package reads them from files.

    pandas keeps spaces, calls nameless columns Unnamed, and restores a saved index as the index.
    """
    saved = [name for name in frame.index.names if name is not None and name not in frame]
    frame = (frame.reset_index(saved) if saved else frame).reset_index(drop=True)

    def plain(name: object) -> str:
        unnamed = _NO_NAME.fullmatch(str(name))
        return f"column {int(unnamed[1]) + 1}" if unnamed else plain_name(name)

    return frame.rename(columns={name: plain(name) for name in frame if str(name) != plain(name)})


def reject(errors: dict[int, str], column: pd.Series, rows: np.ndarray, what: str) -> None:
    """Record an error for the masked `rows`, (N,) bool, whose value is not a `what`."""
    for row in np.flatnonzero(rows).tolist():
        reason = f"column {column.name!r}: {str(column.iloc[row])[:_SHOWN]!r} is not a {what}"
        errors[row] = f"{errors[row]}; {reason}" if row in errors else reason


def _writer(categories: Sequence[Any]) -> Callable[[pd.Series], pd.Series]:
    """Function that writes values of any type like the training's categories: 7 as 007, and true as True."""
    texts = [text for text in categories if isinstance(text, str)]
    lengths = {len(text) for text in texts} if all(map(str.isdigit, texts)) else set()
    width = lengths.pop() if len(lengths) == 1 else 0
    truths = {text.strip().lower(): text for text in texts}

    def write(column: pd.Series) -> pd.Series:
        if types.is_bool_dtype(column) or (column.dtype == object and types.infer_dtype(column) == "boolean"):
            return column.map(lambda value: truths.get(str(value).lower(), str(value)), na_action="ignore")
        if types.is_numeric_dtype(column):
            whole = column if has_fractions(column) else column.astype("Int64")
            column = whole.astype("str").where(column.notna())
        return column.str.zfill(width) if width and types.is_string_dtype(column) else column

    return write


def _dates_of(column: pa.ChunkedArray, name: str, form: str) -> tuple[pd.Series, pd.Series]:
    """Parse a column's dates by distinct value; return them and the values that are not dates."""
    distinct = column.unique().drop_null().to_pandas()
    times, wrong = read_dates(distinct, name, form)
    return times.set_axis(pd.Index(distinct)), distinct[wrong]
