"""Tables of image paths (CSV, JSON lines, feather, Arrow, Parquet), read as text."""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

from unfreeze.models.errors import UserError
from unfreeze.models.images.listing.folder_files import files_below, may_be_image
from unfreeze.models.reading.split_words import Part
from unfreeze.models.store.paths import given_path
from unfreeze.models.tables.reading.frames import open_file

TABLES = (".csv", ".tsv", ".jsonl", ".feather", ".arrow", ".parquet")
"""Suffixes of path tables."""
_MOST_FILES, _MOST_FILES_A_ROW = 20_000, 10
"""Limit on files in a folder that is searched for a table's moved files."""
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")
"""Prefix that annotation tools add to uploaded file names."""


class PathTable:
    """Table with one image per row.

    Parameters
    ----------
    path
        Absolute path of the file, or of the folder that holds the `parts`.
    parts
        Files read as one table, each with the split of its rows.
    """

    def __init__(self, path: Path, parts: Mapping[Path, Part] | None = None) -> None:
        self.path = path
        self._parts: Mapping[Path, Part | None] = parts or {path: None}
        self.paths = list(self._parts)

    @cached_property
    def names(self) -> list[str]:
        """Column names, stripped; raises a `UserError` if the file is not a table."""
        return [str(name) for name in self._rows]

    def columns(self, wanted: Sequence[str], settings: str) -> dict[str, list[str]]:
        """Read columns as stripped text; missing values are empty, lists are JSON.

        Raises
        ------
        UserError
            If the file is not a table or lacks a column; names the `settings` that choose columns.
        """
        if absent := [column for column in wanted if column not in self.names]:
            raise UserError(
                f"{self.path} has no column {', '.join(map(repr, absent))}; its columns are "
                f"{', '.join(map(repr, self.names))}. Set {settings}."
            )
        return {column: self._rows[column].tolist() for column in wanted}

    @cached_property
    def splits(self) -> list[Part | None]:
        """Split of every row by its file; None for a single file."""
        return [self._parts[table] for table, _ in self._rows.index]

    def files(self, values: Iterable[str], folder: str | None, suffix: str) -> list[Path]:
        """Resolve paths or ids below `folder` (relative to the table's folder), adding `suffix`."""
        named = (value if value.endswith(suffix) else value + suffix for value in values)
        folders = [table.parent / given_path(folder or "") for table, _ in self._rows.index]
        return [Path(os.path.normpath(place / name)) for place, name in zip(folders, named, strict=True)]

    def moved_files(self, values: Sequence[str], folder: str | None) -> list[Path] | None:
        """Resolve paths of another machine or server, or ids, if one rule finds all files.

        A rule drops or replaces the first folders, completes a suffix, or drops the eight-digit prefix that annotation
        tools add to uploaded file names.
        """
        found: list[Path] = []
        for table in self._parts:
            place = table.parent / given_path(folder or "")
            paths = [_path_parts(value) for value, (of, _) in zip(values, self._rows.index, strict=True) if of == table]
            if not all(paths) or not os.path.isdir(place):
                return None
            files = [*islice(files_below(place), _MOST_FILES + _MOST_FILES_A_ROW * len(paths))]
            if len(files) == _MOST_FILES + _MOST_FILES_A_ROW * len(paths):  # a disk, not an image folder
                return None
            there = {Path(file).relative_to(place).parts for file in files if may_be_image(file)}
            rules = {rule for file in there if paths and (rule := _rule(paths[0], file)) is not None}
            fits = [each for rule in rules if there.issuperset(each := [_by_rule(rule, path) for path in paths])]
            if len(fits) != 1:
                return None
            found += [place.joinpath(*each) for each in fits[0]]
        return found

    def reject_rows(
        self, rows: Iterable[int], problem: str, detail: Callable[[int], str] | None = None, remedy: str = ""
    ) -> None:
        """Raise a `UserError` that lists unusable rows, if there are any."""
        wrong = list(rows)
        if wrong:
            names = {
                row: f"{number + 1}" + (f" of {table}" if len(self._parts) > 1 else "")
                for row, (table, number) in enumerate(self._rows.index)
            }
            shown = shortened((names[row] + (f" ({detail(row)})" if detail else "") for row in wrong), most=5)
            raise UserError(
                f"{self.path}: {len(wrong)} rows: {problem}: row {shown} "
                f"(the first row below the header is row 1). Correct or remove them{remedy}."
            )

    @cached_property
    def _rows(self) -> pd.DataFrame:
        """All cells as text, indexed by file and row number from 0."""
        frames = {table: _read_cells(table) for table in self._parts}
        first = next(iter(frames))
        for table, frame in frames.items():
            if odd := set(frame) ^ set(frames[first]):
                named = shortened(map(repr, sorted(map(str, odd))))
                raise UserError(f"{table} has other columns than {first}: {named}; make them the same")
        return pd.concat(frames)


