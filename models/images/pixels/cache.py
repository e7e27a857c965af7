"""Cache of resized images: square uint8 rows in a memory-mapped file, so a batch is a gather."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from unfreeze.models.errors import UserError
from unfreeze.models.images.pixels.bit_depth import Ranges
from unfreeze.models.images.pixels.decode import (
    Fit,
    Interpolation,
    UnreadableImage,
    draft_side,
    make_square,
    read_image,
)
from unfreeze.models.images.pixels.index import Index
from unfreeze.models.store.content import hash_file, map_in_order
from unfreeze.models.store.row_store import RowStore, StoredRows, missing_lots
from unfreeze.models.store.workspace import Workspace, key_of

CACHE_VERSION = 2
"""Increment when the pixels or the layout of a cache change; part of the cache key."""


def image_store(
    workspace: Workspace, size: int, fit: Fit, interpolation: Interpolation, ranges: Ranges = MappingProxyType({})
) -> RowStore:
    """Row store of squares of one size and resizing method, shared by data sets; `ranges` apply to deep images."""
    metadata = {"version": str(CACHE_VERSION), "size": str(size), "fit": fit}
    key = key_of(size, fit, interpolation, CACHE_VERSION, *([dict(ranges)] if ranges else []))
    return RowStore(workspace, "images", key, size * size * 3, np.uint8, metadata)


def build_image_caches(
    index: Index,
    targets: Mapping[int, Path],
    fit: Fit,
    interpolation: Interpolation,
    max_megapixels: float,
    threads: int,
    workspace: Workspace,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Store every image of an index at all sizes, and write the lists in the index's order.

    A row equals ``make_square(read_image(path, max_megapixels, size, index.ranges), size, fit, interpolation)``,
    whichever sizes are built together. Every missing content is decoded once, however often it is listed.

    Memory: at most `threads` decoded images, `4 * threads` images resized to all sizes, 32 MiB of rows per size, and
    some 40 bytes an image to find its row.

    Parameters
    ----------
    targets
        Side of the square in pixels -> list to write, which is written in place; the caller publishes it by renaming.
    progress
        Called with (images done, images to do) after each image.

    Raises
    ------
    UserError
        If an image changed, was removed or became unreadable since it was indexed.
    """

    def square(path: Path, side: int, sizes: Sequence[int]) -> dict[str, np.ndarray]:
        image = read_image(path, max_megapixels, side, index.ranges)
        return {str(size): make_square(image, size, fit, interpolation).reshape(1, -1) for size in sizes}

    def row(position: int, sides: dict[int, list[int]]) -> dict[str, np.ndarray]:
        path = Path(index.rows["path"][position].as_py())
        # Rows are keyed by content, so a changed file must never be stored under the old hash.
        if hash_file(path) != index.rows["content"][position].as_py():
            raise UserError(f"{path}: the image changed or vanished since it was indexed; run again to index it")
        try:
            # One at a time, so that only one decoded image is in memory.
            return {name: made for side, sizes in sides.items() for name, made in square(path, side, sizes).items()}
        except UnreadableImage as error:
            raise UserError(f"{path}: {error}; run again to index the images") from error

    def rows(positions: np.ndarray, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        # Sizes up to 512 share one decode; larger ones need their own to equal `read_image`.
        sides: dict[int, list[int]] = {}
        for size in sorted(map(int, names)):
            sides.setdefault(draft_side(size), []).append(size)
        for made in map_in_order(lambda position: row(int(position), sides), positions, threads, in_flight=4 * threads):
            yield made
            if progress is not None:
                progress(next(done), total)

    contents = index.contents
    stores = {str(size): image_store(workspace, size, fit, interpolation, index.ranges) for size in targets}
    lots = missing_lots(stores, contents)
    total, done = sum(len(lot.positions) for lot in lots), count(1)
    for lot in lots:
        lot.write(rows)
    for size, path in targets.items():
        stores[str(size)].write_list(path, contents)


class ImageCache:
    """Memory-mapped list that `build_image_caches` wrote; only requested rows are read.

    `size` is the side of the squares in pixels, `fit` how images were made square, and `key` the store's key, which
    identifies the resizing but not the images. Raises a `UserError` if the file is not such a list, is of another
    version, or it or its store is incomplete.
    """

    def __init__(self, path: Path) -> None:
        self._rows = StoredRows(path)
        version = self._rows.metadata.get("version")
        if version != str(CACHE_VERSION):
            raise UserError(f"{path} has cache version {version}, not {CACHE_VERSION}; delete it and run again")
        try:
            self.size, self.fit = int(self._rows.metadata["size"]), self._rows.metadata["fit"]
            self.key = self._rows.metadata["key"]
        except (KeyError, ValueError) as error:
            raise UserError(f"{path} is not an image cache ({error}); delete it and run again") from error

    def __len__(self) -> int:
        return len(self._rows)

    def gather(self, rows: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Copy images at positions (B,) of the index, like `StoredRows.gather`: (B, 3, size, size), channels last."""
        return self._rows.gather(rows).view(-1, self.size, self.size, 3).permute(0, 3, 1, 2)


def usable_size(index: Index, native: int) -> int:
    """Default training size: `native` (the side that the weights were trained at), or less for small images.

    At most eight times the median of the images' shorter sides, rounded to a multiple of 32.
    """
    width, height = (index.rows[name].to_numpy() for name in ("width", "height"))
    limit = 8 * float(np.median(np.minimum(width, height)))
    return min(native, max(32, 32 * round(limit / 32)))
