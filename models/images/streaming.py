"""Pictures in at one end, numbers out at the other: threads decode ahead of the forward pass, in bounded memory."""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.images.decode import UnreadablePicture, map_in_order

THREADS = max(2, os.cpu_count() or 2)
"""Threads that decode; PIL leaves the interpreter free meanwhile, and so does the forward pass."""
BATCHES_AHEAD = 3
"""Batches that are decoded, at most, before the forward pass takes them."""

Picture = bytes | str | Path
"""Encoded bytes, or a file."""


class Chunk(NamedTuple):
    """What became of some pictures in a row.

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
    pictures: Sequence[Picture],
    decode: Callable[[Picture], np.ndarray],
    compute: Callable[[np.ndarray, np.ndarray], np.ndarray],
    batch_size: int,
    chunk: int,
    start: int = 0,
    threads: int = THREADS,
) -> Generator[Chunk, None, None]:
    """Decode and compute, chunk by chunk, in order.

    A batch never reaches over the end of a chunk: whoever starts again at a chunk gets, bit for bit, what an
    uninterrupted pass gives. Memory: `BATCHES_AHEAD` decoded batches, the one under way and a chunk of results,
    besides a picture in each thread, whatever the number of pictures.

    Parameters
    ----------
    pictures
        All of them.
    decode
        Makes a picture an array of a fixed shape, or raises `UnreadablePicture`. Called on threads.
    compute
        (decoded (B, ...), positions (B,) int64) -> results (B, K). Called here.
    batch_size
        Pictures per call of `compute`, at most.
    chunk
        Pictures per chunk; the last may have fewer.
    start
        Position of the first picture to read; chunks are counted from there.
    threads
        That decode.
    """

    def decoded(position: int) -> tuple[int, np.ndarray | str]:
        try:
            return position, decode(pictures[position])
        except UnreadablePicture as error:
            return position, str(error)

    ahead = map_in_order(decoded, range(start, len(pictures)), threads, in_flight=BATCHES_AHEAD * batch_size)
    with closing(ahead):  # stopped in the middle, the threads must not go on decoding
        for first in range(start, len(pictures), chunk):
            yield _one_chunk(islice(ahead, min(chunk, len(pictures) - first)), compute, batch_size)


def _one_chunk(
    decoded: Iterator[tuple[int, np.ndarray | str]],
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

    for position, picture in decoded:
        if isinstance(picture, str):
            unreadable[position] = picture
            continue
        positions.append(position)
        batch.append(picture)
        if len(batch) == batch_size:
            flush()
    if batch:
        flush()
    together = np.concatenate(results) if results else np.empty((0, 0))
    return Chunk(np.array(positions, dtype=np.int64), together, unreadable)
