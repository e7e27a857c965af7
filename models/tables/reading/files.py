"""Files that hold a table, of any kind that is read."""

from pathlib import Path

from unfreeze.models.errors import UserError
from unfreeze.models.store.paths import irregular_kind
from unfreeze.models.tables.reading.bytes_of_files import kind_of
from unfreeze.models.tables.reading.columnar_files import ColumnarFile, parquet_files
from unfreeze.models.tables.reading.spreadsheets import Spreadsheet
from unfreeze.models.tables.reading.table_file import TableFile
from unfreeze.models.tables.reading.text_files import TextFile

_TEXTS = (".csv", ".tsv", ".tab", ".txt", ".dat", ".data")
_PARQUET, _FEATHER = (".parquet", ".pq"), (".feather", ".arrow")
_SPREADSHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
_COMPRESSED = (".gz", ".bz2", ".zst", ".xz", ".zip")
SUFFIXES = (*_TEXTS, *_COMPRESSED, *_SPREADSHEETS, *_PARQUET, *_FEATHER)
"""Endings of the names of files that are read; what is in them says how."""
READABLE = (
    "CSV or other separated text (also .gz, .bz2, .zst, .xz, .zip), a spreadsheet, Parquet (also a folder), feather"
)
"""The same, for people."""


def is_table(path: Path) -> bool:
    """Whether a path is one of a table, by its name or as a folder of Parquet files."""
    return path.suffix.lower() in SUFFIXES if path.is_file() else path.is_dir() and bool(parquet_files(path))


def table_name(source: str) -> str:
    """What a table is called: the name of its file without the endings of its format."""
    path = Path(source)
    while path.suffix.lower() in SUFFIXES:
        path = path.with_suffix("")
    return path.name


def files_of(source: Path) -> list[Path]:
    """The files that a table is made of."""
    return parquet_files(source) if source.is_dir() else [source]


def open_file(source: Path, names_only: bool = False) -> TableFile:
    """Look at a table's file, or at a folder of Parquet files, without reading all rows.

    Raises UserError where there is no such file, it is empty or cannot be read, or names of columns repeat.
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
