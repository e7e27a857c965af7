"""Rows of a table's file with the types that a model was trained on; values that have none are reported."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from unfreeze.models.tables.dates import read_dates

if TYPE_CHECKING:
    from unfreeze.models.tables.serving import TablePredictor

_SHOWN = 40
"""Characters of a value that an error shows."""


def columns_of(predictor: "TablePredictor", kind: str, is_kind: Callable[[Any], bool]) -> list[str]:
    """Columns of one kind in the training rows, and those by which tables of that kind are joined."""
    names = {name for name, known in predictor.encoder.kinds.items() if known == kind}
    for joined in predictor.joins:
        names |= {str(name) for name in joined.on or joined.frame if is_kind(joined.frame[name])}
    data = predictor.params.data
    return sorted(names - set(data.date) - set(data.target))


class RowReader:
    """Reads rows of a table alike in every chunk: which format its dates have is decided by all of them.

    Parameters
    ----------
    predictor
        The model.
    table
        Mapped into memory.

    Raises
    ------
    UserError
        If nothing tells which format the dates of a column have.
    """

    def __init__(self, predictor: "TablePredictor", table: pa.Table) -> None:
        self._predictor, self._table = predictor, table
        named = [name for name in predictor.params.data.date if name in table.column_names]
        self._dates = {
            name: _dates_of(table[name], name) for name in named if not pa.types.is_timestamp(table[name].type)
        }
        self._numbers = columns_of(predictor, "number", pd.api.types.is_numeric_dtype)
        self._texts = predictor.text_columns()

    def assembled(self, first: int, last: int) -> tuple[pd.DataFrame, dict[int, str]]:
        """Rows `first` to before `last` as `TablePredictor.results` takes them, and row -> why it is not usable."""
        frame, errors = self._read(first, last)
        frame, unknown = self._predictor.assemble(frame)
        return frame, {**unknown, **errors}

    def _read(self, first: int, last: int) -> tuple[pd.DataFrame, dict[int, str]]:
        frame = self._table.slice(first, last - first).to_pandas()
        errors: dict[int, str] = {}

        def reject(column: pd.Series, rows: np.ndarray, what: str) -> None:
            for row in np.flatnonzero(rows).tolist():
                reason = f"column {column.name!r}: {str(column.iloc[row])[:_SHOWN]!r} is not a {what}"
                errors[row] = f"{errors[row]}; {reason}" if row in errors else reason

        for name, (known, times, wrong) in self._dates.items():
            positions = known.get_indexer(frame[name])
            reject(frame[name], np.append(wrong, False)[positions], "date")
            # One more entry, NaT, which the position -1 of a missing value finds.
            frame[name] = np.append(times, np.datetime64("NaT"))[positions]
        for name in (each for each in self._numbers if each in frame):
            column = frame[name]
            if pd.api.types.is_string_dtype(column) and not column.isna().all():
                numbers = pd.to_numeric(column, errors="coerce")
                reject(column, (numbers.isna() & column.notna()).to_numpy(), "number")
                frame[name] = numbers
        for name in (each for each in self._texts if each in frame):
            if pd.api.types.is_numeric_dtype(frame[name]) and not pd.api.types.is_bool_dtype(frame[name]):
                frame[name] = frame[name].astype("str").where(frame[name].notna())
        return frame, errors


def _dates_of(column: pa.ChunkedArray, name: str) -> tuple[pd.Index, np.ndarray, np.ndarray]:
    """The distinct values of a column, their dates, and which of them are not dates."""
    distinct = pa.array([], column.type)
    for part in column.chunks:
        distinct = pa.concat_arrays([distinct, part.unique()]).unique()
    known = distinct.drop_null().to_pandas()
    times, wrong = read_dates(known, name)
    return pd.Index(known), times.to_numpy(), wrong
