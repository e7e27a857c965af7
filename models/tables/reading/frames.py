"""Convert table files to one memory-mappable feather file of plain types, and describe it."""

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
from unfreeze.models.store.paths import irregular_kind
from unfreeze.models.tables.reading.columnar_files import ColumnarFile, parquet_files
from unfreeze.models.tables.reading.spreadsheets import Spreadsheet
from unfreeze.models.tables.reading.table_file import TableFile, kind_of
from unfreeze.models.tables.reading.text_files import TextFile
from unfreeze.models.tables.reading.text_types import TextType

_TEXTS = (".csv", ".tsv", ".tab", ".txt", ".dat", ".data")
_PARQUET, _FEATHER = (".parquet", ".pq"), (".feather", ".arrow")
_SPREADSHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
_COMPRESSED = (".gz", ".bz2", ".zst", ".xz", ".zip")
SUFFIXES = (*_TEXTS, *_COMPRESSED, *_SPREADSHEETS, *_PARQUET, *_FEATHER)
"""Suffixes of table files; the content decides how they are read."""
READABLE = (
    "CSV or other separated text (also .gz, .bz2, .zst, .xz, .zip), a spreadsheet, Parquet (also a folder), feather"
)
"""`SUFFIXES` in words, for messages."""
DISTINCT_CAP = 10_000  # `column_types` stops counting here
CHUNK_ROWS = 1_000_000
"""Rows processed at once where a step would otherwise need several times the table's memory."""
Progress = Callable[[int, int], None]
_Rows = TypeVar("_Rows", pd.DataFrame, pd.Series)
_SCRATCH_BYTES = 32 * 2**20  # smaller columns are copied: not worth a file
_FIRST_ROWS = 1_000


def is_table(path: Path) -> bool:
    """Whether a path is a table, by its suffix or as a folder of Parquet files."""
    return path.suffix.lower() in SUFFIXES if path.is_file() else path.is_dir() and bool(parquet_files(path))


def table_name(source: str) -> str:
    """Name of a table: its file name without the suffixes of its format."""
    path = Path(source)
    while path.suffix.lower() in SUFFIXES:
        path = path.with_suffix("")
    return path.name


def files_of(source: Path) -> list[Path]:
    """Files of a table."""
    return parquet_files(source) if source.is_dir() else [source]


def open_file(source: Path, names_only: bool = False) -> TableFile:
    """Open a table's file, or a folder of Parquet files, without reading all rows.

    Raises UserError if the file is missing, empty or unreadable, or column names repeat.
    """
    if (kind := irregular_kind(source)) is not None:
        raise UserError(f"{source} is {kind}; give the path of a table: {READABLE}")
    if not source.exists():
        raise UserError(f"{source}: there is no such file; give the path of a table: {READABLE}")
    if not is_table(source):
        problem = "no Parquet files in it" if source.is_dir() else f"unknown suffix {source.suffix!r}"
        raise UserError(f"{source}: {problem}; save the table as {READABLE}")
    if source.is_dir():
        return ColumnarFile(source, is_parquet=True)
    if source.stat().st_size == 0:
        raise UserError(f"{source} is empty; give a file with a header and rows")
    kind, suffix = kind_of(source), source.suffix.lower()
    if kind == "spreadsheet" or (kind == "zip" and suffix in _SPREADSHEETS):
        return Spreadsheet(source)
    if kind in ("parquet", "feather") or suffix in (*_PARQUET, *_FEATHER):
        return ColumnarFile(source, kind == "parquet" or (kind != "feather" and suffix in _PARQUET))
    return TextFile(source, names_only)


def require(columns: pd.DataFrame | Iterable[str], names: Iterable[str], where: str) -> list[str]:
    """Return the `names`; `UserError` if some are not among `columns`. `where` is the setting that requires them."""
    known, names = [*columns], [*names]
    if missing := [name for name in dict.fromkeys(names) if name not in known]:
        by_lower = {str(name).lower(): str(name) for name in known}  # wrong case is the commonest slip
        close = [by_lower[name] for name in difflib.get_close_matches(missing[0].lower(), by_lower, n=2)]
        listed = ", ".join(map(str, known[:20])) + (", ..." if len(known) > 20 else "")
        hint = f"; did you mean {' or '.join(close)}?" if close else f"; it has: {listed}"
        raise UserError(f"{where}: the table has no column {', '.join(map(repr, missing))}{hint}")
    return names


