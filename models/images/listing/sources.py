"""Image sources: labelled for training, unlabelled for prediction."""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from unfreeze.models.errors import UserError
from unfreeze.models.images.listing.data_sets import DATA_SETS, torchvision_images, write_digits
from unfreeze.models.images.listing.folder_files import files_below, may_be_image
from unfreeze.models.images.listing.layouts import LAYOUTS, Place, drawn_validation, read_layout
from unfreeze.models.images.listing.packed import ARCHIVES, packed_files
from unfreeze.models.images.listing.path_tables import TABLES, PathTable, shortened
from unfreeze.models.images.listing.rows import ListedFile, Listing, on_disk
from unfreeze.models.images.listing.table_columns import find_paths, find_split_column, split_in_paths, table_labels
from unfreeze.models.reading.labels import join, spelled_differently, split
from unfreeze.models.reading.remote import file_system, is_url
from unfreeze.models.reading.split_words import PARTS, Part, part_of, split_word_in
from unfreeze.models.settings import DataSpec
from unfreeze.models.settings.predict import Predict
from unfreeze.models.store.paths import given_path, irregular_kind
from unfreeze.models.store.rows_on_disk import OnDisk


@dataclass(frozen=True)
class Unlabelled:
    """Images to predict, in a fixed order."""

    names: Sequence[str]
    """Name of each image in the predictions: the path as written in the table, otherwise the full path."""
    files: Sequence[str]
    """Absolute paths; empty if a table has none."""
    understood: str
    """One-line summary, such as ``24 files in 2 folders``."""


def resolve_source(data: DataSpec, downloads: Path) -> Listing:
    """List the images and labels of `data.source`.

    `digits` is always the bundled set; otherwise an existing file or folder takes precedence over a data set of that
    name. Digits and torchvision data sets each get a folder in `downloads`.

    Raises
    ------
    UserError
        If the source is of no supported kind, is empty or has fewer than two classes; if a table has missing columns,
        values or files; or if a download fails.
    """
    check_source(data.source)
    # Absolute, because the listing outlives the working directory in a stored index.
    downloads = downloads.absolute()
    if data.source == "digits":
        return _list_folder(write_digits(downloads / "digits"), "digits", data)
    path = _absolute(data.source)
    if path.is_dir():
        return _list_folder(path, path.name, data)
    if path.is_file():
        return _list_table(PathTable(path), path.stem, data)
    found = torchvision_images(data.source, downloads / data.source)
    if isinstance(found, Path):
        return _list_folder(found, data.source, data)
    files = sorted((ListedFile(*file) for file in found), key=lambda file: (file.split or "", str(file.path)))
    split_by = "split as the data set is" if any(file.split for file in files) else "split at random"
    return _listing(data.source, files, str(downloads / data.source), split_by)


def check_source(source: str) -> None:
    """Check that a source exists, without listing its files.

    Raises
    ------
    UserError
        If it does not; lists the kinds of sources.
    """
    if is_url(source):
        file_system(source)
        return
    path = _absolute(source)
    is_table = path.is_file() and (path.suffix.lower() in TABLES or bool(packed_files(path)))
    is_data_set = source == "digits" or (source in DATA_SETS and not path.exists())
    if is_data_set or is_table or path.is_dir():
        return
    kind = irregular_kind(path) or f"a file of type {path.suffix or 'unknown'}"
    what = f"is {kind}" if path.exists() else f"does not exist in {Path.cwd()}"
    raise UserError(
        f"data.source {source!r} {what}. A source is one of: `digits`; a folder with a folder of images per "
        f"class; a folder with train/ and valid/ of such folders; a table ({', '.join(TABLES)}) with a "
        f"column of paths and one of labels; shards or an archive ({', '.join(ARCHIVES)}) of images; a URL of any "
        f"of these; or a torchvision data set: {', '.join(DATA_SETS)}."
    )


