"""Images that belong together, such as those of a patient, a camera or a burst: no split parts them."""

import os
import re
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from unfreeze.models.errors import UserError
from unfreeze.models.images.listing.rows import Listing
from unfreeze.models.reading.split_words import part_of
from unfreeze.models.settings import DataSpec
from unfreeze.models.store.paths import given_path


def grouped(listing: Listing, data: DataSpec) -> Listing:
    """The listing with groups of `data.group_pattern`: what its parentheses match of each file's path in the source.

    Raises
    ------
    UserError
        If no path matches, all images are in one group, or `data.group_column` is set and the source is no table.
    """
    files = listing.files
    if data.group_column and not listing.is_table:
        raise UserError("data.group_column is a column of a table of images; set data.group_pattern for a folder")
    if data.group_pattern:
        source = os.path.abspath(given_path(data.source))
        folder = source if os.path.isdir(source) else os.path.dirname(source)
        if not os.path.exists(source):  # a data set by name
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
    """Content -> number of what stays together: images of one group, and copies, whose groups are then one.

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
    """How many groups there are, for people, or what looks as if it were groups; empty where there is neither."""
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