def write_feather(
    source: Path,
    target: Path,
    progress: Progress | None = None,
    text: Collection[str] = (),
    verbatim: Collection[str] = (),
) -> None:
    """Write a table as an uncompressed feather file, which can be memory-mapped.

    Text is read twice, in blocks of bounded memory: first to find the narrowest type that fits all rows of a column
    (whole numbers, numbers, text), then to convert. A column of numbers and text becomes text, and `column_types` names
    the first row with text. Dates stay text, as do codes such as zip codes: digits of one length, some with a leading
    0. Values such as an empty field, `NA` or `None` are missing.

    Parquet and feather files keep their plain types, see `plain_type`. `file_notes` lists guesses and omissions.

    Parameters
    ----------
    source
        A file or folder that `open_file` supports.
    progress
        Called with work done and total work: bytes of text (twice the file's size), rows of other files.
    text
        Columns of a CSV file that are always text: the name 007 must not become a number.
    verbatim
        Columns of a CSV file that keep words for missing values and leading zeros as text, see `TextType`: in a
        target, None may be a class.

    Raises UserError where the file is missing, empty, damaged, or not a table with distinct column names and at
    least one row.
    """
    file, report = open_file(source), progress or (lambda done, total: None)
    schema, texts, before = file.schema(), list[TextType](), 0
    if schema is None:
        texts, before = _types_of(file, report, text, verbatim), file.size
        notes = [{"note": each.note} if each.note else None for each in texts]
        named = zip(file.names, texts, notes, strict=True)
        schema = pa.schema([pa.field(name, each.type, metadata=note) for name, each, note in named])
    elif file.size == 0:
        raise UserError(f"{file.path} has columns but no rows")
    fields = [
        field.with_metadata({**(field.metadata or {}), b"given": given.encode()})
        for field, given in zip(schema, file.given, strict=True)
    ]
    schema = pa.schema(fields, metadata={"file": json.dumps({"notes": file.notes, "left_out": file.left_out})})
    with pa.ipc.new_file(str(target), schema) as writer:
        for batch, done in file.batches():
            columns = batch.columns
            if texts:
                columns = [each.cast(values) for each, values in zip(texts, columns, strict=True)]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            report(before + done, before + file.size)


def _types_of(file: TableFile, report: Progress, text: Collection[str], verbatim: Collection[str]) -> list[TextType]:
    """Infer the types of a text file's columns from all rows."""
    types, rows = [TextType(name in text, name in verbatim, file.first_row) for name in file.names], 0
    for batch, done in file.batches():
        for found, values in zip(types, batch.columns, strict=True):
            found.see(values)
        rows += batch.num_rows
        report(done, 2 * file.size)
    if rows == 0:
        raise UserError(f"{file.path} has a header but no rows")
    return types


def open_table(path: Path) -> pa.Table:
    """Memory-map a feather file from `write_feather`; it must not change while the table is in use.

    Raises UserError where the file is missing or is not a feather file.
    """
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is not a readable feather file ({one_line(error)}); make it again") from error


def to_frame(table: pa.Table, scratch: Path | None = None) -> pd.DataFrame:
    """Rows of an open table as a pandas frame, using as little memory as possible.

    Columns of one chunk without gaps stay in the mapped file, read-only. Other large columns of numbers without gaps
    are joined in an unnamed file (in the folder `scratch`, else the system's temporary folder), whose pages the system
    can reclaim too; the rest is copied.
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
    """Write a frame as an uncompressed feather file of one chunk, which `to_frame` need not copy."""
    # One chunked text column would split all others at the same rows.
    table = pa.Table.from_pandas(frame).combine_chunks()
    pa.feather.write_feather(table, str(target), compression="uncompressed", chunksize=max(len(frame), 1))


def file_notes(table: pa.Table) -> tuple[list[str], dict[str, str]]:
    """Notes on guesses made when an open table's file was read, and columns left out with the reason."""
    about = json.loads((table.schema.metadata or {}).get(b"file", b"{}"))
    return about.get("notes", []), about.get("left_out", {})


def names_in_file(table: pa.Table) -> dict[str, str]:
    """Column of an open table -> its name when pandas reads the file: with spaces, or ``Unnamed: 3``."""
    return {field.name: (field.metadata or {}).get(b"given", field.name.encode()).decode() for field in table.schema}


def in_chunks(rows: _Rows) -> Iterator[_Rows]:
    """Yield views of at most `CHUNK_ROWS` rows, in order; a single empty view if there are no rows."""
    for start in range(0, max(len(rows), 1), CHUNK_ROWS):
        yield rows.iloc[start : start + CHUNK_ROWS]


def count_up_to(column: pd.Series, most: int, missing: bool = False) -> int:
    """Count the distinct values of a column, up to `most`; with `missing`, gaps count as a value.

    Stops early, because a hash table of all values of a numeric column is larger than the column.
    """
    seen = column.iloc[:0]
    for part in in_chunks(column):
        for rows in (part.iloc[:_FIRST_ROWS], part):
            seen = pd.concat([seen, rows]).drop_duplicates()
            if seen.nunique(dropna=not missing) >= most:
                return most
    return int(seen.nunique(dropna=not missing))


def column_types(table: pa.Table) -> list[dict[str, Any]]:
    """Describe every column of an open table, for the report.

    A dict has name, type, distinct (values; `DISTINCT_CAP` means that many or more), missing (rows), example (the first
    non-missing value, as text) and note (why a column of numbers is text, else empty).
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
