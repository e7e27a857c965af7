"""Content hashes of files that are kept, so that only new and changed files are read."""

import os
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa

from unfreeze.models.errors import UserError
from unfreeze.models.store.content import hash_file, map_in_order
from unfreeze.models.store.rows_on_disk import OnDisk, mapped, matched, rows_of, write_rows
from unfreeze.models.store.sealed_files import is_intact, publish
from unfreeze.models.store.workspace import locked

_STAMP = ("size", "modified", "changed", "inode")
_SCHEMA = pa.schema({"path": pa.binary(), **dict.fromkeys(_STAMP, pa.int64()), "content": pa.string()})
_BLOCK = 4_096
_SETTLED = 2_000_000_000
"""Nanoseconds since a file's last change after which a further change has another time on any file system."""
_UNKNOWN = (-1, -1, -1, -1)
_Stamp = tuple[int, ...]


def hash_changed(paths: Iterable[bytes], kept: Path, threads: int) -> OnDisk[str]:
    """Hash files as `hash_file` does, except those with the size, times and inode that they had when last hashed.

    The time of the last change of a file's status cannot be set by programs, so a file with an older modification time
    put in the place of another is found as well.

    Parameters
    ----------
    paths
        Sorted, or every file is read.
    kept
        File of the hashes, read and written here.
    """
    with locked([kept]):
        known = None
        if is_intact(kept):
            try:
                known = mapped(kept)
            except UserError:
                kept.unlink()
        unfinished = kept.with_name(f"{kept.name}.partial")
        write_rows(_rows(paths, known, threads), _SCHEMA, unfinished)
        publish(unfinished, kept)
        return OnDisk(mapped(kept).select(["content"]), str)


def _rows(paths: Iterable[bytes], known: pa.Table | None, threads: int) -> Iterator[tuple[bytes | int | str, ...]]:
    now = time.time_ns()
    files = matched(paths, _earlier(known))
    while block := list(islice(files, _BLOCK)):
        stamps = [_stamp(path, now) for path, _ in block]
        is_known = [
            earlier is not None and earlier[:-1] == stamp for (_, earlier), stamp in zip(block, stamps, strict=True)
        ]
        new = [Path(os.fsdecode(path)) for (path, _), known in zip(block, is_known, strict=True) if not known]
        hashes = iter(map_in_order(hash_file, new, threads, in_flight=16 * threads) if new else ())
        for (path, earlier), stamp, same in zip(block, stamps, is_known, strict=True):
            yield (path, *stamp, earlier[-1] if same and earlier else next(hashes))


def _earlier(known: pa.Table | None) -> Iterator[tuple[bytes, tuple[int | str, ...]]]:
    for path, size, *others in rows_of(known, *_SCHEMA.names) if known is not None else ():
        if size >= 0:
            yield path, (size, *others)


def _stamp(path: bytes, now: int) -> _Stamp:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return _UNKNOWN
    if now - max(status.st_ctime_ns, status.st_mtime_ns) < _SETTLED:
        return _UNKNOWN
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & 2**63 - 1
