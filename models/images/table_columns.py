"""Which columns of a table hold the images' paths and the split, where no setting says so."""

import os
from itertools import islice
from pathlib import Path

from unfreeze.models.errors import UserError
from unfreeze.models.images.path_tables import PathTable, shortened
from unfreeze.models.specs import DataSpec
from unfreeze.models.split_words import part_of

_LOOKED_AT = 100
"""Paths of a column that are looked for, until one is there."""


def find_paths(table: PathTable, data: DataSpec) -> tuple[str, list[Path], str]:
    """The column of paths, the file of every row, and what a person should know about both.

    Without the column of the setting it is the one whose cells lead to files. Where no path leads to a file, the files
    are looked for below the table, see `PathTable.moved_files`.

    Raises
    ------
    UserError
        If there is no such column, or more than one, or a row without a path.
    """
    is_named = data.path_column in table.names or data.path_column != DataSpec().path_column
    columns = [data.path_column] if is_named else table.names
    cells = table.columns(columns, "data.path_column")
    found = {name: files for name in columns if (files := _files_of(table, cells[name], data)) is not None}
    if len(found) > 1:
        raise UserError(
            f"{table.path} has several columns of image paths: {shortened(map(repr, found))}; set data.path_column"
        )
    column = next(iter(found), data.path_column)
    paths = table.columns([column], "data.path_column")[column]
    table.reject_rows((row for row, path in enumerate(paths) if not path), f"empty {column!r}")
    literal = table.files(paths, data.image_folder, data.suffix)
    files = found.get(column, literal)
    said = "" if is_named else f"paths are in the column {column!r}"
    if files != literal:
        said += f"{', and' if said else 'paths'} such as {paths[0]!r} are read as {files[0]}"
    return column, files, said


def _files_of(table: PathTable, cells: list[str], data: DataSpec) -> list[Path] | None:
    """The files of a column's rows; None if there are none."""
    files = table.files(cells, data.image_folder, data.suffix)
    named = (os.path.isfile(file) for file, cell in zip(files, cells, strict=True) if cell)
    if any(islice(named, _LOOKED_AT)):
        return files
    return None if data.suffix else table.moved_files(cells, data.image_folder)


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
