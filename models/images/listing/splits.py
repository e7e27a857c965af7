"""Groups of images, and drawing validation and test images if the source has no split.

A split never separates the images of a group (a patient, a camera, a burst). Sides are drawn by a content hash.
"""

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from unfreeze.models.errors import UserError
from unfreeze.models.images.listing.rows import Listing
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
        paths = [os.path.relpath(file.path, folder).replace(os.sep, "/") for file in files]
        found = [re.search(data.group_pattern, path) for path in paths]
        files = tuple(file._replace(group=(match and match[1]) or "") for file, match in zip(files, found, strict=True))
    names = {file.group for file in files}
    if (data.group_pattern or data.group_column) and len(names) < 2:
        setting = "data.group_pattern" if data.group_pattern else "data.group_column"
        what = f"all images are in one group, {names.pop()!r}" if any(names) else "no image is in a group"
        example = f"; the first path is {paths[0]}" if data.group_pattern else ""
        raise UserError(f"{setting}: {what}{example}")
    return replace(listing, files=files)


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
    names = [file.group for file in listing.files]
    if not any(names):
        labels = {file.label for file in listing.files}
        inner = {file.path.parent.name for file in listing.files if file.split is None and not listing.is_table}
        inner = {name for name in inner - labels if part_of(name) is None}
        if len(inner) <= len(labels):
            return ""
        return (
            f"images are in {len(inner):,} folders inside the classes, such as {min(inner)}: if each is a patient or a "
            "burst, --data.group_pattern '([^/]+)/[^/]+$' keeps its images on one side of the split"
        )
    alone = names.count("")
    rest = f"; {alone:,} images are in none" if alone else ""
    return f"{len(set(filter(None, names))):,} groups, each on one side of the split{rest}"


def draw_sides(
    contents: Mapping[str, set[str]], valid_fraction: float, test_fraction: float, seed: int, earlier: Mapping[str, str]
) -> dict[str, Part]:
    """Draw content -> ``test`` or ``valid``, stratified by class.

    Parameters
    ----------
    contents
        Class -> hashes of its images.
    valid_fraction, test_fraction, seed, earlier
        See `models.images.pixels.index.build_index`.
    """
    drawn: dict[str, Part] = {}
    if test_fraction:
        drawn |= dict.fromkeys(_draw(contents, "test", test_fraction, 2, seed, earlier), "test")
    left = {label: distinct - drawn.keys() for label, distinct in contents.items()}
    return drawn | dict.fromkeys(_draw(left, "valid", valid_fraction, 1, seed, earlier), "valid")


def _draw(
    contents: Mapping[str, set[str]], side: Part, fraction: float, others: int, seed: int, earlier: Mapping[str, str]
) -> set[str]:
    """Draw one side's share of every class, leaving at least `others` contents per class if possible."""
    salt = f"{seed}:" if side == "valid" else f"{side}:{seed}:"

    def draw(content: str) -> tuple[int, bytes]:
        # Earlier sides are kept: contents that were on this side come first, training contents last.
        before = earlier.get(content)
        known = 1 if before is None else 0 if before == side else 2
        return known, _hashed(f"{salt}{content}")

    chosen: set[str] = set()
    for distinct in contents.values():
        wanted = max(1, round(fraction * len(distinct)))
        sides = Counter(earlier.get(content) for content in distinct)
        elsewhere = sum(sides.values()) - sides[side] - sides[None]
        # At least one content per side takes precedence.
        count = min(max(wanted, sides[side]), max(len(distinct) - elsewhere, 1), len(distinct) - others)
        chosen.update(sorted(distinct, key=draw)[: max(count, 0)])
    return chosen


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