def list_unlabelled(params: Predict, downloads: Path, without: Collection[Path] = ()) -> Unlabelled:
    """List images to predict without opening any; raises a `UserError` for a missing or empty source.

    Parameters
    ----------
    params
        Names the source: a folder (recursive, without hidden files), one image, a table of paths or ids, or `digits`
        (written to a folder in `downloads` if necessary).
    without
        Files and folders to skip, such as the predictions themselves.
    """
    source, skipped = params.source, set[str]()
    path = _absolute(source)
    if source == "digits":
        path = write_digits(downloads.absolute() / "digits")
    if path.is_dir():
        files = _paths_on_disk(files_below(path, {os.path.abspath(each) for each in without}, skipped))
        if not files:
            raise UserError(f"source: there is no file in {path}; give a folder of images")
        folders = len(set(map(os.path.dirname, files)))
        said = f"{len(files):,} files in {folders:,} {'folder' if folders == 1 else 'folders'}"
        if skipped:
            said += f"; system files and thumbnails are skipped: {shortened(sorted(skipped))}"
        return Unlabelled(OnDisk(files.table, _printable), files, said)
    if not path.is_file():
        kind = irregular_kind(path)
        what = f"is {kind}" if kind is not None else f"does not exist in {Path.cwd()}"
        raise UserError(
            f"source: {source!r} {what}. A source is one of: a folder of images; an image; "
            f"a file of paths ({', '.join(TABLES)}); or `digits`."
        )
    if path.suffix.lower() not in TABLES:
        return Unlabelled([_printable(os.fsencode(path))], [str(path)], "1 file")
    _, names, found, how = find_paths(PathTable(path), params)
    if not names:
        raise UserError(f"source: {path} has no rows")
    said = f"{len(names):,} rows{how and f'; {how}'}"
    return Unlabelled(names, [str(file) if name else "" for name, file in zip(names, found, strict=True)], said)


def _absolute(source: str) -> Path:
    return Path(os.path.abspath(given_path(source)))


def _paths_on_disk(paths: Iterable[str]) -> OnDisk[str]:
    return OnDisk.of(((os.fsencode(path),) for path in paths), pa.schema([("path", pa.binary())]), os.fsdecode)


def _printable(path: bytes) -> str:
    """The path as valid text, even if its name is not UTF-8."""
    return path.decode("utf-8", "backslashreplace")


def _listing(
    name: str,
    files: Iterable[ListedFile | tuple[bytes, str, Part | None, str]],
    place: str,
    split_by: str,
    note: str | None = None,
    multiple: bool = False,
) -> Listing:
    listing = Listing(name, on_disk(files), split_by, note, multiple)
    labels = sorted(listing.distinct("label"))
    if len(labels) < 2:
        what = "the same labels for every image" if multiple else "only the class"
        found = f"{what} {labels[0]!r}" if labels else "no files"
        raise UserError(f"{place} holds {found}, but at least two classes are needed: a folder or label for each.")
    if clashes := spelled_differently(label for text in labels for label in (split(text) if multiple else [text])):
        raise UserError(
            f"{place} has the labels {shortened(map(repr, clashes[0]))}, which differ in case, blanks or hyphens only; "
            "write them in one way"
        )
    for (path,) in listing.files.columns("path"):
        try:
            path.decode()
        except UnicodeDecodeError:
            raise UserError(f"the file name {os.fsdecode(path)!r} is not valid UTF-8; rename the file") from None
    return listing


# --- folders

_SEPARATOR = os.sep.encode()
_METADATA = {"metadata", "_classes"}
"""Usual names, without suffix, of tables beside a data set's images."""


def _list_folder(folder: Path, name: str, data: DataSpec) -> Listing:
    skipped: set[str] = set()
    files = _paths_on_disk(files_below(folder, skipped=skipped))
    tables, first, counts = [], dict[str, str](), dict[str, int]()
    for file in files:
        if file.lower().endswith(TABLES):
            tables.append(Path(file))
        if may_be_image(file):
            place = file.rpartition(os.sep)[0]
            counts[place] = counts.get(place, 0) + 1
            first.setdefault(place, file)
    table, split_by = _table_inside(folder, counts, tables, data)
    names = shortened(str(each.relative_to(folder)) for each in (table.paths if table else tables))
    if table is not None:
        listing = _list_table(table, name, data, split_by)
        return replace(listing, note="; ".join(filter(None, (listing.note, f"labels are read from {names}"))))
    places = [Place(first[place], count) for place, count in counts.items()]
    layout = read_layout(folder, len(files), places, skipped, data.class_folder)
    remarks = [*layout.remarks, *([f"not read: {names}"] if tables else [])]
    labels = {os.fsencode(place): label for place, label in layout.labelled.items()}
    paths = (path for (path,) in files.columns("path"))
    labelled = ((path, *labels[place], "") for path in paths if (place := path.rpartition(_SEPARATOR)[0]) in labels)
    return _listing(name, labelled, str(folder), layout.split_by, "; ".join(remarks) or None)


