"""Labelled files of a source before any is opened; excluded images and copies in several class folders."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from unfreeze.models.errors import UserError
from unfreeze.models.images.listing.path_tables import shortened
from unfreeze.models.reading.labels import SEPARATOR, Labels, join, split
from unfreeze.models.reading.split_words import Part
from unfreeze.models.store.paths import given_path

_MOST_NAMED = 6
FEWEST, SHARE = 10, 0.25
"""Minimum number and share of images in several class folders that count as intended."""


class ListedFile(NamedTuple):
    """One image of a source; `split` is None if it is to be drawn.

    Several labels are joined into one text; see `unfreeze.models.reading.labels.join`.
    """

    path: Path
    label: str
    split: Part | None
    group: str = ""
    """Group, such as a patient; see `unfreeze.models.images.listing.splits`."""


@dataclass(frozen=True)
class Listing:
    """Sorted files of a source, before any is opened."""

    name: str
    files: tuple[ListedFile, ...]
    """Sorted by path relative to the source (tables: by path). Apart from test files, all or none have a split."""
    split_by: str = "split at random"
    """Origin of the split, such as ``split by the folders train, valid``."""
    note: str | None = None
    """Remarks on surprising interpretations of the source."""
    multiple: bool = False
    """Whether an image may have any number of labels."""
    how: str = ""
    """How labels were interpreted; empty if obvious."""
    is_table: bool = False

    @property
    def told(self) -> str:
        """One-line summary with all remarks."""
        return "; ".join(filter(None, (self.understood, self.note, self.how)))

    @property
    def understood(self) -> str:
        """One-line summary, such as ``3 classes, split by the folders train, valid: bird, cat, dog``."""
        labels = sorted(
            {label for file in self.files for label in (split(file.label) if self.multiple else [file.label])}
        )
        kind = "labels, any number per image" if self.multiple else "classes"
        return f"{len(labels):,} {kind}, {self.split_by}: {shortened(labels, _MOST_NAMED)}"


def without_excluded(listing: Listing, excluded: str | None) -> tuple[Listing, str]:
    """Exclude the images listed in a text file, one path per line; return the listing and a remark.

    Relative paths start at the file's folder. Paths not in the listing are ignored, because the image may be gone.

    Raises
    ------
    UserError
        If the file cannot be read, or fewer than two classes are left.
    """
    if excluded is None:
        return listing, ""
    file = given_path(excluded)
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UserError(
            f"data.exclude: cannot read {excluded}: {reason}; give a text file with a path a line"
        ) from error
    place = file.resolve().parent
    wanted = {os.path.abspath(place / line) for line in lines if line}
    kept = tuple(each for each in listing.files if os.path.abspath(each.path) not in wanted)
    if len({each.label for each in kept}) < 2:
        raise UserError(f"data.exclude: {excluded} leaves fewer than two classes of {listing.name}")
    left_out = len(listing.files) - len(kept)
    note = f"{left_out:,} images are left out by {excluded}"
    if left_out < len(wanted):
        note += f", which lists {len(wanted) - left_out:,} more that are not there"
    return replace(listing, files=kept), note


def unite_copies(listing: Listing, hashes: Sequence[str], labels: Labels) -> tuple[Listing, list[str]]:
    """Merge copies of an image in several class folders into one multi-label image.

    Applies if `labels` asks for it, or if at least ten images and a quarter of all are in several folders. Not for
    tables, whose rows name all labels of an image.

    Parameters
    ----------
    listing, hashes
        Files, and content hashes; the hash of an unreadable file is empty.
    labels
        See `data.labels`.

    Returns
    -------
    tuple
        The listing and its hashes, with each content once per side of the source's own split.

    Raises
    ------
    UserError
        If a folder's name cannot be a label.
    """
    if labels == "single" or listing.is_table:
        return listing, list(hashes)
    found: dict[tuple[str, str | None], list[str]] = defaultdict(list)
    for file, content in zip(listing.files, hashes, strict=True):
        # Unreadable files are never copies of each other.
        found[content or str(file.path), file.split].append(file.label)
    shared = sum(len(set(each)) > 1 for each in found.values())
    if labels == "auto" and (shared < FEWEST or shared < SHARE * len(found)):
        return listing, list(hashes)
    if wrong := sorted({file.label for file in listing.files if SEPARATOR in file.label}):
        raise UserError(
            f"{listing.name}: the folder {wrong[0]!r} holds {SEPARATOR!r}, which separates labels; rename it"
        )
    files: dict[tuple[str, str | None], tuple[ListedFile, str]] = {}
    for file, content in zip(listing.files, hashes, strict=True):
        key = (content or str(file.path), file.split)
        files.setdefault(key, (file._replace(label=join(found[key])), content))
    how = (
        f"any number of labels per image: {shared:,} of {len(found):,} images are in several class folders; "
        "`--data.labels single` rejects those"
    )
    kept = [file for file, _ in files.values()]
    return replace(listing, files=tuple(kept), multiple=True, how=how), [content for _, content in files.values()]
