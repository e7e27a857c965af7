"""The images of a source, with their labels for training or without for predictions."""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from unfreeze.models.errors import UserError
from unfreeze.models.images.data_sets import DATA_SETS, torchvision_images, write_digits
from unfreeze.models.images.path_tables import TABLES, PathTable, shortened
from unfreeze.models.images.table_labels import table_labels
from unfreeze.models.label_sets import join, split
from unfreeze.models.paths import given_path
from unfreeze.models.regular_files import irregular_kind
from unfreeze.models.specs import DataSpec
from unfreeze.models.specs.predict import Predict
from unfreeze.models.split_words import Part, part_of

_SYSTEM_FILES = {"__MACOSX", "Thumbs.db", "desktop.ini"}


class ListedFile(NamedTuple):
    """One image of a source; `split` is None where it is to be drawn whether the image trains or validates.

    Several labels are one text, see `unfreeze.models.label_sets.join`.
    """

    path: Path
    label: str
    split: Part | None


@dataclass(frozen=True)
class Listing:
    """The files of a source, sorted, before any was opened."""

    name: str
    files: tuple[ListedFile, ...]
    """Sorted by path relative to the source (tables: by path). Those that do not test all have a split or none has."""
    note: str | None = None
    """How the source was understood, where that may surprise."""
    multiple: bool = False
    """Whether an image may have any number of labels."""
    how: str = ""
    """How the labels were understood, for people; empty where that cannot surprise."""
    is_table: bool = False


@dataclass(frozen=True)
class Unlabelled:
    """Images to predict, in a fixed order."""

    names: list[str]
    """What each is called in the predictions: the path as a table has it, else the whole path."""
    files: list[str]
    """Absolute paths, or empty where a table has none."""


def resolve_source(data: DataSpec, downloads: Path) -> Listing:
    """List the images and labels of `data.source`.

    `digits` is always the embedded set; otherwise an existing file or folder goes before a data set of that name.
    Digits and torchvision data sets are written to a folder each in `downloads`.

    Raises
    ------
    UserError
        If the source is not one of the kinds, is empty, has fewer than two classes, a table has missing columns,
        values or files, or a download fails.
    """
    check_source(data.source)
    # Absolute, because the listing outlives the working directory in a stored index.
    downloads = downloads.absolute()
    if data.source == "digits":
        return _list_folder(write_digits(downloads / "digits"), "digits")
    path = _absolute(data.source)
    if path.is_dir():
        return _list_folder(path, path.name)
    if path.is_file():
        return _list_table(path, data)
    found = torchvision_images(data.source, downloads / data.source)
    if isinstance(found, Path):
        return _list_folder(found, data.source)
    files = sorted((ListedFile(*file) for file in found), key=lambda file: (file.split or "", str(file.path)))
    return _listing(data.source, files, str(downloads / data.source))


def check_source(source: str) -> None:
    """Report a source to train on that is none, without listing its files.

    Raises
    ------
    UserError
        Says what a source can be.
    """
    path = _absolute(source)
    is_table = path.is_file() and path.suffix.lower() in TABLES
    is_data_set = source == "digits" or (source in DATA_SETS and not path.exists())
    if is_data_set or is_table or path.is_dir():
        return
    kind = irregular_kind(path) or f"a file of type {path.suffix or 'unknown'}"
    what = f"is {kind}" if path.exists() else f"does not exist in {Path.cwd()}"
    raise UserError(
        f"data.source {source!r} {what}. A source is one of: `digits`; a folder with a folder of images per "
        f"class; a folder with train/ and valid/ of such folders; a table ({', '.join(TABLES)}) with a "
        f"column of paths and one of labels; or a torchvision data set: {', '.join(DATA_SETS)}."
    )


def list_unlabelled(params: Predict, downloads: Path, without: Collection[Path] = ()) -> Unlabelled:
    """List images to predict without opening any; a `UserError` if there is no such source, or nothing in it.

    Parameters
    ----------
    params
        Its source: a folder (with all folders in it; hidden files are skipped), one image, a table of paths or ids, or
        `digits` (written to a folder in `downloads` if necessary).
    without
        Files and folders to leave out, such as the predictions themselves.
    """
    source, column = params.source, params.path_column
    path = _absolute(source)
    if source == "digits":
        path = write_digits(downloads.absolute() / "digits")
    if path.is_dir():
        files = sorted(_nested_files(path, {os.path.abspath(each) for each in without}))
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
    table = PathTable(path)
    names = table.columns([column], "path_column")[column]
    if not names:
        raise UserError(f"source: {path} has no rows")
    found = table.files(names, params.image_folder, params.suffix)
    return Unlabelled(names, [str(file) if name else "" for name, file in zip(names, found, strict=True)])


def _absolute(source: str) -> Path:
    return Path(os.path.abspath(given_path(source)))


