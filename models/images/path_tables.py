"""Tables of image paths: CSV, feather, Arrow and Parquet, their cells as text."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

from unfreeze.models.csv_header import csv_header
from unfreeze.models.errors import UserError
from unfreeze.models.paths import given_path

TABLES = (".csv", ".feather", ".arrow", ".parquet")
"""Suffixes of files that are read as tables of paths."""


class PathTable:
    """A table whose rows are images.

    Parameters
    ----------
    path
        Absolute path of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def names(self) -> list[str]:
        """Names of all columns; a `UserError` if the file is not a table."""
        if self._is_csv:
            return [str(name) for name in self._read(lambda: pd.read_csv(self.path, nrows=0, **self._csv)).columns]
        return [str(name) for name in self._read(lambda: self._arrow.column_names)]

    def columns(self, wanted: Sequence[str], settings: str) -> dict[str, list[str]]:
        """Columns as text without white space around it, empty where a value is missing; lists as JSON.

        Raises
        ------
        UserError
            If the file is not a table, or lacks a column; names the `settings` that choose columns.
        """
        if absent := [column for column in wanted if column not in self.names]:
            raise UserError(
                f"{self.path} has no column {', '.join(map(repr, absent))}; its columns are "
                f"{', '.join(map(repr, self.names))}. Set {settings}."
            )
        if self._is_csv:
            # Text as written: a label 007 or NA must not turn into a number or a missing value.
            options: dict[str, Any] = {"usecols": lambda name: name in wanted, "keep_default_na": False, **self._csv}
            frame = self._read(lambda: pd.read_csv(self.path, **options))
            values = {name: frame[name].fillna("") for name in wanted}
        else:
            values = self._read(lambda: {name: _texts(self._arrow[name]) for name in wanted})
        return {column: values[column].str.strip().tolist() for column in wanted}

    def files(self, values: Iterable[str], folder: str | None, suffix: str) -> list[Path]:
        """The files that paths or ids mean: below `folder`, which begins at the table's own, and with `suffix`."""
        place = self.path.parent / given_path(folder or "")
        named = (value if value.endswith(suffix) else value + suffix for value in values)
        return [Path(os.path.normpath(place / name)) for name in named]

    def reject_rows(
        self, rows: Iterable[int], problem: str, detail: Callable[[int], str] | None = None, remedy: str = ""
    ) -> None:
        """Report rows that cannot be used, if there are any, as a `UserError`."""
        wrong = list(rows)
        if wrong:
            shown = shortened((f"{row + 1}" + (f" ({detail(row)})" if detail else "") for row in wrong), most=5)
            raise UserError(
                f"{self.path}: {len(wrong)} rows: {problem}: row {shown} "
                f"(the first row below the header is row 1). Correct or remove them{remedy}."
            )

    @property
    def _is_csv(self) -> bool:
        return self.path.suffix.lower() == ".csv"

    @cached_property
    def _csv(self) -> dict[str, Any]:
        return {"dtype": str, "encoding": "utf-8-sig", "index_col": False, "sep": csv_header(self.path).separator}

    @cached_property
    def _arrow(self) -> pa.Table:
        return self._read(lambda: _read_arrow(self.path))

    def _read(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(f"{self.path} cannot be read as a table: {error}") from error


def shortened(items: Iterable[str], most: int = 10) -> str:
    """The first items with commas between them, and how many more there are."""
    every = list(items)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def _texts(column: pa.ChunkedArray) -> pd.Series:
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        lists = [json.dumps(None if each is None else [str(label) for label in each]) for each in column.to_pylist()]
        return pd.Series(["" if each == "null" else each for each in lists], dtype=object)
    texts: pd.Series = column.cast(pa.string()).fill_null("").to_pandas()
    return texts


def _read_arrow(table: Path) -> pa.Table:
    read = _read_unchecked(table)
    read.validate(full=True)  # offsets that lead out of a damaged file would crash whatever follows them
    return read


def _read_unchecked(table: Path) -> pa.Table:
    if table.suffix.lower() == ".parquet":
        return pa.parquet.read_table(str(table))
    try:
        return pa.feather.read_table(str(table), memory_map=False)
    except pa.ArrowInvalid:  # an .arrow file may also be in the stream format
        with pa.OSFile(str(table)) as file:
            return pa.ipc.open_stream(file).read_all()
