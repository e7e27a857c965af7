"""Tables from files: one memory-mappable feather file of plain types, and what its columns are."""

import difflib
import json
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather

from unfreeze.models.errors import UserError, one_line
from unfreeze.models.tables.reading.files import open_file
from unfreeze.models.tables.reading.table_file import TableFile
from unfreeze.models.tables.reading.text_types import TextType

DISTINCT_CAP = 10_000  # `column_types` stops counting here: this many means this many or more
CHUNK_ROWS = 1_000_000
"""Rows that are worked on at once where a step would else need several times the table's memory."""

Progress = Callable[[int, int], None]
_Rows = TypeVar("_Rows", pd.DataFrame, pd.Series)

_SCRATCH_BYTES = 32 * 2**20  # smaller columns are copied: a file would not be worth it
_FIRST_ROWS = 1_000


def unknown_column(column: str, columns: Iterable[str], where: str) -> UserError:
    """The error for a column that a table lacks, with the closest of its `columns`; `where` asked for it."""
    names = [str(name) for name in columns]
    by_lower = {name.lower(): name for name in names}  # a wrong case is the commonest slip
    close = [by_lower[name] for name in difflib.get_close_matches(column.lower(), by_lower, n=2)]
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    hint = f"; did you mean {' or '.join(close)}?" if close else f"; it has: {listed}"
    return UserError(f"{where}: the table has no column {column!r}{hint}")


def write_feather(
    source: Path,
    target: Path,
    progress: Progress | None = None,
    text: Collection[str] = (),
    verbatim: Collection[str] = (),
) -> None:
    """Write a table as an uncompressed feather file, which can be memory-mapped.

    Text is read twice, in blocks, so its size does not matter: first to find the narrowest type that fits all rows of a
    column (whole numbers, numbers, text), then to convert. A column of numbers and text becomes text, and
    `column_types` names the row that made it so. Dates stay text, and so do codes: digits of one length of which some
    begin with 0, such as zip codes. Values such as an empty field, `NA` or `None` are missing, but for columns that are
    `verbatim`: to be predicted, None may be a class.

    From Parquet and feather the types are kept as far as they are plain, see `plain_type`. `file_notes` tells what was
    guessed and left out.

    Parameters
    ----------
    source
        See `open_file` for what is read.
    target
        The file to write, in place.
    progress
        Called with work done and work in all: bytes of text (twice the file's size), rows of other files.
    text
        Columns of a CSV file that are always text: 007 must not become a number where it is a name.
    verbatim
        Columns of a CSV file whose words for missing values are kept as text, and whose leading zeros are, see
        `TextType`.

    Raises UserError where the file is missing, empty, damaged, or not a table with distinct column names and at
    least one row.
    """
    file, report = open_file(source), progress or (lambda done, total: None)
    if (schema := file.schema()) is None:
        _convert_text(file, target, report, text, verbatim)
    else:
        _convert_columnar(file, schema, target, report)


def open_table(path: Path) -> pa.Table:
    """Memory-map a feather file that `write_feather` wrote; it must not change while the table is used.

    Raises UserError where the file is missing or is not a feather file.
    """
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is not a readable feather file ({one_line(error)}); make it again") from error


def to_frame(table: pa.Table, scratch: Path | None = None) -> pd.DataFrame:
    """The rows of an open table as a pandas frame that takes as little memory as it can.

    Columns of one piece without gaps stay in the mapped file, read-only. Other large columns of numbers without gaps
    are put together in a file without a name (in the folder `scratch`, else the system's for temporary files), so that
    the system can take their pages back too; the rest is copied.
    """
    if table.schema.pandas_metadata:
        whole: pd.DataFrame = table.to_pandas(split_blocks=True)
        return whole

    def values(column: pa.ChunkedArray) -> pd.Series | np.ndarray:
        numbers = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        if not numbers or column.num_chunks < 2 or column.null_count or column.nbytes < _SCRATCH_BYTES:
            plain: pd.Series = column.to_pandas(split_blocks=True)
            return plain
        with tempfile.TemporaryFile(dir=scratch) as file:
            joined = np.memmap(file, dtype=column.type.to_pandas_dtype(), mode="w+", shape=(len(column),))
        np.concatenate([chunk.to_numpy() for chunk in column.chunks], out=joined)
        return np.asarray(joined)

    columns = {name: values(column) for name, column in zip(table.column_names, table.columns, strict=True)}
    return pd.DataFrame(columns, index=pd.RangeIndex(table.num_rows), copy=False)


