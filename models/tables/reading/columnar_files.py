"""Tables in files that know their types: Parquet, also in a folder of files, and feather."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from unfreeze.models.errors import UserError, one_line
from unfreeze.models.tables.reading.plain_types import plain_type, to_plain
from unfreeze.models.tables.reading.table_file import TableFile

_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_NUMBER = re.compile(r"-?(0?\d|[1-9]\d*)")  # 01 is a month, 007 a name
_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)


class _Part(NamedTuple):
    """A file, the types of its columns, and the columns that its folders' names are."""

    path: Path
    columns: list[tuple[str, pa.DataType]]
    rows: int
    folders: Mapping[str, str | None]


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files in a folder and the folders in it, without those whose names begin with ``_`` or ``.``."""
    files = [each for each in sorted(folder.rglob("*")) if each.suffix.lower() in (".parquet", ".pq")]
    return [each for each in files if not any(part[0] in "._" for part in each.relative_to(folder).parts)]


class ColumnarFile(TableFile):
    """A Parquet file, a feather file, or a folder of Parquet files, whose types become plain (see `plain_type`).

    Names of folders such as ``year=2024`` are columns. Where files differ in a number's type, it is the widest of them;
    a column that some of them lack is missing there.

    Raises UserError where a file is damaged, has no rows, or files differ in the type of a column.
    """

    def __init__(self, path: Path, is_parquet: bool) -> None:
        self._is_parquet = is_parquet
        parts = [
            _Part(file, *self._look(file), _folder_values(file.relative_to(path)) if path.is_dir() else {})
            for file in (parquet_files(path) if path.is_dir() else [path])
        ]
        self._parts = parts
        self._types, notes = _types_of(path, parts)
        unusable = {
            place: f"values of type {kind} cannot be used"
            for place, (_, kind) in enumerate(self._types)
            if plain_type(kind) is None
        }
        rows = sum(part.rows for part in parts)
        super().__init__(path, [name for name, _ in self._types], unusable, notes, rows)

    def schema(self) -> pa.Schema:
        """Plain types of the columns of use."""
        kinds = [plain_type(self._types[place][1]) for place in self.places]
        return pa.schema([*zip(self.names, kinds, strict=True)])

    def batches(self) -> Iterator[tuple[pa.RecordBatch, int]]:
        """Columns of plain types."""
        schema, done = self.schema(), 0
        given = [self._types[place][0] for place in self.places]
        wanted = {*given}
        for part in self._parts:
            own = dict.fromkeys(name for name, _ in part.columns if name in wanted)
            try:
                for batch in self._read(part.path, [*own]):
                    batch.validate(full=True)
                    values = {name: pa.repeat(part.folders.get(name), len(batch)) for name in given if name not in own}
                    values |= dict(zip(batch.schema.names, batch.columns, strict=True))
                    columns = [to_plain(values[name], field.type) for name, field in zip(given, schema, strict=True)]
                    done += len(batch)
                    yield pa.record_batch(columns, schema=schema), done
            except _ERRORS as error:
                raise self._unreadable(part.path, error) from error

    def _look(self, file: Path) -> tuple[list[tuple[str, pa.DataType]], int]:
        """Types of the columns, and the number of rows."""
        try:
            if self._is_parquet:
                about = pa.parquet.ParquetFile(file)
                return [(field.name, field.type) for field in about.schema_arrow], about.metadata.num_rows
            reader = pa.ipc.open_file(pa.memory_map(str(file)))
            rows = sum(reader.get_batch(number).num_rows for number in range(reader.num_record_batches))
            return [(field.name, field.type) for field in reader.schema], rows
        except _ERRORS as error:
            raise self._unreadable(file, error) from error

    def _read(self, file: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        if self._is_parquet:
            with pa.parquet.ParquetFile(file) as parquet:
                yield from parquet.iter_batches(columns=list(names))
            return
        with pa.memory_map(str(file)) as mapped:
            reader = pa.ipc.open_file(mapped)
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number).select(names)

    def _unreadable(self, file: Path, error: BaseException) -> UserError:
        form = "Parquet" if self._is_parquet else "feather"
        return UserError(f"{file} is not a readable {form} file ({one_line(error)}); save it again")


def _folder_values(inside: Path) -> dict[str, str | None]:
    pairs = (part.partition("=") for part in inside.parts[:-1] if "=" in part)
    return {unquote(name): None if value == _HIVE_NULL else unquote(value) for name, _, value in pairs}


def _types_of(path: Path, parts: Sequence[_Part]) -> tuple[list[tuple[str, pa.DataType]], list[str]]:
    """Names and types of all columns, and what is to be said about those that differ."""
    if len(parts) == 1 and not parts[0].folders:
        for name, kind in parts[0].columns:
            _check_zone(path, name, kind)
        return parts[0].columns, []
    found: dict[str, dict[pa.DataType, Path]] = {}
    for part in parts:
        for name, kind in part.columns:
            _check_zone(part.path, name, kind)
            plain = None if pa.types.is_null(kind) else plain_type(kind)  # no value fits any type
            found.setdefault(name, {}).setdefault(plain or kind, part.path)
    types, notes = {}, []
    for name, kinds in found.items():
        fields = [pa.schema([(name, kind)]) for kind in kinds]
        try:
            types[name] = pa.unify_schemas(fields, promote_options="permissive").field(name).type
        except _ERRORS:
            (first, one), (second, other), *_ = kinds.items()
            raise UserError(
                f"{path}, column {name}: {first} in {one.relative_to(path)}, but {second} in "
                f"{other.relative_to(path)}; save all files with one type"
            ) from None
        if len(kinds) > 1:
            notes.append(f"column {name}: {' and '.join(map(str, kinds))} in different files, read as {types[name]}")
        if lacking := sum(name not in dict(part.columns) for part in parts):
            notes.append(f"column {name} is missing in {lacking} of {len(parts)} files")
    for name in dict.fromkeys(name for part in parts for name in part.folders if name not in types):
        values = [part.folders.get(name) for part in parts]
        whole = all(value is None or _NUMBER.fullmatch(value) for value in values)
        types[name] = pa.int64() if whole else pa.string()
    return [*types.items()], [f"{len(parts)} files", *notes]


def _check_zone(path: Path, name: str, kind: pa.DataType) -> None:
    if pa.types.is_timestamp(kind) and kind.tz:
        try:
            pc.local_timestamp(pa.scalar(0, kind))
        except pa.ArrowInvalid:
            raise UserError(
                f"{path}, column {name}: there is no time zone {kind.tz!r}; save it with one such as Europe/Berlin "
                "or +02:00, or without a zone"
            ) from None
