"""Interpretation of a source's folders as splits, classes or wrappers."""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from unfreeze.models.errors import UserError
from unfreeze.models.images.listing.folder_files import is_system_name
from unfreeze.models.images.listing.path_tables import shortened
from unfreeze.models.reading.labels import spelled_differently, spelling_key
from unfreeze.models.reading.split_words import PARTS, Part, SplitWord, part_of, split_word_in
from unfreeze.models.settings.images import ClassFolder

LAYOUTS = (
    "Layouts that are understood: CLASS/image; train/CLASS/image and valid/CLASS/image, perhaps with test/ (or longer "
    "names such as seg_train); CLASS/train/image and CLASS/valid/image; a table of image paths and labels as the source"
)
_FOLDS = re.compile(r"(k?[ _-]?fold|batch|part|chunk|shard|split|cv)[ _-]?\d+", re.IGNORECASE)


class Layout(NamedTuple):
    """Interpretation of a source's folders.

    Attributes
    ----------
    labelled
        Folder with images -> the class and, if the folders define one, the split of all of its files. Those that are
        not images are among them, so they are reported as unusable.
    split_by
        See `Listing.split_by`.
    remarks
        Remarks on what was left out or guessed.
    """

    labelled: dict[str, tuple[str, Part | None]]
    split_by: str
    remarks: list[str]


class Place(NamedTuple):
    """A folder's number of images, and the first of them."""

    first: str
    images: int


class _Row(NamedTuple):
    folders: tuple[str, ...]
    """Folders below the source, outermost first, without wrappers."""
    place: Place
    part: Part | None = None


def read_layout(
    folder: Path, files: int, places: Iterable[Place], skipped: Collection[str], class_folder: ClassFolder
) -> Layout:
    """Read labels and split from the folders of a source.

    Wrappers are dropped first (a folder named like its parent, or one that holds all the others). Then the level whose
    names are split words is found, outside or inside the class folders. The remaining folders name the classes.

    Parameters
    ----------
    folder
        The source.
    files, skipped
        Number of files that `files_below` finds, and names that it skips.
    places
        Folders with images, sorted by their first image.
    class_folder
        See `data.class_folder`.

    Raises
    ------
    UserError
        If there are no class folders or the layout is ambiguous; lists the supported layouts.
    """
    rows = [_Row(_below(folder, os.path.dirname(place.first)), place) for place in places]
    if not rows:
        raise _refusal(folder, f"holds {files:,} files, but no images" if files else "is empty")
    remarks = [f"system files and thumbnails are skipped: {shortened(sorted(skipped))}"] if skipped else []
    remarks += _empty_folders(folder, rows, skipped)
    inside = [row for row in _without_wrappers(rows) if row.folders]
    if not inside:
        raise _refusal(folder, f"has {_images(rows):,} images but no folders of classes")
    remarks += _left_out(folder, rows, inside, "beside the folders of classes")
    in_split, names = _split(folder, inside)
    remarks += _left_out(folder, inside, in_split, "in folders that are no part of the split")
    rows = _with_class_folders(folder, in_split)
    remarks += _left_out(folder, in_split, rows, "without a class folder (`unfreeze predict` takes them)")
    rows, split_by, drawn = _drawn(rows, names)
    classes, guessed = _classes(folder, rows, class_folder)
    remarks = [*drawn, *guessed, *remarks]
    labels = _spelled_alike(folder, rows, classes, remarks)
    labelled = {os.path.dirname(row.place.first): (label, row.part) for row, label in zip(rows, labels, strict=True)}
    return Layout(labelled, split_by, remarks)


def _images(rows: Iterable[_Row]) -> int:
    return sum(row.place.images for row in rows)


def _refusal(folder: Path, problem: str) -> UserError:
    return UserError(f"{folder} {problem}. {LAYOUTS}.")


def _below(folder: Path, place: str) -> tuple[str, ...]:
    """Folders from a source down to `place`; a folder named like its parent is dropped."""
    names = Path(place).relative_to(folder).parts
    return names[:1] + tuple(name for outer, name in pairwise(names) if name.casefold() != outer.casefold())


def _empty_folders(folder: Path, rows: Sequence[_Row], skipped: Collection[str]) -> list[str]:
    there = {os.path.relpath(os.path.dirname(row.place.first), folder).split(os.sep)[0] for row in rows}
    there |= set(skipped)
    empty = sorted(each.name for each in folder.iterdir() if each.is_dir() and each.name not in there)
    for name in empty:
        if (part := part_of(name)) is not None:
            raise UserError(f"{folder} has no class folder with images for {part}: fill or remove {name}/.")
    named = [f"{name}/" for name in empty if not is_system_name(name)]
    return [f"no images in {shortened(named)}"] if named else []


