"""Cache size limit: evicts the least recently used files, except those in use by a running process.

A process that requests a file locks the file's byte in ``.in-use`` until it exits, and only then waits for the build
lock. Eviction holds the build lock, so a requested file is either protected or already gone.
"""

import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from pydantic import ByteSize, TypeAdapter, ValidationError

from unfreeze.models.errors import UserError
from unfreeze.models.store.sealed_files import SUFFIX, checksum_file

LIMIT = "UNFREEZE_CACHE_LIMIT"
"""Environment variable with the cache size limit, such as ``20 GB``; default: a fifth of the disk."""
_IN_USE = ".in-use"
_guard = threading.Lock()
_open = dict[Path, int]()
_held = set[Path]()


class Cached(NamedTuple):
    """A cached file or folder: path, size in bytes, and time of last use (seconds since 1970)."""

    path: Path
    size: int
    used: float


def hold(cache: Path, paths: Iterable[Path]) -> None:
    """Protect cached files from removal while this process runs."""
    with _guard:
        for path in set(paths) - _held:
            fcntl.lockf(_locks(cache), fcntl.LOCK_SH, 1, _place(path))
            _held.add(path)


def is_in_use(cache: Path, path: Path) -> bool:
    """Whether a running process uses a cached file."""
    with _guard:
        if path in _held:
            return True
        try:
            fcntl.lockf(_locks(cache), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(path))
        except OSError:
            return True
        fcntl.lockf(_locks(cache), fcntl.LOCK_UN, 1, _place(path))
    return False


def _locks(cache: Path) -> int:
    """Descriptor of a cache's lock file; it stays open because closing any descriptor releases all locks."""
    if cache not in _open:
        cache.mkdir(parents=True, exist_ok=True)
        _open[cache] = os.open(cache / _IN_USE, os.O_RDWR | os.O_CREAT, 0o600)
    return _open[cache]


def _place(path: Path) -> int:
    """Byte offset of a cached file in the lock file."""
    return int.from_bytes(hashlib.blake2b(f"{path.parent.name}/{path.name}".encode(), digest_size=7).digest())


def size_limit(cache: Path) -> int:
    """Cache size limit in bytes.

    Raises
    ------
    UserError
        If the variable `LIMIT` is not a valid size.
    """
    text = os.environ.get(LIMIT, "").strip()
    if not text:
        return shutil.disk_usage(cache).total // 5
    try:
        return TypeAdapter(ByteSize).validate_python(text)
    except ValidationError as error:
        raise UserError(f"{LIMIT}: {text!r} is not a size; give it as in 20 GB") from error


def cached_files(cache: Path) -> list[Cached]:
    """List all cached files, least recently used first."""
    found = []
    for beside in cache.glob(f"*/*{SUFFIX}"):
        path = beside.with_name(beside.name.removesuffix(SUFFIX))
        try:
            parts = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
            found.append(Cached(path, sum(each.stat().st_size for each in parts), beside.stat().st_mtime))
        except FileNotFoundError:  # removed by another process
            continue
    return sorted(found, key=lambda each: each.used)


def evict(cache: Path, limit: int) -> list[Cached]:
    """Remove least recently used files until the cache fits `limit` or the rest is in use; return the removed files."""
    files, removed = cached_files(cache), list[Cached]()
    total = sum(each.size for each in files)
    for each in files:
        if total <= limit:
            break
        if remove(cache, each.path):
            removed.append(each)
            total -= each.size
    return removed


def remove(cache: Path, path: Path) -> bool:
    """Remove a cached file unless a running process uses or builds it; return whether it was removed."""
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    try:
        if is_in_use(cache, path):
            return False
        remove_tree(path)
        checksum_file(path).unlink(missing_ok=True)
    finally:
        lock.release()
    return True


def remove_tree(path: Path) -> None:
    """Remove a file or a folder tree, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def unfinished_files(cache: Path) -> list[Path]:
    """List partial files left by killed builders."""
    return [path for path in cache.glob("*/*.partial*") if not _is_being_built(path)]


def _is_being_built(path: Path) -> bool:
    wanted = path.name.removesuffix(SUFFIX).rsplit(".", 2)[0]
    lock = FileLock(path.with_name(f"{wanted}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
