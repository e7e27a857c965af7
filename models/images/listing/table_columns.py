"""Detection of the path, split and label columns of an image table."""

import os
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from unfreeze.models.errors import UserError
from unfreeze.models.images.listing.path_tables import PathTable, shortened
from unfreeze.models.reading.labels import SEPARATOR, join, list_in, understand
from unfreeze.models.reading.split_words import PARTS, Part, part_of
from unfreeze.models.settings import DataSpec
from unfreeze.models.settings.predict import Predict

_LOOKED_AT = 100
"""Maximum number of a column's paths to check for an existing file."""
_YES, _NO = {"1", "1.0", "true"}, {"0", "0.0", "false"}
FEWEST_COLUMNS = 2
"""Minimum number of indicator columns; a single column of 0 and 1 holds classes."""
_LABEL_NAMES = {"label", "labels", "class", "classes", "class_name", "category", "choice", "choices", "target", "tags"}
_LABEL_WORDS = {"label", "class", "category", "tag"}
"""Usual names of label columns, tried if `data.label_column` is missing."""


class Paths(NamedTuple):
    """Image files of a table.

    Attributes
    ----------
    column, names
        Path column and its cells.
    files
        File of every row, existing or not.
    how
        How they were found; empty if obvious.
    """

    column: str
    names: list[str]
    files: list[Path]
    how: str


def find_paths(table: PathTable, settings: DataSpec | Predict) -> Paths:
    """Find the path column and the file of every row.

    If the configured column is missing, it is the one whose cells name existing files. If no file exists, the files are
    searched for below the table; see `PathTable.moved_files`.

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
    """Files of a column's rows; None if none exist."""
    files = table.files(cells, settings.image_folder, settings.suffix)
    named = (os.path.isfile(file) for file, cell in zip(files, cells, strict=True) if cell)
    if any(islice(named, _LOOKED_AT)):
        return files
    return None if settings.suffix else table.moved_files(cells, settings.image_folder)