def write_frame(frame: pd.DataFrame, target: Path) -> None:
    """Write a frame as an uncompressed feather file of one piece: only then `to_frame` need not copy its columns."""
    # A text in several pieces would cut all columns where it is cut.
    table = pa.Table.from_pandas(frame).combine_chunks()
    pa.feather.write_feather(table, str(target), compression="uncompressed", chunksize=max(len(frame), 1))


def file_notes(table: pa.Table) -> tuple[list[str], dict[str, str]]:
    """What was guessed when the file of an open table was read, and its columns that were left out with the reason."""
    about = json.loads((table.schema.metadata or {}).get(b"file", b"{}"))
    return about.get("notes", []), about.get("left_out", {})


def names_in_file(table: pa.Table) -> dict[str, str]:
    """Name of a column of an open table -> how pandas reads it from the file: with spaces, or ``Unnamed: 3``."""
    return {field.name: (field.metadata or {}).get(b"given", field.name.encode()).decode() for field in table.schema}


def in_chunks(rows: _Rows) -> Iterator[_Rows]:
    """Views of at most `CHUNK_ROWS` rows, in order; of no rows one that is empty."""
    for start in range(0, max(len(rows), 1), CHUNK_ROWS):
        yield rows.iloc[start : start + CHUNK_ROWS]


def count_up_to(column: pd.Series, most: int, missing: bool = False) -> int:
    """How many values a column has, or `most` where it has more; with `missing`, gaps count as a value.

    It stops where that is known: a hash table of all values of a column of numbers is larger than the column.
    """
    seen = column.iloc[:0]
    for part in in_chunks(column):
        for rows in (part.iloc[:_FIRST_ROWS], part):
            seen = pd.concat([seen, rows]).drop_duplicates()
            if seen.nunique(dropna=not missing) >= most:
                return most
    return int(seen.nunique(dropna=not missing))


def column_types(table: pa.Table) -> list[dict[str, Any]]:
    """Describe every column of an open table, for people to read.

    A dict has name, type, distinct (values; `DISTINCT_CAP` means that many or more), missing (rows), example (the first
    value that is not missing, as text) and note (why a column of numbers is text, else empty).
    """
    described = []
    for field, column in zip(table.schema, table.columns, strict=True):
        missing = column.is_null(nan_is_null=True)
        present = column.filter(pc.invert(missing)) if pc.any(missing).as_py() else column
        values = pd.Series(pd.arrays.ArrowExtensionArray(present))
        described.append(
            {
                "name": field.name,
                "type": str(field.type).removeprefix("large_"),
                "distinct": count_up_to(values, DISTINCT_CAP),
                "missing": len(column) - len(present),
                "example": str(present[0].as_py()) if len(present) else "",
                "note": (field.metadata or {}).get(b"note", b"").decode(),
            }
        )
    return described


def _convert_text(
    file: TableFile, target: Path, report: Progress, text: Collection[str], verbatim: Collection[str]
) -> None:
    types = {name: TextType(name in text, name in verbatim, file.first_row) for name in file.names}
    rows = 0
    for batch, done in file.batches():
        for found, values in zip(types.values(), batch.columns, strict=True):
            found.see(values)
        rows += batch.num_rows
        report(done, 2 * file.size)
    if rows == 0:
        raise UserError(f"{file.path} has a header but no rows")
    schema = pa.schema(
        [
            pa.field(name, found.type, metadata={"note": found.note} if found.note else None)
            for name, found in types.items()
        ]
    )
    schema = _described(schema, file)
    with pa.ipc.new_file(str(target), schema) as writer:
        for batch, done in file.batches():
            columns = [found.cast(values) for found, values in zip(types.values(), batch.columns, strict=True)]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            report(file.size + done, 2 * file.size)


def _convert_columnar(file: TableFile, schema: pa.Schema, target: Path, report: Progress) -> None:
    if file.size == 0:
        raise UserError(f"{file.path} has columns but no rows")
    schema = _described(schema, file)
    with pa.ipc.new_file(str(target), schema) as writer:
        for batch, done in file.batches():
            writer.write_batch(pa.record_batch(batch.columns, schema=schema))
            report(done, file.size)


def _described(schema: pa.Schema, file: TableFile) -> pa.Schema:
    """The schema with what was found out about the file (see `file_notes`), and the names of columns there."""
    fields = [
        field.with_metadata({**(field.metadata or {}), b"given": given.encode()})
        for field, given in zip(schema, file.given, strict=True)
    ]
    return pa.schema(fields, metadata={"file": json.dumps({"notes": file.notes, "left_out": file.left_out})})