def shortened(items: Iterable[str], most: int = 10) -> str:
    """Join the first items with commas and count the rest."""
    every = list(items)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def _read_cells(table: Path) -> pd.DataFrame:
    read = {".csv": _csv_cells, ".tsv": _csv_cells, ".jsonl": _json_cells}.get(table.suffix.lower(), _arrow_cells)
    try:
        cells = {name: [cell.strip() for cell in column] for name, column in read(table).items()}
    except UserError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{table} cannot be read as a table: {error}") from error
    return pd.DataFrame(cells, dtype=object)


def _path_parts(value: str) -> tuple[str, ...]:
    """Split a path (also a Windows path or a URL) into folders and name."""
    path = unquote(re.sub(r"^.*([?]d=|://)", "", value))
    return tuple(part for part in re.split(r"[\\/]+", path) if part not in ("", "."))


class _Rule(NamedTuple):
    """Path rule: replace the first `dropped` folders by `folders`, then complete the name."""

    dropped: int
    folders: tuple[str, ...]
    suffix: str
    is_uploaded: bool


def _rule(path: tuple[str, ...], file: tuple[str, ...]) -> _Rule | None:
    """Rule that maps a path to a file and keeps most of the path; None if their names differ."""
    name, found = path[-1], file[-1]
    is_uploaded = found != name and _UPLOADED.sub("", name, count=1) in (found, os.path.splitext(found)[0])
    plain = _UPLOADED.sub("", name, count=1) if is_uploaded else name
    if not found.startswith(plain) or found[len(plain) :] not in ("", os.path.splitext(found)[1]):
        return None
    same = 0
    while same < min(len(path), len(file)) - 1 and path[-2 - same] == file[-2 - same]:
        same += 1
    return _Rule(len(path) - 1 - same, file[: len(file) - 1 - same], found[len(plain) :], is_uploaded)


def _by_rule(rule: _Rule, path: tuple[str, ...]) -> tuple[str, ...]:
    name = _UPLOADED.sub("", path[-1], count=1) if rule.is_uploaded else path[-1]
    return (*rule.folders, *path[rule.dropped : -1], name + rule.suffix)


def _csv_cells(table: Path) -> dict[str, list[str]]:
    """Read cells verbatim: a label 007 or NA must not become a number or a missing value."""
    file = open_file(table)
    cells: dict[str, list[str]] = {name: [] for name in file.names}
    for batch, _ in file.batches():
        for name, column in zip(file.names, batch.columns, strict=True):
            cells[name] += column.fill_null("").to_pylist()
    return cells


def _json_cells(table: Path) -> dict[str, list[str]]:
    with open(table, encoding="utf-8-sig") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is not a JSON object")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [_text(row.get(name)) for row in rows] for name in names}


def _text(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def _arrow_cells(table: Path) -> dict[str, list[str]]:
    read = _read_arrow(table)
    return {name: _texts(read[name]) for name in read.column_names}


def _texts(column: pa.ChunkedArray) -> list[str]:
    if pa.types.is_nested(column.type):
        return [_text(None if each is None else [str(label) for label in each]) for each in column.to_pylist()]
    texts: list[str] = column.cast(pa.string()).fill_null("").to_pylist()
    return texts


def _read_arrow(table: Path) -> pa.Table:
    read = _read_unchecked(table)
    read.validate(full=True)  # bad offsets in a damaged file would crash later reads
    return read


def _read_unchecked(table: Path) -> pa.Table:
    if table.suffix.lower() == ".parquet":
        return pa.parquet.read_table(str(table))
    try:
        return pa.feather.read_table(str(table), memory_map=False)
    except pa.ArrowInvalid:  # an .arrow file may use the stream format
        with pa.OSFile(str(table)) as file:
            return pa.ipc.open_stream(file).read_all()
