"""The files of a source with their labels, before any is opened."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from unfreeze.models.images.listing.path_tables import shortened
from unfreeze.models.reading.labels import split
from unfreeze.models.reading.split_words import Part

_MOST_NAMED = 6


class ListedFile(NamedTuple):
    """One image of a source; `split` is None where it is to be drawn whether the image trains or validates.

    Several labels are one text, see `unfreeze.models.reading.labels.join`.
    """

    path: Path
    label: str
    split: Part | None
    group: str = ""
    """What it belongs to, such as a patient: see `unfreeze.models.images.listing.groups`."""


@dataclass(frozen=True)
class Listing:
    """The files of a source, sorted, before any was opened."""

    name: str
    files: tuple[ListedFile, ...]
    """Sorted by path relative to the source (tables: by path). Those that do not test all have a split or none has."""
    split_by: str = "split at random"
    """Where the split comes from, such as ``split by the folders train, valid``."""
    note: str | None = None
    """How the source was understood, where that may surprise."""
    multiple: bool = False
    """Whether an image may have any number of labels."""
    how: str = ""
    """How the labels were understood, for people; empty where that cannot surprise."""
    is_table: bool = False

    @property
    def told(self) -> str:
        """All that is known about how the source was understood, in one line."""
        return "; ".join(filter(None, (self.understood, self.note, self.how)))

    @property
    def understood(self) -> str:
        """One line: ``3 classes, split by the folders train, valid: bird, cat, dog``."""
        labels = sorted(
            {label for file in self.files for label in (split(file.label) if self.multiple else [file.label])}
        )
        kind = "labels, any number per image" if self.multiple else "classes"
        return f"{len(labels):,} {kind}, {self.split_by}: {shortened(labels, _MOST_NAMED)}"
