"""Index of a data set: every usable image with class, split and content hash."""

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather

from unfreeze.models.errors import UserError
from unfreeze.models.images.listing.path_tables import shortened
from unfreeze.models.images.listing.rows import Listing
from unfreeze.models.images.listing.splits import deal_sides, draw_sides, units_of
from unfreeze.models.images.pixels.bit_depth import Ranges, ranges_of
from unfreeze.models.images.pixels.decode import ImageFacts
from unfreeze.models.images.pixels.verify import Verdict, verify
from unfreeze.models.reading import labels as label_sets
from unfreeze.models.reading.split_words import Part
from unfreeze.models.settings import DataSpec
from unfreeze.models.store.content import repeated
from unfreeze.models.store.rows_on_disk import AT_ONCE, OnDisk, fixed_width, rows_of
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

    @property
    def contents(self) -> np.ndarray:
        """Content hash of every row, (rows,) S32."""
        return fixed_width(self.rows["content"])

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
        rows: np.ndarray = pc.indices_nonzero(pc.equal(self.rows["split"], split)).to_numpy()
        return rows.astype(np.int64)

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
        hashed, before, order = _blake2b(b"["), None, np.argsort(self.contents, kind="stable")
        for first in range(0, len(order), AT_ONCE):
            rows = self.rows.select(["content", "label"]).take(order[first : first + AT_ONCE])
            for pair in rows_of(rows, "content", "label"):  # a content has one label
                if pair != before:
                    hashed.update(f"{', ' if before else ''}{json.dumps(pair)}".encode())
                before = pair
        hashed.update(b"]")
        return hashed.hexdigest()

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
        # Uncompressed, so that it can be mapped.
        pa.feather.write_feather(rows, str(path), compression="uncompressed")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load what `save` wrote; raises a `UserError` if the file is not an index."""
        try:
            rows = pa.feather.read_table(str(path), memory_map=True)
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
    known: pa.Table | None = None,
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
    known
        Rows of an earlier index, whose files need not be verified again; see `verify`.

    Raises
    ------
    UserError
        If nothing is left, a class has fewer than two distinct images or none to train on, or the source's own split
        leaves nothing to validate on.
    """
    copies = repeated(hashes)
    verdicts = verify(listing, hashes, copies, data.max_megapixels, threads or os.cpu_count() or 1, progress, known)
    reasons = _reasons(_images(listing, hashes, verdicts), copies) if copies else {}

    def images() -> Iterator[_Image]:
        every = _images(listing, hashes, verdicts)
        return map(_with_reason, every, map(reasons.get, count())) if reasons else every

    def kept() -> Iterator[_Image]:
        return (image for image in images() if image.is_kept)

    multiple, has_groups = listing.multiple, any(listing.distinct("group"))
    units = units_of((image.content, image.group) for image in kept()) if multiple or has_groups else None
    classes = _classes(listing, images, units)
    sides = _sides(listing, kept, data, earlier or {}, units)
    are_deep = verdicts.table["kind"].null_count < len(verdicts)
    ranges = ranges_of((image.verdict.samples for image in kept()) if are_deep else (), data.pixel_range)

    place = {label: number for number, label in enumerate(classes)}
    digest, quoted = _blake2b(b"several labels" if multiple else b""), cache(json.dumps)

    def rows() -> Iterator[tuple[Any, ...]]:
        for image, side in zip(kept(), sides, strict=True):
            labels = [place[each] for each in _labels(image.label, multiple)]
            target = [int(number in labels) for number in range(len(place))] if multiple else labels[0]
            group = f", {quoted(image.group)}" if image.group else ""
            digest.update(f'["{image.content}", {quoted(image.label)}, "{side}"{group}]'.encode())
            about = image.verdict
            low, high = ranges[about.samples.kind] if about.samples is not None else (0, 255)
            spread, deep = 255 * about.spread / (high - low or 1), about.samples is not None
            facts = (about.width, about.height, about.bytes, image.group or None, deep, spread, about.frames)
            yield (image.path.decode(), image.label, target, side, image.content, *facts)

    kind = pa.list_(pa.uint8(), len(classes)) if multiple else _INT
    table = OnDisk.of(rows(), _rows_schema(kind), _Image).table
    if ranges:
        digest.update(json.dumps(ranges).encode())
    rejected = [
        {"path": os.fsdecode(image.path), "label": image.label, "split": image.split, "reason": image.verdict}
        for image in (images() if len(table) < len(verdicts) else ())
        if not image.is_kept
    ]
    return Index(
        rows=table,
        rejected=pa.Table.from_pylist(rejected, schema=_REJECTED),
        classes=classes,
        digest=digest.hexdigest(),
        multiple=multiple,
        ranges=ranges,
        understood=listing.told,
    )


