"""Index of a data set: every usable image with class, split and content hash."""

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.feather

from unfreeze.models.errors import UserError
from unfreeze.models.images.listing.path_tables import shortened
from unfreeze.models.images.listing.rows import ListedFile, Listing
from unfreeze.models.images.listing.splits import deal_sides, draw_sides, units_of
from unfreeze.models.images.pixels.bit_depth import Ranges, ranges_of
from unfreeze.models.images.pixels.decode import ImageFacts, UnreadableImage, check_image
from unfreeze.models.reading import labels as label_sets
from unfreeze.models.reading.split_words import Part
from unfreeze.models.settings import DataSpec
from unfreeze.models.store.content import map_in_order
from unfreeze.models.targets import MultiLabel, SingleLabel, Target

_TEXT, _INT = pa.string(), pa.int32()


def _rows_schema(target: pa.DataType) -> pa.Schema:
    texts = {"path": _TEXT, "label": _TEXT, "target": target, "split": _TEXT, "content": _TEXT}
    facts = {"width": _INT, "height": _INT, "bytes": pa.int64(), "group": _TEXT, "deep": pa.bool_()}
    return pa.schema({**texts, **facts, "spread": pa.float32(), "frames": _INT})


_REJECTED = pa.schema([("path", _TEXT), ("label", _TEXT), ("split", _TEXT), ("reason", _TEXT)])

CONTRADICTION = "contradiction:"
"""Start of the rejection reason for an image with two labels."""
COPY = "the same image is in"
"""Start of the rejection reason for an image on two sides of a split."""


