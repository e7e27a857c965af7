"""Verification of a source's files by decoding them, without those that an earlier index has facts about."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from unfreeze.models.images.listing.rows import Listing
from unfreeze.models.images.pixels.bit_depth import Samples
from unfreeze.models.images.pixels.decode import ImageFacts, UnreadableImage, check_image
from unfreeze.models.store.content import map_in_order
from unfreeze.models.store.rows_on_disk import OnDisk, matched, rows_of

Verdict = ImageFacts | str
"""Facts about an image, or why it is unusable."""
_FACTS = {"width": pa.int32(), "height": pa.int32(), "spread": pa.float64(), "frames": pa.int32(), "bytes": pa.int64()}
_SAMPLES = {"kind": pa.string(), "low": pa.float64(), "high": pa.float64()}
_SCHEMA = pa.schema({**_FACTS, **_SAMPLES, "reason": pa.string()})
_BLOCK = 4_096
"""Files looked up before those among them that are new are decoded."""


def verify(
    listing: Listing,
    hashes: Sequence[str],
    copies: Mapping[str, int],
    max_megapixels: float,
    threads: int,
    progress: Callable[[int, int], None] | None,
    known: pa.Table | None = None,
) -> OnDisk[Verdict]:
    """Verdict on every file; copies are decoded once.

    Parameters
    ----------
    listing, hashes
        Files, and their content hashes.
    copies
        Contents that occur more than once, and how often.
    progress
        Called with (contents verified, total contents).
    known
        Rows of an earlier index with the same limit of `max_megapixels`; files with an equal path and content are not
        decoded again.
    """

    def verdict(path: Path) -> Verdict:
        try:
            return check_image(path, max_megapixels)
        except (UnreadableImage, OSError) as error:
            return str(error)

    def verdicts() -> Iterator[tuple[Any, ...]]:
        done, total = 0, len(listing.files) - sum(copies.values()) + len(copies)
        of_copies = dict[str, Verdict]()
        paths = (path for (path,) in listing.files.columns("path"))
        files = zip(matched(paths, _facts(known)), hashes, strict=True)
        while block := list(islice(files, _BLOCK)):
            new = dict[str, Path]()  # unreadable files have no hash, so their paths identify them
            found = dict[str, Verdict]()
            for (path, earlier), content in block:
                key = content or os.fsdecode(path)
                if key in of_copies or key in found or key in new:
                    continue
                if content and earlier is not None and earlier[0] == content:
                    found[key] = ImageFacts(*earlier[1:])
                else:
                    new[key] = Path(os.fsdecode(path))
            done += len(found)
            results = map_in_order(verdict, new.values(), threads, in_flight=16 * threads) if new else ()
            for key, result in zip(new, results, strict=True):
                found[key] = result
                done += 1
                if progress is not None:
                    progress(done, total)
            of_copies |= {key: each for key, each in found.items() if key in copies}
            for (path, _), content in block:
                key = content or os.fsdecode(path)
                yield _values(found[key] if key in found else of_copies[key])

    return OnDisk.of(verdicts(), _SCHEMA, _verdict)


def _facts(known: pa.Table | None) -> Iterator[tuple[bytes, tuple[Any, ...]]]:
    """Path -> content and facts of an earlier index; of deep images it has no range."""
    if known is None:
        return
    columns = ("path", "deep", "content", "width", "height", "spread", "frames", "bytes")
    for path, deep, content, width, height, *others in rows_of(known, *columns):
        if not deep:
            yield path.encode(), (content, width, height, None, *others)


def _values(verdict: Verdict) -> tuple[Any, ...]:
    if isinstance(verdict, str):
        return (*[None] * (len(_SCHEMA) - 1), verdict)
    samples = verdict.samples or (None, None, None)
    return (verdict.width, verdict.height, verdict.spread, verdict.frames, verdict.bytes, *samples, None)


def _verdict(width: int, height: int, spread: float, frames: int, size: int, *others: Any) -> Verdict:
    *samples, reason = others
    if reason is not None:
        return str(reason)
    return ImageFacts(width, height, None if samples[0] is None else Samples(*samples), spread, frames, size)