def _without_wrappers(rows: Sequence[_Row], classes: Collection[str] = ()) -> list[_Row]:
    """Drop an outer folder that holds all the others, unless it is a class or a split."""
    outer = {row.folders[0] for row in rows if row.folders}
    if len(outer) != 1 or part_of(*outer) or outer & set(classes) or max(len(row.folders) for row in rows) == 1:
        return list(rows)
    return _without_wrappers([row._replace(folders=row.folders[1:]) for row in rows if row.folders], classes)


def _left_out(folder: Path, before: Sequence[_Row], after: Sequence[_Row], where: str) -> list[str]:
    kept = {row.place for row in after}
    gone = [row for row in before if row.place not in kept]
    if not gone:
        return []
    return [f"left out: {_images(gone):,} images {where}, such as {os.path.relpath(gone[0].place.first, folder)}"]


# --- the split


def _split(folder: Path, rows: list[_Row]) -> tuple[list[_Row], list[str]]:
    """Assign splits to rows and drop the folders that name them; also return those names."""
    outer = _outer_parts(folder, rows)
    levels = [0] if outer else []
    levels += [level for level in range(1, min(len(row.folders) for row in rows)) if _is_split(rows, level)]
    if len(levels) > 1:
        raise _refusal(folder, "has folders of a split inside folders of a split; give one of them as the source")
    if levels:
        level = levels[0]
        rows = [row for row in rows if level or row.folders[0] in outer]
        kept = [row._replace(folders=row.folders[:level] + row.folders[level + 1 :]) for row in rows]
    elif _names_class_and_split(rows):
        level, kept = 0, [row._replace(folders=(_word_in(row.folders[0]).rest,)) for row in rows]
    else:
        return rows, []
    names = [row.folders[level] for row in rows]
    parts = [_word_in(name).part for name in names]
    ordered = sorted(set(names), key=lambda name: (PARTS.index(_word_in(name).part), name))
    return [row._replace(part=part) for row, part in zip(kept, parts, strict=True)], ordered


def _drawn(rows: list[_Row], names: Sequence[str]) -> tuple[list[_Row], str, list[str]]:
    """Clear the split of rows whose validation images must be drawn; also return the split's source and remarks."""
    parts = {row.part for row in rows}
    used = [name for name in names if _word_in(name).part in parts]
    said = f"split by the folders {shortened(used)}"
    if "valid" in parts or not names:
        return rows, said if names else "split at random", []
    rows = [row._replace(part=None) if row.part == "train" else row for row in rows]
    if "test" not in parts:
        return rows, f"split at random, from the folder {shortened(used)}", []
    return rows, said, [drawn_validation(shortened(f"{name}/" for name in used if _word_in(name).part == "test"))]


def drawn_validation(test: str) -> str:
    """Explain how a source with a test but no validation split is used."""
    return f"{test} only tests the final model; the validation rows are drawn from the training ones at random"


def _word_in(name: str) -> SplitWord:
    word = split_word_in(name)
    assert word is not None
    return word


def _outer_parts(folder: Path, rows: Sequence[_Row]) -> dict[str, Part]:
    """Outermost folders that name splits; empty if they are classes.

    A longer name (``seg_train``) names a split only if others beside it do, and all folders that hold classes do.
    """
    names = sorted({row.folders[0] for row in rows})
    nested = {row.folders[0] for row in rows if len(row.folders) > 1}
    words = {name: word for name in names if (word := split_word_in(name)) is not None}
    exact = [name for name in words if part_of(name) is not None]
    parts = {name: word.part for name, word in words.items()}
    others = [name for name in names if name not in parts]
    if not exact:
        is_like_others = not others or len({word.rest for word in words.values()}) == 1
        is_split = {"train"} < set(parts.values()) and nested and nested <= set(parts) and is_like_others
        if not is_split:
            return {}
    elif len(exact) == 1 and len(names) > 2 and not nested and parts[exact[0]] == "train":
        return {}  # a class, beside cars and buses
    for part in PARTS:
        same = [name for name in names if parts.get(name) == part]
        if len(same) > 1:
            raise UserError(f"{folder}: {same[0]}/ and {same[1]}/ both mean {part}; merge them, or rename one.")
    found = set(parts.values())
    if "train" in found and ("valid" in found or not nested & set(others)):
        return parts
    raise UserError(
        f"{folder} has {shortened(f'{name}/' for name in names)}: {shortened(f'{name}/' for name in parts)} would be "
        "part of a split, which needs train/ and valid/ (or val/, validation/, dev/) with a folder per class in each; "
        "add the missing folder, give one of them as the source to split it at random, or rename a folder that is a "
        f"class. {LAYOUTS}."
    )


def _is_split(rows: Sequence[_Row], level: int) -> bool:
    """Whether all folders at a level name splits, each split once per parent folder."""
    places = {row.folders[: level + 1] for row in rows if len(row.folders) > level}
    words = [(place[:-1], split_word_in(place[-1])) for place in places]
    parts = [(place, word.part) for place, word in words if word is not None]
    return len(parts) == len(words) == len(set(parts)) and {"train"} < {part for _, part in parts}


