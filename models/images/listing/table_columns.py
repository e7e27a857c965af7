"""Which columns of a table hold the images' paths and the split, where no setting says so."""

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from unfreeze.models.errors import UserError
from unfreeze.models.images.listing.path_tables import PathTable, shortened
from unfreeze.models.reading.split_words import PARTS, Part, part_of
from unfreeze.models.settings import DataSpec
from unfreeze.models.settings.predict import Predict

_LOOKED_AT = 100
"""Paths of a column that are looked for, until one is there."""


class Paths(NamedTuple):
    """The images of a table.

    Attributes
    ----------
    column, names
        The column of paths and its cells.
    files
        The file of every row, whether it is there or not.
    how
        How they were found, for people; empty where that cannot surprise.
    """

    column: str
    names: list[str]
    files: list[Path]
    how: str


def find_paths(table: PathTable, settings: DataSpec | Predict) -> Paths:
    """Find the column of paths, and the file of every row.

    Without the column of the setting it is the one whose cells lead to files. Where no path leads to a file, the files
    are looked for below the table, see `PathTable.moved_files`.

    Raises
    ------
    UserError
        If there is no such column, or more than one.
    """
    setting = "data.path_column" if isinstance(settings, DataSpec) else "path_column"
    is_named = settings.path_column in table.names or settings.path_column != DataSpec().path_column
    columns = [settings.path_column] if is_named else table.names
    cells = table.columns(columns, setting)
    found = {name: files for name in columns if (files := _files_of(table, cells[name], settings)) is not None}
    if len(found) > 1:
        raise UserError(
            f"{table.path} has several columns of image paths: {shortened(map(repr, found))}; set {setting}"
        )
    column = next(iter(found), settings.path_column)
    names = table.columns([column], setting)[column]
    literal = table.files(names, settings.image_folder, settings.suffix)
    files = found.get(column, literal)
    how = "" if is_named else f"paths are in the column {column!r}"
    if files != literal:
        how += f"{', and' if how else 'paths'} such as {names[0]!r} are read as {files[0]}"
    return Paths(column, names, files, how)


def _files_of(table: PathTable, cells: list[str], settings: DataSpec | Predict) -> list[Path] | None:
    """The files of a column's rows; None if there are none."""
    files = table.files(cells, settings.image_folder, settings.suffix)
    named = (os.path.isfile(file) for file, cell in zip(files, cells, strict=True) if cell)
    if any(islice(named, _LOOKED_AT)):
        return files
    return None if settings.suffix else table.moved_files(cells, settings.image_folder)


def split_in_paths(table: PathTable, files: Sequence[Path]) -> tuple[list[Part], list[str]]:
    """The part of the split of every row by a folder in its path, and the names of those folders; empty without any."""
    place = table.path if table.path.is_dir() else table.path.parent
    names: list[str] = []
    for file in files:
        below = file.relative_to(place).parts[:-1] if file.is_relative_to(place) else ()
        words = {name for name in below if part_of(name)}
        if len(words) != 1:
            return [], []
        names += words
    parts = [part for name in names if (part := part_of(name)) is not None]
    if not {"train"} < set(parts):
        return [], []
    return parts, sorted(set(names), key=lambda name: PARTS.index(part_of(name) or "train"))


def find_split_column(table: PathTable, data: DataSpec) -> str | None:
    """The column of the split: that of the setting, or one whose every cell is a part of a split, train among them.

    Raises
    ------
    UserError
        If there are several.
    """
    if data.split_column or any(table.splits):
        return data.split_column
    cells = table.columns(table.names, "data.split_column")
    parts = {name: {part_of(cell) for cell in set(column)} for name, column in cells.items()}
    found = [name for name, each in parts.items() if None not in each and {"train"} < each]
    if len(found) > 1:
        raise UserError(f"{table.path} has several columns of a split: {shortened(found)}; set data.split_column")
    return found[0] if found else None
