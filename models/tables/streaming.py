"""A table of any size predicted chunk by chunk: rows that cannot be read are reported, the others predicted."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from unfreeze.models.tables.assemble import assemble
from unfreeze.models.tables.dates import read_dates
from unfreeze.models.tables.serving import TablePredictor

_SHOWN = 40
"""Letters of a value that an error shows."""


class TableChunk(NamedTuple):
    """What became of some rows of a table.

    Attributes
    ----------
    results : numpy.ndarray
        Values or probabilities of all n rows, (n, K) float64; meaningless in unreadable ones.
    unreadable : dict of int to str
        Row of the chunk, from 0 -> reason.
    """

    results: np.ndarray
    unreadable: dict[int, str]


def text_columns(predictor: TablePredictor) -> list[str]:
    """Columns that a file must be read as text, because the model was trained on text there."""
    return _columns_of(predictor, "text", pd.api.types.is_string_dtype)


def _columns_of(predictor: TablePredictor, kind: str, is_kind: Callable[[Any], bool]) -> list[str]:
    """Columns of one kind in the training rows, and those by which tables of that kind are joined."""
    names = {name for name, known in predictor.encoder.kinds.items() if known == kind}
    for joined in predictor.joins:
        names |= {str(name) for name in joined.on or joined.frame if is_kind(joined.frame[name])}
    data = predictor.params.data
    return sorted(names - set(data.date) - set(data.target))


class TableStream:
    """Rows of a table, predicted chunk by chunk.

    A column is read the same in every chunk: which format its dates have is decided by all of them. Features that look
    at other rows (events, rolling means) are made of the whole table at once, which is then held in memory.

    Parameters
    ----------
    predictor
        The model.
    table
        From `unfreeze.models.tables.reading.open_table`, mapped into memory.

    Raises
    ------
    UserError
        If columns are missing, or nothing tells which format the dates of a column have.
    """

    def __init__(self, predictor: TablePredictor, table: pa.Table) -> None:
        self._predictor, self._table = predictor, table
        data = predictor.params.data
        named = [name for name in data.date if name in table.column_names]
        self._dates = {
            name: _dates_of(table[name], name) for name in named if not pa.types.is_timestamp(table[name].type)
        }
        self._numbers = _columns_of(predictor, "number", pd.api.types.is_numeric_dtype)
        self._texts = text_columns(predictor)
        self._whole: tuple[pd.DataFrame, dict[int, str]] | None = None
        if data.events or data.rolling:
            frame, unreadable = self._read(0, table.num_rows)
            self._whole = self._assembled(frame), unreadable

    def chunks(self, chunk: int, start: int = 0) -> Iterator[TableChunk]:
        """Predict the rows from `start` on, `chunk` at a time."""
        for first in range(start, self._table.num_rows, chunk):
            last = min(first + chunk, self._table.num_rows)
            if self._whole is None:
                frame, unreadable = self._read(first, last)
                assembled = self._assembled(frame)
            else:
                assembled = self._whole[0].iloc[first:last].reset_index(drop=True)
                unreadable = {row - first: why for row, why in self._whole[1].items() if first <= row < last}
            yield TableChunk(self._predictor.results(assembled), unreadable)

    def _assembled(self, frame: pd.DataFrame) -> pd.DataFrame:
        return assemble(frame, self._predictor.joins, self._predictor.params.data, training=False)[0]

    def _read(self, first: int, last: int) -> tuple[pd.DataFrame, dict[int, str]]:
        """Rows with the types that the model was trained on, and those that have none of these."""
        frame = self._table.slice(first, last - first).to_pandas()
        unreadable: dict[int, str] = {}

        def refuse(column: pd.Series, rows: np.ndarray, what: str) -> None:
            for row in np.flatnonzero(rows).tolist():
                reason = f"column {column.name!r}: {str(column.iloc[row])[:_SHOWN]!r} is no {what}"
                unreadable[row] = f"{unreadable[row]}; {reason}" if row in unreadable else reason

        for name, (known, times, wrong) in self._dates.items():
            positions = known.get_indexer(frame[name])
            refuse(frame[name], np.append(wrong, False)[positions], "date")
            # One more entry, NaT, which the position -1 of a missing value finds.
            frame[name] = np.append(times, np.datetime64("NaT"))[positions]
        for name in (each for each in self._numbers if each in frame):
            column = frame[name]
            if pd.api.types.is_string_dtype(column) and not column.isna().all():
                numbers = pd.to_numeric(column, errors="coerce")
                refuse(column, (numbers.isna() & column.notna()).to_numpy(), "number")
                frame[name] = numbers
        for name in (each for each in self._texts if each in frame):
            if pd.api.types.is_numeric_dtype(frame[name]) and not pd.api.types.is_bool_dtype(frame[name]):
                frame[name] = frame[name].astype("str").where(frame[name].notna())
        return frame, unreadable


def _dates_of(column: pa.ChunkedArray, name: str) -> tuple[pd.Index, np.ndarray, np.ndarray]:
    """The distinct values of a column, their dates, and which of them are none."""
    distinct = pa.array([], column.type)
    for part in column.chunks:
        distinct = pa.concat_arrays([distinct, part.unique()]).unique()
    known = distinct.drop_null().to_pandas()
    times, wrong = read_dates(known, name)
    return pd.Index(known), times.to_numpy(), wrong