def split_in_paths(table: PathTable, files: Sequence[Path]) -> tuple[list[Part], list[str]]:
    """Split of every row by a folder in its path, and the names of those folders; empty if there are none."""
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
    """Find the split column: the configured one, or one whose cells all name splits, including train.

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


# --- labels


class TableLabels(NamedTuple):
    """Labels of a table's rows.

    Attributes
    ----------
    texts
        Class of every row, or its labels as `models.reading.labels.join` writes them.
    multiple
        Whether a row may have any number of labels.
    how
        How they were interpreted.
    unused
        Note on ignored columns.
    """

    texts: list[str]
    multiple: bool
    how: str
    unused: str = ""


def table_labels(table: PathTable, data: DataSpec) -> TableLabels:
    """Read the labels by the settings, or by the cells if nothing is set.

    Raises
    ------
    UserError
        For a missing column, an empty class cell, an indicator other than 0 or 1, or a second label column that
        `data.labels` does not cover.
    """
    apart = (data.path_column, data.split_column, data.group_column)
    others = [name for name in table.names if name not in apart]
    columns = data.label_columns or _columns_of_marks(table, others, data)
    if columns:
        return _from_marks(table, columns, data)._replace(unused=_unused(set(others) - set(columns)))
    column = _label_column(table, others, data)
    texts = table.columns([column], "data.label_column, or data.label_columns")[column]
    further = _further_columns(table, column, texts, [name for name in others if name != column])
    if further and data.labels == "auto":
        raise UserError(
            f"{table.path} has labels in {column!r} and in {shortened(map(repr, further))}: set data.labels to "
            f"`multiple` to use all of them, or to `single` to use {column!r} alone"
        )
    if further and data.labels == "multiple":
        return _from_columns(table, [column, *further], data)._replace(unused=_unused(set(others) - {column, *further}))
    unused = _unused(set(others) - {column})
    lists = {text: list_in(text) or [] for text in set(texts)}
    if data.labels != "multiple" and all(len(each) == 1 for each in lists.values()):
        how = "one label per image: every list holds one; `--data.labels multiple` lets an image have several"
        return TableLabels([lists[text][0] for text in texts], False, how, unused)
    understood = understand(texts, data.labels, data.label_separator, "data.labels")
    if understood.labels is not None:
        return TableLabels([join(each) for each in understood.labels], True, understood.how, unused)
    table.reject_rows((row for row, text in enumerate(texts) if not text), f"empty {column!r}")
    return TableLabels(texts, False, understood.how, unused)


def _from_columns(table: PathTable, columns: Sequence[str], data: DataSpec) -> TableLabels:
    """Combine the labels of several columns; a cell is one label unless it is a list."""
    rows: list[set[str]] = []
    for cells in table.columns(columns, "data.label_column").values():
        found = understand(cells, "auto", data.label_separator, "data.labels").labels
        labels = found if found is not None else [(cell,) if cell else () for cell in cells]
        rows = [row | set(each) for row, each in zip(rows or [set()] * len(cells), labels, strict=True)]
    how = f"any number of labels per image, from the columns {shortened(columns, most=3)}"
    return TableLabels([join(row) for row in rows], True, how)


def _label_column(table: PathTable, others: Sequence[str], data: DataSpec) -> str:
    """The configured column, otherwise the only other one or the only one with a usual label name."""
    if data.label_column in table.names or data.label_column != DataSpec().label_column:
        return data.label_column
    called = [name for name in others if name.casefold() in _LABEL_NAMES]
    candidates = called or others
    return candidates[0] if len(candidates) == 1 else data.label_column


def _further_columns(table: PathTable, column: str, texts: Sequence[str], others: Sequence[str]) -> list[str]:
    """Find further label columns: named like the label column, or with its labels as cells.

    Columns determined by the label, such as the class number, are ignored.
    """
    words, labels = _words(column), set(texts) - {""}
    further = []
    for name, cells in table.columns(others, "data.label_column").items():
        values = set(cells) - {""}
        says_more = len(set(zip(texts, cells, strict=True))) > len(set(texts))
        is_numbers = all(re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", cell) for cell in values - labels)
        is_called_so = bool((words | _LABEL_WORDS) & _words(name)) and not (is_numbers and values - labels)
        if says_more and (is_called_so or 2 * len(values & labels) >= len(values)):
            further.append(name)
    return further


def _words(name: str) -> set[str]:
    words = re.findall(r"[^\W\d_]+", name.casefold())
    return {word if word.endswith("ss") else word.removesuffix("s") for word in words}


def _unused(columns: set[str]) -> str:
    return f"columns that are not used: {shortened(sorted(columns))}" if columns else ""


def _columns_of_marks(table: PathTable, others: list[str], data: DataSpec) -> list[str]:
    """All columns except paths and split, if there is no label column and all of them hold only 0 and 1."""
    if data.label_column in table.names or len(others) < FEWEST_COLUMNS:
        return []
    cells = table.columns(others, "data.label_columns")
    is_marks = all(set(map(str.casefold, column)) <= _YES | _NO for column in cells.values())
    return others if is_marks and any(cells.values()) else []


def _from_marks(table: PathTable, columns: Sequence[str], data: DataSpec) -> TableLabels:
    cells = table.columns(columns, "data.label_columns")
    for name, column in cells.items():
        wrong = [row for row, cell in enumerate(column) if cell.casefold() not in _YES | _NO]
        shown = {row: repr(column[row]) for row in wrong}
        table.reject_rows(wrong, f"{name!r} is neither 0 nor 1", shown.__getitem__)
        if SEPARATOR in name:
            raise UserError(f"data.label_columns: {name!r} holds {SEPARATOR!r}, which separates labels; rename it")
    rows = zip(*([cell.casefold() in _YES for cell in column] for column in cells.values()), strict=True)
    labels = [[name for name, marked in zip(columns, row, strict=True) if marked] for row in rows]
    if data.labels != "multiple" and all(len(each) == 1 for each in labels):
        how = (
            f"one label per image: every row has a single 1 in {shortened(columns, most=3)}; "
            "`--data.labels multiple` lets an image have several"
        )
        return TableLabels([each[0] for each in labels], False, how)
    if data.labels == "single":
        others = (row for row, each in enumerate(labels) if len(each) != 1)
        table.reject_rows(others, "data.labels is single, so exactly one label column must be 1")
    how = f"any number of labels per image, from columns of 0 and 1: {shortened(columns, most=3)}"
    return TableLabels([join(each) for each in labels], True, how)