def _printable(path: str) -> str:
    """The path as valid text: a name that is not UTF-8 is still an image."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _listing(
    name: str,
    files: Iterable[ListedFile],
    place: str,
    note: str | None = None,
    multiple: bool = False,
) -> Listing:
    every = tuple(files)
    labels = sorted({file.label for file in every})
    if len(labels) < 2:
        what = "the same labels for every image" if multiple else "only the class"
        found = f"{what} {labels[0]!r}" if labels else "no files"
        raise UserError(f"{place} holds {found}, but at least two classes are needed: a folder or label for each.")
    for file in every:
        try:
            str(file.path).encode()
        except UnicodeEncodeError:
            raise UserError(f"the file name {str(file.path)!r} is not valid UTF-8; rename the file") from None
    return Listing(name, every, note, multiple)


# --- folders


def _list_folder(folder: Path, name: str) -> Listing:
    entries = [entry for entry in folder.iterdir() if not _is_hidden(entry.name)]
    children = {entry.name: entry for entry in entries if entry.is_dir()}
    if not children:
        problem = f"has {len(entries)} files but no folders" if entries else "is empty"
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
        # Folders of other names are no part of the training.
        files: list[ListedFile] = []
        for side in parts:
            found = _list_classes(children[parts[side]])
            if not found:
                raise UserError(f"{folder} has no class folder with files for {side}; add images or remove the split.")
            files += [file._replace(split=side) for file in found]
        return _listing(name, files, str(folder))
    if parts.keys() == {"train", "test"} and len(children) == 2:
        tests = [file._replace(split="test") for file in _list_classes(children[parts["test"]])]
        files = [*_list_classes(children[parts["train"]]), *tests]
        return _listing(name, files, str(folder), _drawn_validation(f"{parts['test']}/"))
    raise UserError(
        f"{folder} has {shortened(f'{child}/' for child in sorted(children))}: "
        f"{shortened(f'{child}/' for child in parts.values())} would be part of a split, which needs train/ and valid/ "
        "(or val/, validation/, dev/) with a folder per class in each; add the missing folder, give one of them as the "
        "source to split it at random, or rename a folder that is a class."
    )


def _drawn_validation(test: str) -> str:
    return f"{test} only tests the final model; the validation rows are drawn from the training ones at random"


def _list_classes(folder: Path) -> list[ListedFile]:
    classes = [entry for entry in folder.iterdir() if entry.is_dir() and not _is_hidden(entry.name)]
    found = [ListedFile(Path(file), each.name, None) for each in classes for file in _nested_files(each)]
    return sorted(found, key=lambda file: file.path.relative_to(folder).as_posix())


def _nested_files(folder: Path, without: Collection[str] = ()) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _is_hidden(name) and os.path.join(place, name) not in without]
        files = (os.path.join(place, name) for name in names if not _is_hidden(name))
        yield from (file for file in files if file not in without)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _SYSTEM_FILES


# --- tables


def _list_table(path: Path, data: DataSpec) -> Listing:
    table = PathTable(path)
    columns = [data.path_column] + ([data.split_column] if data.split_column else [])
    values = table.columns(columns, "data.path_column or data.split_column")
    for column in columns:
        table.reject_rows((row for row, value in enumerate(values[column]) if not value), f"empty {column!r}")
    paths = table.files(values[data.path_column], data.image_folder, data.suffix)
    labels, multiple, how = table_labels(table, data)
    splits: list[Part | None] = [None] * len(paths)
    note = None
    if data.split_column:
        splits = [part_of(value) for value in values[data.split_column]]
        wrong = (row for row, part in enumerate(splits) if part is None)
        table.reject_rows(wrong, f"{data.split_column!r} is neither `train` nor `valid` nor `test`")
        missing = {"train", "valid"} - set(splits) if paths else set()
        if missing == {"valid"} and "test" in splits:
            splits = [None if part == "train" else part for part in splits]
            note = _drawn_validation("`test`")
        elif missing:
            raise UserError(f"{path}: no row has {min(missing)!r} in column {data.split_column!r}")
    absent = (row for row, file in enumerate(paths) if not os.path.isfile(file))
    remedy = "" if data.image_folder or data.suffix else ", or complete ids by data.image_folder and data.suffix"
    table.reject_rows(absent, "no file at the path", lambda row: str(paths[row]), remedy)
    first_row: dict[Path, int] = {}
    clashes = [row for row, file in enumerate(paths) if labels[first_row.setdefault(file, row)] != labels[row]]
    if data.labels == "multiple":
        labels = _united(paths, labels)
    else:
        table.reject_rows(
            clashes,
            "the path has another label in an earlier row",
            lambda row: f"{paths[row].name}: {labels[first_row[paths[row]]]!r}, then {labels[row]!r}",
            ", or set data.labels to multiple if an image has several",
        )
    files = [ListedFile(*row) for row in zip(paths, labels, splits, strict=True)]
    if data.labels == "multiple":
        files = list(dict.fromkeys(files))
    files.sort(key=lambda file: (str(file.path), file.split or ""))
    return replace(_listing(path.stem, files, str(path), note, multiple), how=how, is_table=True)


def _united(paths: Sequence[Path], labels: Sequence[str]) -> list[str]:
    """All labels of a path for each of its rows."""
    found: dict[Path, set[str]] = defaultdict(set)
    for path, text in zip(paths, labels, strict=True):
        found[path].update(split(text))
    return [join(found[path]) for path in paths]
