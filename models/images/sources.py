"""Where images come from: a folder, a table, a torchvision data set or the embedded digits, as one listing."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather

from unfreeze.models.errors import UserError
from unfreeze.models.images.image_files import published, write_images
from unfreeze.models.images.torchvision_sources import DATA_SETS, torchvision_images
from unfreeze.models.regular_files import irregular_kind
from unfreeze.models.specs import DataSpec
from unfreeze.models.split_words import Part, part_of

Split = Literal["train", "valid"]

_SYSTEM_FILES = {"__MACOSX", "Thumbs.db", "desktop.ini"}
_TABLES = (".csv", ".feather", ".arrow")


class ListedFile(NamedTuple):
    """One image of a source; `split` is None where the source has no split of its own."""

    path: Path
    label: str
    split: Split | None


@dataclass(frozen=True)
class Listing:
    """The files of a source, sorted, before any was opened.

    Attributes
    ----------
    name
        Short name for people.
    files
        Sorted by path relative to the source (tables: by path). Either all have a split or none.
    note
        What a person should know about how the source was understood.
    """

    name: str
    files: tuple[ListedFile, ...]
    note: str | None = None


def resolve_source(data: DataSpec, downloads: Path) -> Listing:
    """List the images and labels of `data.source`.

    `digits` is always the embedded set; otherwise an existing file or folder goes before a data set of that name.

    Parameters
    ----------
    data
        The source, and the columns of a table.
    downloads
        Folder for digits and torchvision data sets, one folder each; created where needed.

    Returns
    -------
    Listing
        At least two classes.

    Raises
    ------
    UserError
        Where the source is not one of the kinds, is empty, has fewer than two classes, a table has missing columns,
        values or files, or a download fails.
    """
    # Absolute, because the listing outlives the working directory in a stored index.
    downloads = downloads.absolute()
    if data.source == "digits":
        return _list_folder(_write_digits(downloads / "digits"), "digits")
    path = Path(os.path.abspath(Path(data.source).expanduser()))
    if path.is_dir():
        return _list_folder(path, path.name)
    if path.is_file() and path.suffix.lower() in _TABLES:
        return _list_table(path, data)
    if not path.exists() and data.source in DATA_SETS:
        return _list_data_set(data.source, downloads / data.source)
    kind = irregular_kind(path) or f"a file of type {path.suffix or 'unknown'}"
    what = f"is {kind}" if path.exists() else f"does not exist in {Path.cwd()}"
    raise UserError(
        f"data.source {data.source!r} {what}. A source is one of: `digits`; a folder with a folder of images per "
        "class; a folder with train/ and valid/ of such folders; a .csv, .feather or .arrow file with a "
        f"column of paths and one of labels; or a torchvision data set: {', '.join(DATA_SETS)}."
    )


def _listing(name: str, files: Iterable[ListedFile], place: str, note: str | None = None) -> Listing:
    every = tuple(files)
    labels = sorted({file.label for file in every})
    if len(labels) < 2:
        found = f"only the class {labels[0]!r}" if labels else "no files"
        raise UserError(f"{place} holds {found}, but at least two classes are needed: a folder or label for each.")
    for file in every:
        try:
            str(file.path).encode()
        except UnicodeEncodeError:
            raise UserError(f"the file name {str(file.path)!r} is not valid UTF-8; rename the file") from None
    return Listing(name, every, note)


# --- folders


def _list_folder(folder: Path, name: str) -> Listing:
    children = {child.name: child for child in _visible(folder) if child.is_dir()}
    if not children:
        flat = sum(1 for _ in _visible(folder))
        problem = f"has {flat} files but no folders" if flat else "is empty"
        raise UserError(f"{folder} {problem}; put the images into a folder per class, such as {folder}/cat/1.jpg.")
    parts: dict[Part, str] = {}
    for child in sorted(children):
        part = part_of(child)
        if part is not None and part in parts:
            raise UserError(f"{folder}: {parts[part]}/ and {child}/ both mean {part}; merge them, or rename one.")
        if part is not None:
            parts[part] = child
    if not parts:
        return _listing(name, _list_classes(folder), str(folder))
    if "train" in parts and "valid" in parts:
        # Other folders, such as test/, are no part of the training.
        sides: tuple[Split, ...] = ("train", "valid")
        files = [file._replace(split=side) for side in sides for file in _list_classes(children[parts[side]])]
        empty = [side for side in sides if not any(file.split == side for file in files)]
        if empty:
            raise UserError(f"{folder} has no class folder with files for {empty[0]}; add images or remove the split.")
        return _listing(name, files, str(folder))
    if parts.keys() == {"train", "test"} and len(children) == 2:
        train = children[parts["train"]]
        return _listing(name, _list_classes(train), str(train), _rejected_test(f"{parts['test']}/"))
    raise UserError(
        f"{folder} has {_some(f'{child}/' for child in sorted(children))}: "
        f"{_some(f'{child}/' for child in parts.values())} would be part of a split, which needs train/ and valid/ "
        "(or val/, validation/, dev/) with a folder per class in each; add the missing folder, give one of them as the "
        "source to split it at random, or rename a folder that is a class."
    )


def _rejected_test(test: str) -> str:
    return f"{test} is not used for training, and the validation rows are drawn from the training ones at random"


def _some(names: Iterable[str], most: int = 8) -> str:
    every = list(names)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def _list_classes(folder: Path) -> list[ListedFile]:
    found = []
    for class_folder in _visible(folder):
        if class_folder.is_dir():
            found += [ListedFile(path, class_folder.name, None) for path in _nested_files(class_folder)]
    return sorted(found, key=lambda file: file.path.relative_to(folder).as_posix())


def _visible(folder: Path) -> Iterator[Path]:
    return (child for child in folder.iterdir() if not _hidden(child.name))


def _nested_files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _hidden(name)]
        yield from (Path(place, name) for name in names if not _hidden(name))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in _SYSTEM_FILES


# --- tables


def _list_table(table: Path, data: DataSpec) -> Listing:
    columns = [data.path_column, data.label_column] + ([data.split_column] if data.split_column else [])
    values = _read_table(table, columns)
    for column in columns:
        _refuse_rows(table, (row for row, value in enumerate(values[column]) if not value), f"empty {column!r}")
    paths = [Path(os.path.normpath(table.parent / value)) for value in values[data.path_column]]
    labels = values[data.label_column]
    splits: list[Part | None] = [None] * len(paths)
    note = None
    if data.split_column:
        splits = [part_of(value) for value in values[data.split_column]]
        wrong = (row for row, part in enumerate(splits) if part is None)
        _refuse_rows(table, wrong, f"{data.split_column!r} is neither `train` nor `valid` nor `test`")
        missing = {"train", "valid"} - set(splits) if paths else set()
        if missing == {"valid"} and "test" in splits:
            splits = [None if part == "train" else part for part in splits]
            note = _rejected_test("`test`")
        elif missing:
            raise UserError(f"{table}: no row has {min(missing)!r} in column {data.split_column!r}")
    absent = (row for row, path in enumerate(paths) if not path.is_file())
    _refuse_rows(table, absent, "no file at the path", lambda row: str(paths[row]))
    first_row: dict[Path, int] = {}
    clashes = [row for row, path in enumerate(paths) if labels[first_row.setdefault(path, row)] != labels[row]]
    _refuse_rows(
        table,
        clashes,
        "the path has another label in an earlier row",
        lambda row: f"{paths[row].name}: {labels[first_row[paths[row]]]!r}, then {labels[row]!r}",
    )
    rows = zip(paths, labels, splits, strict=True)
    files = [ListedFile(path, label, part) for path, label, part in rows if part != "test"]
    files.sort(key=lambda file: (str(file.path), file.split or ""))
    return _listing(table.stem, files, str(table), note)


def _read_table(table: Path, columns: list[str]) -> dict[str, list[str]]:
    """Read the wanted columns as text: str, empty where a value is missing."""
    try:
        if table.suffix.lower() == ".csv":
            # Text as written: a label 007 or NA must not turn into a number or a missing value.
            frame = pd.read_csv(table, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
            names, values = list(frame.columns), {name: frame[name].fillna("") for name in frame.columns}
        else:
            arrow = _read_arrow(table)
            names = arrow.column_names
            wanted = [name for name in columns if name in names]
            values = {name: arrow[name].cast(pa.string()).fill_null("").to_pandas() for name in wanted}
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{table} cannot be read as a table: {error}") from error
    if absent := [column for column in columns if column not in names]:
        raise UserError(
            f"{table} has no column {', '.join(map(repr, absent))}; its columns are {', '.join(map(repr, names))}. "
            "Set data.path_column, data.label_column or data.split_column."
        )
    return {column: values[column].str.strip().tolist() for column in columns}


def _read_arrow(table: Path) -> pa.Table:
    try:
        return pa.feather.read_table(str(table), memory_map=False)
    except pa.ArrowInvalid:  # an .arrow file may also be in the stream format
        with pa.OSFile(str(table)) as file:
            return pa.ipc.open_stream(file).read_all()


def _refuse_rows(
    table: Path, rows: Iterable[int], problem: str, detail: Callable[[int], str] | None = None, most: int = 5
) -> None:
    wrong = list(rows)
    if not wrong:
        return
    shown = [f"{row + 1}" + (f" ({detail(row)})" if detail else "") for row in wrong[:most]]
    more = f" and {len(wrong) - most} more" if len(wrong) > most else ""
    raise UserError(
        f"{table}: {len(wrong)} rows: {problem}: row {', '.join(shown)}{more} "
        "(the first row below the header is row 1). Correct or remove them."
    )


# --- digits and torchvision data sets


def _write_digits(folder: Path) -> Path:
    if not folder.is_dir():
        from sklearn.datasets import load_digits  # takes half a second, and only the first time

        digits = load_digits()
        pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        with published(folder) as building:
            write_images(building, pixels, [str(label) for label in digits.target])
    return folder


def _list_data_set(name: str, folder: Path) -> Listing:
    found = torchvision_images(name, folder)
    if isinstance(found, Path):
        return _list_folder(found, name)
    files = [ListedFile(*file) for file in found]
    return _listing(name, sorted(files, key=lambda file: (file.split or "", str(file.path))), str(folder))
