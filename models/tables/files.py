"""Files that hold a table, of any kind that is read."""

from pathlib import Path

from unfreeze.models.errors import UserError
from unfreeze.models.regular_files import irregular_kind
from unfreeze.models.tables.columnar_files import columnar_types
from unfreeze.models.tables.text_files import TextFile

SUFFIXES = (".csv", ".parquet", ".feather")
"""Kinds of files that are read."""


def is_text(source: Path) -> bool:
    """Whether the cells of a table's file are text, without types."""
    return source.suffix.lower() == ".csv"


def column_names(source: Path) -> list[str]:
    """Names of the columns that a table's file has, without reading any row.

    Raises UserError where the file is missing, empty, its header cannot be read, or names repeat.
    """
    if (kind := irregular_kind(source)) is not None:
        raise UserError(f"{source} is {kind}; give the path of a CSV, Parquet or feather file")
    if not source.is_file():
        raise UserError(f"{source}: there is no such file; give the path of a CSV, Parquet or feather file")
    if source.suffix.lower() not in SUFFIXES:
        raise UserError(f"{source}: unknown suffix {source.suffix!r}; save the table as {', '.join(SUFFIXES)}")
    if source.stat().st_size == 0:
        raise UserError(f"{source} is empty; give a file with a header and rows")
    names = TextFile(source).names if is_text(source) else [name for name, _ in columnar_types(source)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{source}, header: several columns are called {', '.join(twice[:3])}; rename them")
    return names
