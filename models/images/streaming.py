"""Images in at one end, numbers out at the other: threads decode ahead of the forward pass, in bounded memory.

Where the forward pass has a device of its own, threads decode meanwhile. On a CPU both want the same cores, and a pass
waits for the slowest of its threads: there a few batches are decoded on all cores, and then computed on all cores. That
was a sixth faster than decoding beside the pass (185 against 161 images a second on two cores, efficientnet-lite0).
"""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unfreeze.models.images.decode import UnreadableImage, map_in_order

THREADS = max(2, os.cpu_count() or 2)
"""Threads that decode; PIL leaves the interpreter free meanwhile, and so does the forward pass."""
BATCHES_AHEAD = 4
"""Batches that are decoded, at most, before the forward pass takes them."""

ImageSource = bytes | str | Path
"""Encoded bytes, or a file."""
Decoded = tuple[int, np.ndarray | str]
"""Position, and pixels or the reason why there are none."""


class Chunk(NamedTuple):
    """What became of some images in a row.

    Attributes
    ----------
    positions : numpy.ndarray
        Those that could be read, (n,) int64, ascending.
    results : numpy.ndarray
        A row for each of them, (n, K).
    unreadable : dict of int to str
        Position -> reason, of the others.
    """

    positions: np.ndarray
    results: np.ndarray
    unreadable: dict[int, str]


def stream(
    images: Sequence[ImageSource],
    decode: Callable[[ImageSource], np.ndarray],
    compute: Callable[[np.ndarray, np.ndarray], np.ndarray],
    batch_size: int,
    chunk: int,
    start: int = 0,
    overlap: bool = True,
    threads: int = THREADS,
) -> Generator[Chunk, None, None]:
    """Decode and compute, chunk by chunk, in order.

    A batch never reaches over the end of a chunk: whoever starts again at a chunk gets, bit for bit, what an
    uninterrupted pass gives. Memory: `BATCHES_AHEAD` decoded batches, the one under way and a chunk of results,
    besides an image in each thread, whatever the number of images.

    Parameters
    ----------
    images
        All of them.
    decode
        Makes an image an array of a fixed shape, or raises `UnreadableImage`. Called on threads.
    compute
        (decoded (B, ...), positions (B,) int64) -> results (B, K). Called here.
    batch_size
        Images per call of `compute`, at most.
    chunk
        Images per chunk; the last may have fewer.
    start
        Position of the first image to read; chunks are counted from there.
    overlap
        Whether to decode while `compute` runs, or in turns with it.
    threads
        That decode.
    """

    def decoded(position: int) -> Decoded:
        try:
            return position, decode(images[position])
        except UnreadableImage as error:
            return position, str(error)

    in_turn = map_in_order if overlap else _lot_by_lot
    ahead = in_turn(decoded, range(start, len(images)), threads, BATCHES_AHEAD * batch_size)
    with closing(ahead):  # stopped in the middle, the threads must not continue decoding
        for first in range(start, len(images), chunk):
            yield _one_chunk(islice(ahead, min(chunk, len(images) - first)), compute, batch_size)


def _lot_by_lot(
    function: Callable[[int], Decoded], items: Sequence[int], threads: int, lot: int
) -> Generator[Decoded, None, None]:
    """As `map_in_order`, but the threads rest while the results of a lot are taken."""
    with ThreadPoolExecutor(threads, thread_name_prefix="images") as pool:
        for first in range(0, len(items), lot):
            yield from list(pool.map(function, items[first : first + lot]))


def _one_chunk(
    decoded: Iterator[Decoded],
    compute: Callable[[np.ndarray, np.ndarray], np.ndarray],
    batch_size: int,
) -> Chunk:
    unreadable: dict[int, str] = {}
    positions: list[int] = []
    batch: list[np.ndarray] = []
    results: list[np.ndarray] = []

    def flush() -> None:
        results.append(compute(np.stack(batch), np.array(positions[-len(batch) :], dtype=np.int64)))
        batch.clear()

    for position, image in decoded:
        if isinstance(image, str):
            unreadable[position] = image
            continue
        positions.append(position)
        batch.append(image)
        if len(batch) == batch_size:
            flush()
    if batch:
        flush()
    together = np.concatenate(results) if results else np.empty((0, 0))
    return Chunk(np.array(positions, dtype=np.int64), together, unreadable)
