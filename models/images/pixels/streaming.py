"""Images in at one end, numbers out at the other: threads decode ahead of the forward pass, in bounded memory.

Where the forward pass has a device of its own, threads decode meanwhile. On a CPU both want the same cores, and a pass
waits for the slowest of its threads: there a few batches are decoded on all cores, and then computed on all cores. That
was a sixth faster than decoding beside the pass (185 against 161 images a second on two cores, efficientnet-lite0).
"""

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unfreeze.models.images.pixels.decode import UnreadableImage
from unfreeze.models.store.content import map_in_order

THREADS = max(2, os.cpu_count() or 2)
"""Threads that decode; PIL leaves the interpreter free meanwhile, and so does the forward pass."""
BATCHES_AHEAD = 4
"""Batches that are decoded, at most, before the forward pass takes them."""

ImageSource = bytes | str | Path
"""Encoded bytes, or a file."""
Decoded = tuple[int, np.ndarray | str]
"""Position, and pixels or the reason why there are none."""
Compute = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(decoded (B, ...), positions (B,) int64) -> results (B, K)."""


class Chunk(NamedTuple):
    """Results of consecutive images."""

    positions: np.ndarray
    """Of images that could be read, (n,) int64, ascending."""
    results: np.ndarray
    """A row for each of them, (n, K)."""
    unreadable: dict[int, str]
    """Position -> reason, of the others."""


def stream(
    images: Sequence[ImageSource],
    decode: Callable[[ImageSource], np.ndarray],
    compute: Compute,
    batch_size: int,
    chunk: int,
    start: int = 0,
    overlap: bool = True,
    threads: int = THREADS,
) -> Generator[Chunk, None, None]:
    """Decode and compute, chunk by chunk, in order.

    A batch never reaches over the end of a chunk: a stream that starts at a chunk gives, bit for bit, what an
    uninterrupted one does. Memory: `BATCHES_AHEAD` decoded batches, the current one and a chunk of results, besides an
    image in each thread, whatever the number of images.

    Parameters
    ----------
    decode
        Makes an image an array of a fixed shape, or raises `UnreadableImage`. Called on threads.
    compute
        Called in the caller's thread, with at most `batch_size` images.
    start
        Position of the first image to read; chunks are counted from there.
    overlap
        Whether to decode while `compute` runs, or in turns with it.
    """

    def decoded(position: int) -> Decoded:
        try:
            return position, decode(images[position])
        except UnreadableImage as error:
            return position, str(error)

    def in_turns(lot: int) -> Generator[Decoded, None, None]:
        for first in range(start, len(images), lot):
            yield from list(map_in_order(decoded, range(first, min(first + lot, len(images))), threads, lot))

    lot = BATCHES_AHEAD * batch_size
    ahead = map_in_order(decoded, range(start, len(images)), threads, lot) if overlap else in_turns(lot)
    with closing(ahead):  # stopped in the middle, the threads must not continue decoding
        for first in range(start, len(images), chunk):
            yield _one_chunk(islice(ahead, min(chunk, len(images) - first)), compute, batch_size)


def _one_chunk(decoded: Iterable[Decoded], compute: Compute, batch_size: int) -> Chunk:
    unreadable: dict[int, str] = {}

    def readable() -> Generator[tuple[int, np.ndarray], None, None]:
        for position, image in decoded:
            if isinstance(image, str):
                unreadable[position] = image
            else:
                yield position, image

    images = readable()
    positions: list[int] = []
    results: list[np.ndarray] = []
    while batch := list(islice(images, batch_size)):
        here, squares = zip(*batch, strict=True)
        positions += here
        results.append(compute(np.stack(squares), np.array(here, dtype=np.int64)))
    together = np.concatenate(results) if results else np.empty((0, 0))
    return Chunk(np.array(positions, dtype=np.int64), together, unreadable)
