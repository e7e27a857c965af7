"""Images resized once: a memory-mapped Arrow file of square uint8 rows, so a batch is a gather."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from unfreeze.models.errors import UserError
from unfreeze.models.images.decode import (
    Fit,
    Interpolation,
    UnreadableImage,
    draft_side,
    make_square,
    map_in_order,
    read_image,
)
from unfreeze.models.images.index import Index, hash_file
from unfreeze.models.images.row_file import RowFile, RowWriter

CACHE_VERSION = 1
"""Raise it when the pixels or the layout of a cache change; it is part of the key of a cache."""


def build_image_caches(
    index: Index,
    targets: dict[int, Path],
    fit: Fit,
    interpolation: Interpolation,
    max_megapixels: float,
    threads: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Decode every image of an index once and write it at all sizes, in the order of the index.

    A row equals `make_square(read_image(path, max_megapixels, at_least=size), size, fit, interpolation)`, whichever
    sizes are built together.

    Memory: at most `threads` decoded images, `4 * threads` images resized to all sizes, and one record batch per
    size (128 rows, fewer where that exceeds 32 MiB), whatever the number of images.

    Parameters
    ----------
    targets
        Side of the square in pixels -> file to write. The file is written in place: publish it by renaming.
    progress
        Called with (images done, images in all) after each image.

    Raises
    ------
    UserError
        If an image changed, vanished or became unreadable since it was indexed.
    """
    # Sizes up to 512 share one decode; a larger one beside them needs its own for the pixels of `read_image`.
    sides = sorted(set(map(draft_side, targets)))

    def squares(path: Path, side: int) -> dict[int, np.ndarray]:
        image = read_image(path, max_megapixels, side)
        return {size: make_square(image, size, fit, interpolation) for size in targets if draft_side(size) == side}

    def row(image: tuple[str, str]) -> dict[int, np.ndarray]:
        path, content = Path(image[0]), image[1]
        # Keys are made of content hashes: pixels of another content must never be stored under them.
        if hash_file(path) != content:
            raise UserError(f"{path}: the image changed or vanished since it was indexed; run again to index it anew")
        try:
            # One after the other, so that there is only one decoded image at a time.
            return {size: square for side in sides for size, square in squares(path, side).items()}
        except UnreadableImage as error:
            raise UserError(f"{path}: {error}; run again to index the images anew") from error

    with ExitStack() as files:
        writers = {}
        for size, path in targets.items():
            metadata = {"version": str(CACHE_VERSION), "size": str(size), "fit": fit}
            writers[size] = files.enter_context(RowWriter(path, size * size * 3, np.uint8, metadata))
        images = zip(index.rows["path"].to_pylist(), index.rows["content"].to_pylist(), strict=True)
        for done, made in enumerate(map_in_order(row, images, threads, in_flight=4 * threads), start=1):
            for size, writer in writers.items():
                writer.append(made[size].reshape(1, -1))
            if progress is not None:
                progress(done, len(index))


class ImageCache:
    """A file that `build_image_caches` wrote, memory-mapped: opening is instant, and only the rows asked for are read.

    Its `size` is the side of the squares in pixels; its `fit`, how images became square. A `UserError` if the file is
    not such a cache, is incomplete, or is of another version.
    """

    def __init__(self, path: Path) -> None:
        self._rows = RowFile(path)
        version = self._rows.metadata.get("version")
        if version != str(CACHE_VERSION):
            raise UserError(f"{path} has cache version {version}, not {CACHE_VERSION}; delete it and run again")
        self.size, self.fit = int(self._rows.metadata["size"]), self._rows.metadata["fit"]

    def __len__(self) -> int:
        return len(self._rows)

    def gather(self, rows: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Copy the images at positions (B,) of the index, as `RowFile.gather`: (B, 3, size, size), channels last."""
        return self._rows.gather(rows).view(-1, self.size, self.size, 3).permute(0, 3, 1, 2)


def usable_size(index: Index, native: int) -> int:
    """The default training size: `native`, the side that the weights were trained at, unless images are much smaller.

    At most eight times the median of the images' shorter sides, rounded to a multiple of 32.
    """
    width, height = (index.rows[name].to_numpy() for name in ("width", "height"))
    limit = 8 * float(np.median(np.minimum(width, height)))
    return min(native, max(32, 32 * round(limit / 32)))
