"""Labelled files of a source before any is opened; excluded images and copies in several class folders."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from unfreeze.models.errors import UserError
from unfreeze.models.images.listing.path_tables import shortened
from unfreeze.models.reading.labels import SEPARATOR, Labels, join, split
from unfreeze.models.reading.split_words import Part
from unfreeze.models.store.content import repeated
from unfreeze.models.store.paths import given_path
from unfreeze.models.store.rows_on_disk import OnDisk, texts_on_disk

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


_SCHEMA = pa.schema([("path", pa.binary()), ("label", pa.string()), ("split", pa.string()), ("group", pa.string())])


def on_disk(files: Iterable[ListedFile | tuple[bytes, str, Part | None, str]]) -> OnDisk[ListedFile]:
    """Move files to disk; a path may be encoded."""
    return OnDisk.of(((os.fsencode(path), *others) for path, *others in files), _SCHEMA, _listed)


def _listed(path: bytes, label: str, split: Part | None, group: str) -> ListedFile:
    return ListedFile(Path(os.fsdecode(path)), label, split, group)


@dataclass(frozen=True)
class Listing:
    """Sorted files of a source, before any is opened."""

    name: str
    files: OnDisk[ListedFile]
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

    def distinct(self, column: str) -> set[Any]:
        """Distinct values of ``label``, ``split`` or ``group``."""
        return set(pc.unique(self.files.table[column]).to_pylist())

    @property
    def told(self) -> str:
        """One-line summary with all remarks."""
        return "; ".join(filter(None, (self.understood, self.note, self.how)))

    @property
    def understood(self) -> str:
        """One-line summary, such as ``3 classes, split by the folders train, valid: bird, cat, dog``."""
        texts = self.distinct("label")
        labels = sorted({label for text in texts for label in split(text)} if self.multiple else texts)
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
    kept = on_disk(each for each in listing.files if os.path.abspath(each.path) not in wanted)
    left = replace(listing, files=kept)
    if len(left.distinct("label")) < 2:
        raise UserError(f"data.exclude: {excluded} leaves fewer than two classes of {listing.name}")
    left_out = len(listing.files) - len(kept)
    note = f"{left_out:,} images are left out by {excluded}"
    if left_out < len(wanted):
        note += f", which lists {len(wanted) - left_out:,} more that are not there"
    return left, note


def unite_copies(listing: Listing, hashes: Sequence[str], labels: Labels) -> tuple[Listing, Sequence[str]]:
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
        return listing, hashes
    # Unreadable files are never copies of each other.
    several = repeated(hashes)
    found: dict[tuple[str, str | None], list[str]] = defaultdict(list)
    alone = 0
    for (label, part), content in zip(listing.files.columns("label", "split"), hashes, strict=True):
        if content in several:
            found[content, part].append(label)
        else:
            alone += 1
    shared, total = sum(len(set(each)) > 1 for each in found.values()), alone + len(found)
    if labels == "auto" and (shared < FEWEST or shared < SHARE * total):
        return listing, hashes
    if wrong := sorted(label for label in listing.distinct("label") if SEPARATOR in label):
        raise UserError(
            f"{listing.name}: the folder {wrong[0]!r} holds {SEPARATOR!r}, which separates labels; rename it"
        )

    def kept() -> Iterator[tuple[ListedFile, str]]:
        seen = set[tuple[str, str | None]]()
        for file, content in zip(listing.files, hashes, strict=True):
            key = (content, file.split)
            if key not in seen:
                yield file._replace(label=join(found.get(key, [file.label]))), content
            if content in several:
                seen.add(key)

    how = (
        f"any number of labels per image: {shared:,} of {total:,} images are in several class folders; "
        "`--data.labels single` rejects those"
    )
    files = on_disk(file for file, _ in kept())
    return replace(listing, files=files, multiple=True, how=how), texts_on_disk(content for _, content in kept())
