"""Tables in typed files: feather, Parquet, and folders of Parquet files."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow.fs import LocalFileSystem

from unfreeze.models.errors import UserError, one_line
from unfreeze.models.tables.reading.table_file import TableFile

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""Ticks per second of the time units in Arrow and pandas."""
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_NUMBER = re.compile(r"-?(0?\d|[1-9]\d*)")  # 01 is a month, 007 a name
_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)


def parquet_files(folder: Path) -> list[Path]:
    """Parquet files in a folder and its subfolders, except names that begin with ``_`` or ``.``."""
    files = [each for each in sorted(folder.rglob("*")) if each.suffix.lower() in (".parquet", ".pq")]
    return [each for each in files if not any(part[0] in "._" for part in each.relative_to(folder).parts)]


class ColumnarFile(TableFile):
    """A Parquet file, a feather file, or a folder of Parquet files, read with plain types (see `plain_type`).

    Folder names such as ``year=2024`` become columns. Numbers take the widest type among the files; values of a column
    are missing in files without it.

    Raises UserError where a file is damaged, has no rows, or files differ in the type of a column.
    """

    def __init__(self, path: Path, is_parquet: bool) -> None:
        self._kind, form = ("Parquet", ds.ParquetFileFormat()) if is_parquet else ("feather", ds.IpcFileFormat())
        files = parquet_files(path) if path.is_dir() else [path]
        try:
            schemas = {file: form.inspect(str(file), LocalFileSystem()) for file in files}
            fields, notes = ([*schemas[path]], []) if path.is_file() else _fields_of(path, schemas)
            folders = [_folder_values(file, path) for file in files]
            known = {field.name: field.type for field in fields}
            self._data = ds.FileSystemDataset.from_paths(
                [*map(str, files)],
                schema=pa.schema(fields),
                format=form,
                filesystem=LocalFileSystem(),
                partitions=[
                    _expression(values, schemas[file], known) for file, values in zip(files, folders, strict=True)
                ],
            )
        except _ERRORS as error:
            raise self._unreadable(path, error) from error
        unusable = {
            place: f"values of type {field.type} cannot be used"
            for place, field in enumerate(fields)
            if plain_type(field.type) is None
        }
        super().__init__(path, [field.name for field in fields], unusable, notes, 0)
        try:
            self.size = self._data.count_rows()
        except _ERRORS as error:
            raise self._unreadable(path, error) from error

    def schema(self) -> pa.Schema:
        """Plain types of the usable columns."""
        kinds = [plain_type(self._data.schema[place].type) for place in self.places]
        return pa.schema([*zip(self.names, kinds, strict=True)])

    def batches(self) -> Iterator[tuple[pa.RecordBatch, int]]:
        """Yield columns of plain types."""
        schema, done = self.schema(), 0
        names = [self._data.schema[place].name for place in self.places]
        try:
            for batch in self._data.to_batches(columns=names, batch_readahead=1, fragment_readahead=1):
                batch.validate(full=True)
                columns = [to_plain(values, field.type) for values, field in zip(batch.columns, schema, strict=True)]
                done += len(batch)
                yield pa.record_batch(columns, schema=schema), done
        except _ERRORS as error:
            raise self._unreadable(self.path, error) from error

    def _unreadable(self, path: Path, error: BaseException) -> UserError:
        return UserError(f"{path} is not a readable {self._kind} file ({one_line(error)}); save it again")


def _folder_values(file: Path, folder: Path) -> dict[str, str | None]:
    pairs = (part.partition("=") for part in file.relative_to(folder).parts[:-1] if "=" in part)
    return {unquote(name): None if value == _HIVE_NULL else unquote(value) for name, _, value in pairs}


def _expression(values: Mapping[str, str | None], own: pa.Schema, types: Mapping[str, pa.DataType]) -> ds.Expression:
    """Describe a file's folders to Arrow; a column in the file takes precedence over a folder."""
    known = ds.scalar(True)
    for name, value in values.items():
        if name not in own.names:
            column = ds.field(name)
            known &= column.is_null() if value is None else column == pa.scalar(value).cast(types[name])
    return known


def _fields_of(path: Path, schemas: Mapping[Path, pa.Schema]) -> tuple[list[pa.Field], list[str]]:
    """Merge the columns of all files and folders, with notes on differing ones."""
    found: dict[str, dict[pa.DataType, Path]] = {}
    for file, schema in schemas.items():
        for field in schema:
            plain = None if pa.types.is_null(field.type) else plain_type(field.type)  # no values
            found.setdefault(field.name, {}).setdefault(plain or field.type, file)
    fields, notes = list[pa.Field](), [f"{len(schemas)} files"]
    for name, kinds in found.items():
        try:
            each = [pa.schema([(name, kind)]) for kind in kinds]
            fields.append(pa.unify_schemas(each, promote_options="permissive").field(name))
        except _ERRORS:
            (first, one), (second, other), *_ = kinds.items()
            raise UserError(
                f"{path}, column {name}: {first} in {one.relative_to(path)}, but {second} in "
                f"{other.relative_to(path)}; save all files with one type"
            ) from None
        if len(kinds) > 1:
            notes.append(
                f"column {name}: {' and '.join(map(str, kinds))} in different files, read as {fields[-1].type}"
            )
        if lacking := sum(name not in schema.names for schema in schemas.values()):
            notes.append(f"column {name} is missing in {lacking} of {len(schemas)} files")
    folders = [_folder_values(file, path) for file in schemas]
    for name in dict.fromkeys(name for values in folders for name in values if name not in found):
        values = [each.get(name) for each in folders]
        whole = all(value is None or _NUMBER.fullmatch(value) for value in values)
        fields.append(pa.field(name, pa.int64() if whole else pa.string()))
    return fields, notes


def plain_type(kind: pa.DataType) -> pa.DataType | None:
    """Plain type of a column: None for lists, structs, bytes and anything else without plain values.

    Dictionaries become their values, decimals floating-point numbers, durations seconds, dates times, times of day
    text, and zoned times their local wall clock, see `unfreeze.models.tables.columns.date_texts.parse_dates`.
    """
    types = pa.types
    if types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if types.is_timestamp(kind):
        return pa.timestamp(kind.unit)
    plain = (
        (kind, (types.is_integer, types.is_float32, types.is_float64, types.is_boolean)),
        (pa.float32(), (types.is_float16,)),
        (pa.float64(), (types.is_decimal, types.is_duration)),
        (pa.timestamp("us"), (types.is_date,)),
        (pa.string(), (types.is_string, types.is_large_string, types.is_string_view, types.is_time, types.is_null)),
    )
    return next((wanted for wanted, tests in plain if any(test(kind) for test in tests)), None)


def to_plain(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Cast values to their plain type; raises pyarrow's error for an unknown time zone."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    if pa.types.is_timestamp(kind) and kind.tz:
        values = pc.local_timestamp(values)
    elif pa.types.is_time(kind):
        return pc.replace_substring_regex(values.cast(pa.string()), r"\.0+$", "")
    elif pa.types.is_duration(kind):
        return pc.divide(values.cast(pa.int64()).cast(pa.float64()), float(PER_SECOND[kind.unit]))
    return values.cast(wanted, safe=not pa.types.is_floating(wanted))