def _table_inside(
    folder: Path, places: Collection[str], tables: Sequence[Path], data: DataSpec
) -> tuple[PathTable | None, str]:
    """Find the table that labels a folder's images, and the split if there is a table per split.

    It is a table with a usual name, or the only table if no folder can be a class.

    Raises
    ------
    UserError
        If there are several tables and no class folders.
    """
    tables = [table for table in tables if "submission" not in table.stem.casefold()]  # Kaggle's sample submissions
    named = [table for table in tables if table.stem.casefold() in _METADATA]
    if parts := _parts_by_name({table: table.parent.name for table in named}):
        return PathTable(folder, parts), f"split by the folders {shortened(table.parent.name for table in parts)}"
    below = (Path(place).relative_to(folder).parts for place in places)
    classes = {tuple(name for name in names if split_word_in(name) is None) for names in below}
    if len(named) == 1 and (len(classes) < 2 or data.label_column in PathTable(named[0]).names):
        return PathTable(named[0]), ""
    parts = _parts_by_name({table: table.stem for table in tables}) if len(classes) < 2 else {}
    if parts and len({tuple(sorted(PathTable(table).names)) for table in parts}) == 1:
        return PathTable(folder, parts), f"split by the tables {shortened(table.name for table in parts)}"
    if len(classes) < 2 and len(tables) > 1:
        found = shortened(str(table.relative_to(folder)) for table in tables)
        raise UserError(
            f"{folder} has no folders of classes, but the tables {found}; give one as the source. {LAYOUTS}."
        )
    return (PathTable(tables[0]) if len(classes) < 2 and tables else None), ""


def _parts_by_name(names: Mapping[Path, str]) -> dict[Path, Part]:
    """Table -> split, in the order of splits, if each name states a different one, train and at least one more."""
    words = {table: word.part for table, name in names.items() if (word := split_word_in(name)) is not None}
    if len(words) == len(names) == len(set(words.values())) and {"train"} < set(words.values()):
        return {table: part for part in PARTS for table, each in words.items() if each == part}
    return {}


# --- tables


def _list_table(table: PathTable, name: str, data: DataSpec, split_by: str = "") -> Listing:
    column, names, paths, found = find_paths(table, data)
    table.reject_rows((row for row, cell in enumerate(names) if not cell), f"empty {column!r}")
    data = data.model_copy(update={"path_column": column, "split_column": find_split_column(table, data)})
    labels, multiple, how, unused = table_labels(table, data)
    splits, drawn = table.splits, ""
    if data.split_column:
        cells = table.columns([data.split_column], "data.split_column")[data.split_column]
        table.reject_rows((row for row, cell in enumerate(cells) if not cell), f"empty {data.split_column!r}")
        splits = [part_of(cell) for cell in cells]
        wrong = (row for row, part in enumerate(splits) if part is None)
        table.reject_rows(wrong, f"{data.split_column!r} is neither `train` nor `valid` nor `test`")
        split_by = f"split by the column {data.split_column}"
    elif not any(splits):
        in_paths, folders = split_in_paths(table, paths)
        if in_paths:
            splits, split_by = list(in_paths), f"split by the folders {shortened(folders)}"
    missing = {"train", "valid"} - set(splits) if split_by and paths else set()
    if missing == {"valid"} and "test" in splits:
        splits = [None if part == "train" else part for part in splits]
        drawn = drawn_validation("`test`")
    elif missing:
        raise UserError(f"{table.path}: no row has {min(missing)!r} in column {data.split_column!r}")
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
    groups = [""] * len(paths)
    if data.group_column:
        groups = table.columns([data.group_column], "data.group_column")[data.group_column]
    files = [ListedFile(*row) for row in zip(paths, labels, splits, groups, strict=True)]
    if data.labels == "multiple":
        files = list(dict.fromkeys(files))
    files.sort(key=lambda file: (str(file.path), file.split or ""))
    note = "; ".join(filter(None, (drawn, found, unused))) or None
    listing = _listing(name, files, str(table.path), split_by or "split at random", note, multiple)
    return replace(listing, how=how, is_table=True)


def _united(paths: Sequence[Path], labels: Sequence[str]) -> list[str]:
    """For each row, all labels of its path."""
    found: dict[Path, set[str]] = defaultdict(set)
    for path, text in zip(paths, labels, strict=True):
        found[path].update(split(text))
    return [join(found[path]) for path in paths]
