"""Rows of a table's file with the types that a model was trained on; values that have none are reported."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from unfreeze.models.tables.dates import read_dates

_SHOWN = 40
"""Characters of a value that an error shows."""


class RowReader:
    """Reads rows of a mapped table alike in every chunk: all rows decide which format its dates have.

    `dates`, `numbers` and `texts` are the columns that held those in training; the table may lack some.

    Raises
    ------
    UserError
        If the format of a column's dates is ambiguous.
    """

    def __init__(self, table: pa.Table, dates: Sequence[str], numbers: Sequence[str], texts: Sequence[str]) -> None:
        self._table = table
        self._numbers, self._texts = (
            [each for each in names if each in table.column_names] for names in (numbers, texts)
        )
        read = [each for each in dates if each in table.column_names and not pa.types.is_timestamp(table[each].type)]
        self._dates = {name: _dates_of(table[name], name) for name in read}

    def read(self, first: int, last: int) -> tuple[pd.DataFrame, dict[int, str]]:
        """Rows `first` to before `last`, and row -> why it is not usable."""
        frame = self._table.slice(first, last - first).to_pandas()
        errors: dict[int, str] = {}

        def reject(column: pd.Series, rows: np.ndarray, what: str) -> None:
            for row in np.flatnonzero(rows).tolist():
                reason = f"column {column.name!r}: {str(column.iloc[row])[:_SHOWN]!r} is not a {what}"
                errors[row] = f"{errors[row]}; {reason}" if row in errors else reason

        for name, (times, wrong) in self._dates.items():
            reject(frame[name], frame[name].isin(wrong).to_numpy(), "date")
            frame[name] = times.reindex(frame[name]).to_numpy()
        for name in self._numbers:
            column = frame[name]
            if pd.api.types.is_string_dtype(column) and not column.isna().all():
                numbers = pd.to_numeric(column, errors="coerce")
                reject(column, (numbers.isna() & column.notna()).to_numpy(), "number")
                frame[name] = numbers
        for name in self._texts:
            if pd.api.types.is_numeric_dtype(frame[name]) and not pd.api.types.is_bool_dtype(frame[name]):
                frame[name] = frame[name].astype("str").where(frame[name].notna())
        return frame, errors


def _dates_of(column: pa.ChunkedArray, name: str) -> tuple[pd.Series, pd.Series]:
    """Dates by the distinct values of a column, and the values that are not dates."""
    distinct = column.unique().drop_null().to_pandas()
    times, wrong = read_dates(distinct, name)
    return times.set_axis(pd.Index(distinct)), distinct[wrong]
