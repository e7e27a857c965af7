"""Images to predict: a folder, one image, or a table of paths; what cannot be read shows only when it is."""

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

from unfreeze.models.errors import UserError
from unfreeze.models.images.sources import resolve_source
from unfreeze.models.regular_files import irregular_kind
from unfreeze.models.specs import DataSpec

TABLES = (".csv", ".feather", ".arrow", ".parquet")
"""Suffixes of files that are read as tables of paths."""


@dataclass(frozen=True)
class Unlabelled:
    """Images in a fixed order.

    Attributes
    ----------
    names
        What each is called in the predictions: the path as a table has it, else the whole path.
    files
        Absolute paths, or empty where a table has none.
    """

    names: list[str]
    files: list[str]


def list_unlabelled(source: str, path_column: str, downloads: Path, without: Collection[Path] = ()) -> Unlabelled:
    """List images without opening any.

    Parameters
    ----------
    source
        A folder (with all folders in it; hidden files are skipped), one image, a CSV, feather or Parquet file of
        paths, or `digits`.
    path_column
        Column of paths; relative ones start at the table's folder.
    downloads
        Folder of the digits, which are written there if need be.
    without
        Files and folders that are no part of a folder's images, such as the predictions themselves.

    Raises
    ------
    UserError
        If there is no such source, or nothing in it.
    """
    if source == "digits":
        listed = resolve_source(DataSpec(source="digits"), downloads)
        files = [str(file.path) for file in listed.files]
        return Unlabelled(files, files)
    path = Path(os.path.abspath(Path(source).expanduser()))
    if path.is_dir():
        files = sorted(_nested(path, {os.path.abspath(each) for each in without}))
        if not files:
            raise UserError(f"source: there is no file in {path}; give a folder of images")
        return Unlabelled([_printable(file) for file in files], files)
    if not path.is_file():
        kind = irregular_kind(path)
        what = f"is {kind}" if kind is not None else f"does not exist in {Path.cwd()}"
        raise UserError(
            f"source: {source!r} {what}. A source is one of: a folder of images; an image; "
            f"a file of paths ({', '.join(TABLES)}); or `digits`."
        )
    if path.suffix.lower() not in TABLES:
        return Unlabelled([_printable(str(path))], [str(path)])
    names = _column(path, path_column)
    if not names:
        raise UserError(f"source: {path} has no rows")
    return Unlabelled(names, [os.path.normpath(path.parent / name) if name else "" for name in names])


def _nested(folder: Path, without: Collection[str]) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if _is_wanted(place, name, without)]
        yield from (os.path.join(place, name) for name in names if _is_wanted(place, name, without))


def _is_wanted(place: str, name: str, without: Collection[str]) -> bool:
    return not name.startswith(".") and os.path.join(place, name) not in without


def _printable(path: str) -> str:
    """The path as valid text: a name that is not UTF-8 is still an image."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _column(table: Path, column: str) -> list[str]:
    """A table's column as text, empty where a value is missing."""
    try:
        if table.suffix.lower() == ".csv":
            columns = list(pd.read_csv(table, nrows=0, encoding="utf-8-sig", index_col=False).columns)
            if column in columns:
                read = pd.read_csv(
                    table, usecols=[column], dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False
                )
                return [text.strip() for text in read[column].fillna("")]
        else:
            is_parquet = table.suffix.lower() == ".parquet"
            arrow = pa.parquet.read_table(str(table)) if is_parquet else pa.feather.read_table(str(table))
            columns = arrow.column_names
            if column in columns:
                return [text.strip() for text in arrow[column].cast(pa.string()).fill_null("").to_pylist()]
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"source: {table} cannot be read as a table: {error}") from error
    raise UserError(
        f"source: {table} has no column {column!r}; its columns are {', '.join(map(repr, columns))}. Set path_column."
    )