@dataclass(frozen=True, eq=False)
class Index:
    """Images of a data set, in a fixed order shared by caches and predictions."""

    rows: pa.Table
    """path, label, target (int32 position of the label in `classes`; multi-label: L uint8 of 0 or 1), split (train,
    valid or test), content (hash), width and height (as displayed), bytes, group (null for none), deep (more than 8
    bits per sample), spread (standard deviation in levels of 256), frames (images in the file)."""
    rejected: pa.Table
    """path, label, split (if the source has one) and reason of every rejected file."""
    classes: tuple[str, ...]
    """Sorted labels."""
    digest: str
    """Hash of (content, label, split) of the rows in order, and of groups and ranges if any; equal digests mean equal
    images, targets and split."""
    multiple: bool = False
    """Whether images are multi-label; ``label`` is then one text, see `models.reading.labels.join`."""
    ranges: Ranges = field(default_factory=dict)
    """Black and white levels for more than 8 bits per sample."""
    understood: str = ""
    """Interpretation of the source, in one sentence."""

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def targets(self) -> np.ndarray:
        """Class of every row, (rows,) int64; multi-label: (rows, L) float32."""
        if self.multiple:
            marks = self.rows["target"].combine_chunks().flatten()
            return np.asarray(marks, dtype=np.float32).reshape(-1, len(self.classes))
        return np.asarray(self.rows["target"], dtype=np.int64)

    def target(self) -> Target:
        """Target that a network predicts for these images."""
        return MultiLabel(self.classes) if self.multiple else SingleLabel(self.classes)

    def labels(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Class (text) or list of labels (object) of each row, (rows,)."""
        texts = self.rows["label"].take(pa.array(rows, pa.int64())).to_pylist()
        if not self.multiple:
            return np.array(texts)
        labels = np.empty(len(texts), dtype=object)
        labels[:] = [label_sets.split(text) for text in texts]
        return labels

    def occurrences(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """All labels of all rows, concatenated; an empty text for a row without labels."""
        labels = self.labels(rows)
        return [label for row in labels for label in row or [""]] if self.multiple else labels.tolist()

    def rows_of(self, split: str) -> np.ndarray:
        """Positions of the rows of a split, ascending: int64 of shape (rows,)."""
        return np.flatnonzero(np.asarray(self.rows["split"]) == split).astype(np.int64)

    def groups(self, rows: Sequence[int] | np.ndarray) -> np.ndarray | None:
        """Group number of each row, int64; ungrouped images are groups of their own. None if there are no groups."""
        groups = self.rows["group"]
        if groups.null_count == len(groups):
            return None
        units = units_of(zip(self.rows["content"].to_pylist(), groups.to_pylist(), strict=True))
        names = [units[content] for content in self.rows["content"].take(pa.array(rows, pa.int64())).to_pylist()]
        return np.array(names, dtype=np.int64)

    def sides(self) -> dict[str, str]:
        """Content of every image -> its split."""
        return dict(zip(self.rows["content"].to_pylist(), self.rows["split"].to_pylist(), strict=True))

    def fingerprint(self) -> str:
        """Hash of the distinct (content, label) pairs, independent of order, paths and split."""
        pairs = set(zip(self.rows["content"].to_pylist(), self.rows["label"].to_pylist(), strict=True))
        return _blake2b(json.dumps(sorted(pairs)).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write the rows to a feather file in place (publish by renaming), with the rest in its schema's metadata."""
        kept = {
            "classes": self.classes,
            "multiple": self.multiple,
            "understood": self.understood,
            "digest": self.digest,
            "ranges": self.ranges,
            "rejected": self.rejected.to_pylist(),
        }
        rows = self.rows.replace_schema_metadata({"index": json.dumps(kept)})
        pa.feather.write_feather(rows, str(path), compression="zstd")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load what `save` wrote; raises a `UserError` if the file is not an index."""
        try:
            rows = pa.feather.read_table(str(path), memory_map=False)
            rows.validate(full=True)  # bad offsets in a damaged file would crash later reads
            kept = json.loads((rows.schema.metadata or {})[b"index"])
            wanted = _rows_schema(rows.schema.field("target").type)
            return cls(
                rows=rows.select(wanted.names).cast(wanted),
                rejected=pa.Table.from_pylist(kept["rejected"], schema=_REJECTED),
                classes=tuple(kept["classes"]),
                digest=kept["digest"],
                multiple=bool(kept["multiple"]),
                ranges={kind: (low, high) for kind, (low, high) in kept["ranges"].items()},
                understood=kept["understood"],
            )
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, pa.ArrowException) as error:
            raise UserError(f"{path} is not an image index ({error}); delete it and run again") from error


def build_index(
    listing: Listing,
    hashes: Sequence[str],
    data: DataSpec,
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
    earlier: Mapping[str, str] | None = None,
) -> Index:
    """Verify every image by decoding it, exclude unusable ones, and split the rest.

    Rejected, with a reason: unreadable files; the same content under two labels (all of its rows); and, if the source
    has its own split, validation images that also occur in training and test images that occur in either. No file is
    changed.

    If the source has no split, each class gives the first `round(valid_fraction * n)` of its n distinct contents to
    validation (at least one, not all), ordered by a hash of `split_seed` and content. Copies thus stay together, and
    added images hardly move the others; with an `earlier` split they do not move at all. With `test_fraction`, test
    images are drawn first, in the same way. Multi-label images and whole groups are assigned by `stratify`, in the same
    hash order.

    Parameters
    ----------
    listing, hashes
        Files in the order of the index's rows, and their content hashes.
    progress
        Called with (contents verified, total contents).
    threads
        Decoding threads, which also bound the images in memory; default: all cores.
    earlier
        Content -> side of an earlier split to extend; new contents fill each class's shortfall.

    Raises
    ------
    UserError
        If nothing is left, a class has fewer than two distinct images or none to train on, or the source's own split
        leaves nothing to validate on.
    """
    verdicts = _verify(listing, hashes, data.max_megapixels, threads or os.cpu_count() or 1, progress)
    images = [_Image(*each) for each in zip(listing.files, hashes, verdicts, strict=True)]
    has_split = any(file.split == "train" for file in listing.files)
    _reject_contradictions(images)
    _reject_leaks(images)
    units = units_of((image.content, image.file.group) for image in images if image.is_kept)
    _check_classes(listing.name, images, has_split, listing.multiple, units)
    kept = [image for image in images if image.is_kept]
    drawn = {} if has_split else _sides(kept, data, earlier or {}, listing.multiple, units)
    facts = [image.verdict for image in kept if isinstance(image.verdict, ImageFacts)]
    ranges = ranges_of((each.samples for each in facts), data.pixel_range)

    classes = tuple(sorted({label for image in kept for label in image.labels(listing.multiple)}))
    place = {label: number for number, label in enumerate(classes)}
    kind = pa.list_(pa.uint8(), len(classes)) if listing.multiple else _INT
    rows = []
    digest = _blake2b(b"several labels" if listing.multiple else b"")
    for image, about in zip(kept, facts, strict=True):
        path, label, side, group = image.file
        labels = [place[each] for each in image.labels(listing.multiple)]
        target = [int(number in labels) for number in range(len(place))] if listing.multiple else labels[0]
        side = side or drawn.get(image.content, "train")
        digest.update(json.dumps([image.content, label, side, *([group] if group else [])]).encode())
        low, high = ranges[about.samples.kind] if about.samples is not None else (0, 255)
        rows.append(
            {
                "path": str(path),
                "label": label,
                "target": target,
                "split": side,
                "content": image.content,
                "width": about.width,
                "height": about.height,
                "bytes": about.bytes,
                "group": group or None,
                "deep": about.samples is not None,
                "spread": 255 * about.spread / (high - low or 1),
                "frames": about.frames,
            }
        )
    if ranges:
        digest.update(json.dumps(ranges).encode())
    rejected = [
        {"path": str(image.file.path), "label": image.file.label, "split": image.file.split, "reason": image.verdict}
        for image in images
        if not image.is_kept
    ]
    return Index(
        rows=pa.Table.from_pylist(rows, schema=_rows_schema(kind)),
        rejected=pa.Table.from_pylist(rejected, schema=_REJECTED),
        classes=classes,
        digest=digest.hexdigest(),
        multiple=listing.multiple,
        ranges=ranges,
        understood=listing.told,
    )


@dataclass
class _Image:
    file: ListedFile
    content: str
    verdict: ImageFacts | str  # or the reason for rejection

    @property
    def is_kept(self) -> bool:
        return isinstance(self.verdict, ImageFacts)

    def labels(self, multiple: bool) -> list[str]:
        return label_sets.split(self.file.label) if multiple else [self.file.label]


def _blake2b(data: bytes = b"") -> "hashlib.blake2b":
    return hashlib.blake2b(data, digest_size=16)


def _verify(
    listing: Listing,
    hashes: Sequence[str],
    max_megapixels: float,
    threads: int,
    progress: Callable[[int, int], None] | None,
) -> list[ImageFacts | str]:
    """Facts about every file, or the reason why it is unusable; copies are decoded once."""
    # Unreadable files have no hash, so their paths identify them.
    keys = [content or str(file.path) for content, file in zip(hashes, listing.files, strict=True)]
    path_of = dict(zip(reversed(keys), (file.path for file in reversed(listing.files)), strict=True))

    def verdict(path: Path) -> ImageFacts | str:
        try:
            return check_image(path, max_megapixels)
        except (UnreadableImage, OSError) as error:
            return str(error)

    verdicts = {}
    results = map_in_order(verdict, path_of.values(), threads, in_flight=16 * threads)
    for done, (key, result) in enumerate(zip(path_of, results, strict=True), start=1):
        verdicts[key] = result
        if progress is not None:
            progress(done, len(path_of))
    return [verdicts[key] for key in keys]


def _reject_contradictions(images: list[_Image]) -> None:
    first: dict[str, dict[str, Path]] = defaultdict(dict)  # content -> label -> the first file with both
    kept = [image for image in images if image.is_kept]
    for image in kept:
        first[image.content].setdefault(image.file.label, image.file.path)
    for image in kept:
        labels = first[image.content].items()
        others = [f"{label!r} as {path}" for label, path in labels if label != image.file.label]
        if others:
            image.verdict = f"{CONTRADICTION} the same image is labelled {shortened(others, most=3)}"


def _reject_leaks(images: list[_Image]) -> None:
    kept = [image for image in images if image.is_kept]
    seen: dict[str, tuple[str, str]] = {}
    for side in ("train", None, "valid", "test"):
        for image in kept:
            if image.file.split == side:
                place, name = seen.setdefault(image.content, (side or "train", image.file.path.name))
                if place != (side or "train"):
                    image.verdict = f"{COPY} {place} as {name}"


def _check_classes(name: str, images: list[_Image], has_split: bool, multiple: bool, units: Mapping[str, int]) -> None:
    contents: dict[str, set[int]] = {label: set() for image in images for label in image.labels(multiple)}
    splits: dict[str, set[str | None]] = defaultdict(set)
    for image in images:
        for label in image.labels(multiple) if image.is_kept else []:
            splits[label].add(image.file.split)
            if has_split or image.file.split is None:
                contents[label].add(units[image.content])
    few = sorted(label for label, distinct in contents.items() if len(distinct) < 2)
    untrained = sorted(label for label in contents if "train" not in splits[label])
    in_groups = " in two groups" if any(image.file.group for image in images) else ""
    if not any(contents.values()):
        problem = f"none of the {len(images)} files is a usable image"
    elif len(contents) < 2 and not multiple:
        problem = f"only one class ({', '.join(map(repr, contents))}), but at least two are needed"
    elif few:
        problem = (
            f"every {'label' if multiple else 'class'} needs at least two different usable images{in_groups}, one to "
            "train and one to validate, but " + shortened(f"{label!r} has {len(contents[label])}" for label in few)
        )
    elif has_split and untrained:
        problem = f"no training image of {shortened(map(repr, untrained))}"
    elif has_split and not any("valid" in sides for sides in splits.values()):
        problem = "the source's own split has no usable validation image"
    else:
        return
    message = f"{name}: {problem}"
    # Contradictions are counted together, although each reason names different files.
    reasons = [image.verdict for image in images if isinstance(image.verdict, str)]
    kinds = [CONTRADICTION if reason.startswith(CONTRADICTION) else reason for reason in reasons]
    if kinds:
        kind, count = Counter(kinds).most_common(1)[0]
        reason = reasons[kinds.index(kind)]
        message += f"; {len(kinds)} of {len(images)} files were rejected, most often ({count}) because: {reason}"
    raise UserError(f"{message}. Add images, or remove or merge these {'labels' if multiple else 'classes'}.")


def _sides(
    kept: list[_Image], data: DataSpec, earlier: Mapping[str, str], multiple: bool, units: Mapping[str, int]
) -> dict[str, Part]:
    """Draw content -> ``test`` or ``valid`` for images without a split of their own."""
    has_tests = any(image.file.split == "test" for image in kept)
    test_fraction = 0.0 if has_tests else data.test_fraction
    free = [image for image in kept if image.file.split is None]
    if multiple or any(image.file.group for image in free):
        labels = {image.content: image.labels(multiple) for image in free}
        return deal_sides(labels, units, data.valid_fraction, test_fraction, data.split_seed, earlier)
    contents: dict[str, set[str]] = defaultdict(set)
    for image in free:
        contents[image.file.label].add(image.content)
    return draw_sides(contents, data.valid_fraction, test_fraction, data.split_seed, earlier)