class _Image(NamedTuple):
    path: bytes
    label: str
    split: Part | None
    group: str
    content: str
    verdict: Any  # `ImageFacts`, or the reason for rejection

    @property
    def is_kept(self) -> bool:
        return isinstance(self.verdict, ImageFacts)


def _images(listing: Listing, hashes: Iterable[str], verdicts: Iterable[Verdict]) -> Iterator[_Image]:
    files = listing.files.columns("path", "label", "split", "group")
    return (_Image(*file, *about) for file, *about in zip(files, hashes, verdicts, strict=True))


def _with_reason(image: _Image, reason: str | None) -> _Image:
    return image if reason is None else image._replace(verdict=reason)


def _labels(text: str, multiple: bool) -> list[str]:
    return label_sets.split(text) if multiple else [text]


def _blake2b(data: bytes = b"") -> "hashlib.blake2b":
    return hashlib.blake2b(data, digest_size=16)


def _reasons(images: Iterable[_Image], copies: Collection[str]) -> dict[int, str]:
    """Row -> why an image is rejected because of a copy of it."""
    several = {row: image for row, image in enumerate(images) if image.content in copies and image.is_kept}
    first: dict[str, dict[str, bytes]] = defaultdict(dict)  # content -> label -> the first file with both
    for image in several.values():
        first[image.content].setdefault(image.label, image.path)
    reasons = {}
    for row, image in several.items():
        labels = first[image.content].items()
        others = [f"{label!r} as {os.fsdecode(path)}" for label, path in labels if label != image.label]
        if others:
            reasons[row] = f"{CONTRADICTION} the same image is labelled {shortened(others, most=3)}"
    seen: dict[str, tuple[str, str]] = {}
    for side in ("train", None, "valid", "test"):
        for row, image in several.items():
            if image.split == side and row not in reasons:
                here = (side or "train", os.path.basename(os.fsdecode(image.path)))
                place, name = seen.setdefault(image.content, here)
                if place != (side or "train"):
                    reasons[row] = f"{COPY} {place} as {name}"
    return reasons


def _classes(
    listing: Listing, images: Callable[[], Iterator[_Image]], units: Mapping[str, int] | None
) -> tuple[str, ...]:
    """Sorted labels of the images that are kept; raises a `UserError` if they cannot be learnt."""
    multiple, has_split = listing.multiple, "train" in listing.distinct("split")
    contents: dict[str, set[object]] = {}  # at most two of each label
    splits: dict[str, set[str | None]] = defaultdict(set)
    for image in images():
        for label in _labels(image.label, multiple):
            distinct = contents.setdefault(label, set())
            if image.is_kept:
                splits[label].add(image.split)
                if len(distinct) < 2 and (has_split or image.split is None):
                    distinct.add(units[image.content] if units is not None else image.content)
    few = sorted(label for label, distinct in contents.items() if len(distinct) < 2)
    untrained = sorted(label for label in contents if "train" not in splits[label])
    in_groups = " in two groups" if any(listing.distinct("group")) else ""
    total = len(listing.files)
    if not any(contents.values()):
        problem = f"none of the {total} files is a usable image"
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
        return tuple(sorted(label for label in contents if splits[label]))
    message = f"{listing.name}: {problem}"
    # Contradictions are counted together, although each reason names different files.
    reasons = [image.verdict for image in images() if isinstance(image.verdict, str)]
    kinds = [CONTRADICTION if reason.startswith(CONTRADICTION) else reason for reason in reasons]
    if kinds:
        kind, count = Counter(kinds).most_common(1)[0]
        reason = reasons[kinds.index(kind)]
        message += f"; {len(kinds)} of {total} files were rejected, most often ({count}) because: {reason}"
    raise UserError(f"{message}. Add images, or remove or merge these {'labels' if multiple else 'classes'}.")


def _sides(
    listing: Listing,
    kept: Callable[[], Iterator[_Image]],
    data: DataSpec,
    earlier: Mapping[str, str],
    units: Mapping[str, int] | None,
) -> Iterator[str]:
    """Split of every kept image: its own, or drawn."""
    if "train" in listing.distinct("split"):
        return (image.split or "train" for image in kept())
    has_tests = "test" in listing.distinct("split") and any(image.split == "test" for image in kept())
    test_fraction = 0.0 if has_tests else data.test_fraction
    free = (image for image in kept() if image.split is None)
    shares = (data.valid_fraction, test_fraction, data.split_seed, earlier)
    if units is not None:
        labels = {image.content: _labels(image.label, listing.multiple) for image in free}
        drawn = deal_sides(labels, units, *shares)
        return (image.split or drawn.get(image.content, "train") for image in kept())
    sides = draw_sides(((image.label, image.content) for image in free), *shares)
    if listing.distinct("split") == {None}:
        return sides
    return (image.split or next(sides) for image in kept())