def _names_class_and_split(rows: Sequence[_Row]) -> bool:
    """Whether the folders are named ``cat_train``, ``cat_valid``, ``dog_train`` and so on."""
    words = {split_word_in(row.folders[0]) for row in rows}
    if None in words or any(len(row.folders) > 1 for row in rows):
        return False
    parts: dict[str, set[Part]] = defaultdict(set)
    for word in words:
        if word is not None:
            parts[word.rest].add(word.part)
    return "" not in parts and len(parts) > 1 and all({"train"} < each for each in parts.values())


# --- the classes


def _with_class_folders(folder: Path, rows: Sequence[_Row]) -> list[_Row]:
    """Keep rows in class folders; drops unlabelled test rows, whether flat or in a placeholder folder."""
    kept: list[_Row] = []
    for part in sorted({row.part for row in rows}, key=lambda part: PARTS.index(part or "train")):
        known = {row.folders[0] for row in kept}
        inside = _without_wrappers([row for row in rows if row.part == part], known)
        labelled = [row for row in inside if row.folders]
        names = {row.folders[0] for row in labelled}
        if not known and not labelled:
            raise _refusal(folder, f"has {_images(inside):,} images for {part} but no folders of classes for them")
        is_unknown = known and len(names) == 1 and not {*map(spelling_key, names)} & {*map(spelling_key, known)}
        kept += [] if is_unknown else labelled  # such as test/unknown/1.jpg
    words = {row.folders[0]: split_word_in(row.folders[0]) for row in kept}
    if all((word := words[row.folders[0]]) and word.part == row.part and word.rest for row in kept):
        return [row._replace(folders=(_word_in(row.folders[0]).rest, *row.folders[1:])) for row in kept]
    return kept


def _classes(folder: Path, rows: Sequence[_Row], class_folder: ClassFolder) -> tuple[list[str], list[str]]:
    """Class of every row, and remarks."""
    if class_folder == "path":
        return ["-".join(row.folders) for row in rows], []
    if class_folder == "inner":
        return [row.folders[-1] for row in rows], []
    outer = [row.folders[0] for row in rows]
    inside: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        inside[row.folders[0]].add(row.folders[1] if len(row.folders) > 1 else "")
    several = {name: names for name, names in inside.items() if "" not in names and len(names) > 1}
    nested = sorted({name for names in inside.values() for name in names} - {""})
    if class_folder == "outer" or not nested:
        return outer, []
    shared = [name for name in nested if sum(name in names for names in inside.values()) > 1]
    if (
        several.keys() == inside.keys()
        and all(_FOLDS.fullmatch(name) for name in inside)
        and len(shared) > 1
        and all(row.part is None and len(row.folders) == 2 for row in rows)
    ):
        return [row.folders[1] for row in rows], [f"the folders {shortened(sorted(inside), 3)} are put together"]
    # Purely numeric names that repeat everywhere may be the classes of several sites.
    is_numbers = len(several) > 1 and len(shared) == len(nested) and all(name.isdecimal() for name in nested)
    if all(_is_series(names) for names in several.values()) and not is_numbers:
        return outer, [f"folders inside those of the classes do not count: {shortened(nested, 3)}"]
    name, names = next(iter(sorted(several.items())))
    raise _refusal(
        folder,
        f"has folders in {name}/ that could be classes as well: {shortened(sorted(names), 4)}. Set data.class_folder: "
        f"`outer` takes {name!r} as the class, `inner` {min(names)!r}, `path` '{name}-{min(names)}'",
    )


def _is_series(names: Iterable[str]) -> bool:
    """Whether names differ only in numbers, like dates, batches and patients."""
    return len({re.sub(r"[\W\d_]+", "", name).casefold() for name in names}) == 1


def _spelled_alike(folder: Path, rows: Sequence[_Row], classes: Sequence[str], remarks: list[str]) -> list[str]:
    """Spell classes as in the training split, if other splits' folders differ only in case or blanks.

    Raises
    ------
    UserError
        If two folders of the same split differ only in that way.
    """
    for part in {row.part for row in rows}:
        of_part = {label for row, label in zip(rows, classes, strict=True) if row.part == part}
        if clashes := spelled_differently(of_part):
            raise _refusal(
                folder,
                f"has the folders {shortened(map(repr, clashes[0]))}, which differ in case, blanks or hyphens only; "
                "merge them, or rename one",
            )
    by_part = sorted(zip(rows, classes, strict=True), key=lambda each: PARTS.index(each[0].part or "train"))
    first = {spelling_key(label): label for _, label in reversed(by_part)}
    for clash in spelled_differently(classes):
        remarks.append(
            f"the folders {shortened(map(repr, clash))} are the class {first[spelling_key(clash[0])].strip()!r}"
        )
    return [first[spelling_key(label)].strip() for label in classes]
