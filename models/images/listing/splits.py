"""Groups of images, and drawing validation and test images if the source has no split.

A split never separates the images of a group (a patient, a camera, a burst). Sides are drawn by a content hash.
"""

import hashlib
import os
import re
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from unfreeze.models.errors import UserError
from unfreeze.models.images.listing.rows import ListedFile, Listing, on_disk
from unfreeze.models.reading.labels import matrix_of
from unfreeze.models.reading.sampling import stratify
from unfreeze.models.reading.split_words import PARTS, Part, part_of
from unfreeze.models.settings import DataSpec
from unfreeze.models.store.paths import given_path


def grouped(listing: Listing, data: DataSpec) -> Listing:
    """Assign groups by `data.group_pattern`: the text that its parentheses match in each file's relative path.

    Raises
    ------
    UserError
        If no path matches, all images are in one group, or `data.group_column` is set for a source other than a table.
    """
    files = listing.files
    if data.group_column and not listing.is_table:
        raise UserError("data.group_column is a column of a table of images; set data.group_pattern for a folder")
    if data.group_pattern:
        source = os.path.abspath(given_path(data.source))
        folder = source if os.path.isdir(source) else os.path.dirname(source)
        if not os.path.exists(source):  # a named data set
            folder = os.path.commonpath([file.path for file in files])

        def below(file: ListedFile) -> str:
            return os.path.relpath(file.path, folder).replace(os.sep, "/")

        found = ((file, re.search(data.group_pattern, below(file))) for file in files)
        files = on_disk(file._replace(group=(match and match[1]) or "") for file, match in found)
        listing = replace(listing, files=files)
    names = listing.distinct("group")
    if (data.group_pattern or data.group_column) and len(names) < 2:
        setting = "data.group_pattern" if data.group_pattern else "data.group_column"
        what = f"all images are in one group, {names.pop()!r}" if any(names) else "no image is in a group"
        example = f"; the first path is {below(files[0])}" if data.group_pattern else ""
        raise UserError(f"{setting}: {what}{example}")
    return listing


def units_of(images: Iterable[tuple[str, str | None]]) -> dict[str, int]:
    """Number the units that a split keeps together: groups and copies; copies merge the groups that they are in.

    Parameters
    ----------
    images
        Content and group of each; an image without a group is a unit of its own.
    """
    pairs = [(f"content {content}", f"group {group}" if group else f"content {content}") for content, group in images]
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    place = {name: number for number, name in enumerate(names)}
    ends = np.array([[place[name] for name in pair] for pair in pairs], dtype=np.int64).reshape(-1, 2).T
    links = coo_array((np.ones(len(pairs), dtype=np.int8), (ends[0], ends[1])), shape=(len(names), len(names)))
    numbers = connected_components(links, directed=False)[1] if names else []
    return {content.removeprefix("content "): int(numbers[place[content]]) for content, _ in pairs}


def group_label(listing: Listing) -> str:
    """Describe the groups, or folders that look like groups; empty if there are neither."""
    groups = listing.distinct("group")
    if not any(groups):
        labels, inner = listing.distinct("label"), set[str]()
        if not listing.is_table:
            rows = listing.files.columns("path", "split")
            places = {os.path.dirname(path) for path, side in rows if side is None}
            inner = {os.path.basename(os.fsdecode(place)) for place in places}
        inner = {name for name in inner - labels if part_of(name) is None}
        if len(inner) <= len(labels):
            return ""
        return (
            f"images are in {len(inner):,} folders inside the classes, such as {min(inner)}: if each is a patient or a "
            "burst, --data.group_pattern '([^/]+)/[^/]+$' keeps its images on one side of the split"
        )
    alone = sum(not group for (group,) in listing.files.columns("group"))
    rest = f"; {alone:,} images are in none" if alone else ""
    return f"{len(groups - {''}):,} groups, each on one side of the split{rest}"


_PLACES: dict[str | None, int] = {part: place for place, part in enumerate(PARTS)}


