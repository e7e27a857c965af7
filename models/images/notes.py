"""Notes on a data set's files: unusable, nearly blank or multi-frame images, bit depth, groups."""

from collections import defaultdict
from pathlib import Path

import numpy as np

from unfreeze.models.images.listing.path_tables import shortened
from unfreeze.models.images.pixels.index import COPY, Index
from unfreeze.models.reading.labels import count_reasons, kind_of_reason

NEARLY_ONE_COLOUR = 4.0
"""Standard deviation, in levels of 256, below which an image is nearly blank."""
_MOST_NAMED = 3


def notes_of(index: Index) -> list[str]:
    """Describe unusable files, grey levels, blank or multi-frame images, and groups, one line each."""
    plain = _named(index, plain_rows(index), "images are nearly one colour")
    stacked = np.flatnonzero(index.rows["frames"].to_numpy() > 1)
    several = _named(index, stacked, "files hold several images, of which only the first is used")
    lines = [_unusable(index), *_ranges(index), plain, several, *_groups(index)]
    return [line for line in lines if line]


def plain_rows(index: Index) -> np.ndarray:
    """Positions of the nearly blank images, int64."""
    return np.flatnonzero(index.rows["spread"].to_numpy() < NEARLY_ONE_COLOUR)


def _unusable(index: Index) -> str:
    reasons = index.rejected["reason"].to_pylist()
    if not reasons:
        return ""
    copies = "a copy of an image in another split"
    kinds = [copies if reason.startswith(COPY) else kind_of_reason(reason) for reason in reasons]
    return f"{len(kinds):,} of {len(index) + len(kinds):,} files cannot be used: {count_reasons(kinds)}"


def _ranges(index: Index) -> list[str]:
    count = int(index.rows["deep"].to_numpy().sum())
    return [
        f"{count:,} images have more than 8 bits a sample: {kind} values of {low:g} to {high:g} become black to white, "
        "in predictions as well (--data.pixel_range sets others)"
        for kind, (low, high) in index.ranges.items()
    ]


def _named(index: Index, rows: np.ndarray, what: str) -> str:
    # With the folder, because file names often repeat in every class.
    paths = ["/".join(Path(path).parts[-2:]) for path in index.rows["path"].take(rows).to_pylist()]
    return f"{len(paths):,} {what}: {shortened(paths, _MOST_NAMED)}" if paths else ""


def _groups(index: Index) -> list[str]:
    sides = defaultdict[str, set[str]](set)
    for group, split in zip(index.rows["group"].to_pylist(), index.rows["split"].to_pylist(), strict=True):
        if group:
            sides[group].add(split)
    across = [group for group, splits in sides.items() if len(splits) > 1]
    lines = []
    if across:
        lines.append(
            f"{len(across):,} of {len(sides):,} groups are on several sides of the source's own split, so its results "
            f"are flattered: {shortened(across, _MOST_NAMED)}"
        )
    if sides:
        seen = {split: set(index.occurrences(index.rows_of(split))) for split in ("train", "valid")}
        for split, verb in (("train", "train"), ("valid", "validate")):
            if absent := [name for name in index.classes if name not in seen[split]]:
                lines.append(f"the groups leave no image to {verb} {shortened(map(repr, absent))}")
    return lines
