"""Content hashes: an image is identified by the hash of its encoded bytes, not by its path."""

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import xxhash

from unfreeze.models.store.paths import irregular_kind

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, in_flight: int
) -> Generator[Result, None, None]:
    """Call `function` on threads and yield its results in the order of `items`.

    At most `in_flight` items are submitted and not yet yielded, which bounds memory.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="images") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= in_flight:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def hash_file(path: Path) -> str:
    """Hash a file's content: 16-byte blake2b in hexadecimal, or an empty string if it cannot be read."""
    if irregular_kind(path) is not None:
        return ""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, _blake2b).hexdigest()
    except OSError:
        return ""


def hash_image(image: bytes | str | Path) -> str:
    """Hash an encoded image, or an image file, as `hash_file` does."""
    return _blake2b(image).hexdigest() if isinstance(image, bytes) else hash_file(Path(image))


def hash_files(paths: Sequence[Path], threads: int) -> list[str]:
    """Hash files as `hash_file` does, in the order of `paths`."""
    return list(map_in_order(hash_file, paths, threads, in_flight=16 * threads))


def repeated(contents: Sequence[str]) -> dict[str, int]:
    """Contents that occur more than once, without the empty one, and how often."""
    numbers = np.fromiter((xxhash.xxh3_64_intdigest(each.encode()) for each in contents), np.uint64, len(contents))
    ordered = np.sort(numbers)
    double = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if not double:
        return {}
    counts = Counter(content for content, number in zip(contents, numbers, strict=True) if int(number) in double)
    return {content: count for content, count in counts.items() if content and count > 1}


def _blake2b(data: bytes = b"") -> "hashlib.blake2b":
    return hashlib.blake2b(data, digest_size=16)