def draw_sides(
    images: Iterable[tuple[str, str]],
    valid_fraction: float,
    test_fraction: float,
    seed: int,
    earlier: Mapping[str, str],
) -> Iterator[Part]:
    """Draw each image's side, stratified by class.

    Parameters
    ----------
    images
        Class and content of each; copies have one class.
    valid_fraction, test_fraction, seed, earlier
        See `models.images.pixels.index.build_index`.
    """
    classes: dict[str, int] = {}
    labels, before, salted = array("i"), array("b"), {"valid": bytearray(), "test": bytearray()}
    for label, content in images:
        labels.append(classes.setdefault(label, len(classes)))
        before.append(_PLACES.get(earlier.get(content), -1))
        salted["valid"] += _hashed(f"{seed}:{content}")
        if test_fraction:
            salted["test"] += _hashed(f"test:{seed}:{content}")
    if not labels:
        return
    # 16 bytes of hash sort like two big-endian numbers, which take less memory.
    hashed: dict[str, np.ndarray] = {name: np.frombuffer(each, ">u8").reshape(-1, 2) for name, each in salted.items()}
    first: np.ndarray | slice = slice(None)
    copy_of: np.ndarray | slice = slice(None)
    ordered = np.sort(hashed["valid"][:, 0])
    if (ordered[1:] == ordered[:-1]).any():  # copies; looking for them takes 60 bytes an image
        _, first, copy_of = np.unique(np.frombuffer(salted["valid"], "S16"), return_index=True, return_inverse=True)
    label_of, side_before = np.asarray(labels)[first], np.asarray(before)[first]
    sides = np.zeros(len(label_of), np.int8)
    for name, fraction, others in (("test", test_fraction, 2), ("valid", valid_fraction, 1)):
        place = _PLACES[name]
        for number in range(len(classes)) if fraction else ():
            rows = np.flatnonzero((label_of == number) & (sides == 0))
            sides[_draw(rows, side_before[rows], hashed[name][first][rows], place, fraction, others)] = place
    for place in sides[copy_of]:
        yield PARTS[place]


def _draw(
    rows: np.ndarray, before: np.ndarray, hashed: np.ndarray, side: int, fraction: float, others: int
) -> np.ndarray:
    """Draw one side's share of a class's rows, leaving at least `others` if possible."""
    wanted = max(1, round(fraction * len(rows)))
    kept, elsewhere = int((before == side).sum()), int(((before != side) & (before >= 0)).sum())
    # At least one content per side takes precedence.
    count = min(max(wanted, kept), max(len(rows) - elsewhere, 1), len(rows) - others)
    # Earlier sides are kept: contents that were on this side come first, training contents last.
    rank = np.where(before < 0, 1, np.where(before == side, 0, 2))
    drawn: np.ndarray = rows[np.lexsort((hashed[:, 1], hashed[:, 0], rank))[: max(count, 0)]]
    return drawn


def deal_sides(
    labels: Mapping[str, Sequence[str]],
    units: Mapping[str, int],
    valid_fraction: float,
    test_fraction: float,
    seed: int,
    earlier: Mapping[str, str],
) -> dict[str, Part]:
    """Draw content -> ``test`` or ``valid`` for multi-label or grouped images; see `stratify`.

    Parameters
    ----------
    labels
        Content -> its labels.
    units
        Content -> number of its unit; see `units_of`.
    valid_fraction, test_fraction, seed, earlier
        See `models.images.pixels.index.build_index`; images keep their earlier side, and train if they had several.
    """
    members: dict[int, list[str]] = defaultdict(list)
    for content in sorted(labels, key=lambda content: _hashed(f"{seed}:{content}")):
        members[units[content]].append(content)
    # Large groups first; small ones fill the gaps.
    dealt = sorted(members.values(), key=len, reverse=True)
    names = sorted({label for each in labels.values() for label in each})
    marks = np.array([matrix_of([labels[content] for content in each], names).sum(0) for each in dealt])
    sides = PARTS if test_fraction else PARTS[:2]
    # As above, the validation share is of the images left by the test.
    valid = valid_fraction * (1 - test_fraction)
    shares = [1 - valid - test_fraction, valid, test_fraction][: len(sides)]
    before = [{sides.index(earlier[each]) for each in unit if earlier.get(each) in sides} for unit in dealt]
    fixed = np.array([min(each, default=-1) for each in before], dtype=np.int64)
    found = stratify(marks, shares, fixed, np.array([len(each) for each in dealt]))
    return {content: sides[side] for unit, side in zip(dealt, found, strict=True) if side for content in unit}


def _hashed(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
