"""How large a cache may become: what was not used for longest goes first, and never what a living process uses.

A process keeps a list of the cached files that it asked for in ``.in-use``, beside a lock that it holds until it ends,
however it ends. Whoever removes a file holds the lock of its builders and looks at the lists under it; whoever wants a
file first puts it onto a list and then waits for that lock. So a file is either seen in use, or seen missing.
"""

import os
import re
import shutil
import threading
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from unfreeze.models.errors import UserError
from unfreeze.models.store.sealed_files import SUFFIX, checksum_file

LIMIT = "UNFREEZE_CACHE_LIMIT"
"""Variable: the most that the cached files may take, such as ``20 GB``; without it, a fifth of the disk."""
_IN_USE = ".in-use"
_guard = threading.Lock()


class Cached(NamedTuple):
    """A cached file or folder: where it is, its bytes, and when it was last asked for (seconds since 1970)."""

    path: Path
    size: int
    used: float


class _List:
    """The files that this process uses, for other processes to read."""

    def __init__(self, cache: Path) -> None:
        (cache / _IN_USE).mkdir(parents=True, exist_ok=True)
        self.path = cache / _IN_USE / f"{uuid.uuid4().hex}.txt"
        # Not of one thread: it is held until the process ends.
        self._lock = FileLock(f"{self.path}.lock", thread_local=False)
        self._lock.acquire()
        self._names: set[str] = set()
        self.path.touch()

    def add(self, names: Iterable[str]) -> None:
        new = set(names) - self._names
        with self.path.open("a") as file:
            file.writelines(f"{name}\n" for name in sorted(new))
        self._names |= new


_lists: dict[Path, _List] = {}


def hold(cache: Path, paths: Iterable[Path]) -> None:
    """Keep cached files from being removed while this process lives, and remember that they are used now."""
    with _guard:
        if cache not in _lists or not _lists[cache].path.exists():
            _lists[cache] = _List(cache)
        _lists[cache].add(path.relative_to(cache).as_posix() for path in paths)


def size_limit(cache: Path) -> int:
    """Bytes that the cached files may take.

    Raises
    ------
    UserError
        If the variable `LIMIT` holds no size.
    """
    text = os.environ.get(LIMIT, "").strip()
    if not text:
        return shutil.disk_usage(cache).total // 5
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([KMGT]?)(?:I?B)?", text.upper())
    if match is None:
        raise UserError(f"{LIMIT}: {text!r} is not a size; give bytes, or a number with kB, MB, GB or TB, as in 20 GB")
    return int(float(match[1]) * 1000 ** " KMGT".index(match[2] or " "))


def cached_files(cache: Path) -> list[Cached]:
    """All cached files, those that were not used for longest first."""
    found = []
    for beside in _within(cache, f"*{SUFFIX}"):
        path = beside.with_name(beside.name.removesuffix(SUFFIX))
        try:
            parts = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
            found.append(Cached(path, sum(each.stat().st_size for each in parts), beside.stat().st_mtime))
        except FileNotFoundError:  # removed by another process
            continue
    return sorted(found, key=lambda each: each.used)


def evict(cache: Path, limit: int) -> list[Cached]:
    """Remove files until the others take at most `limit` bytes, or are in use; returns those that were removed."""
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
    """Remove a cached file unless a living process uses or builds it; whether it was removed."""
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    try:
        if path.relative_to(cache).as_posix() in in_use(cache):
            return False
        remove_tree(path)
        checksum_file(path).unlink(missing_ok=True)
    finally:
        lock.release()
    return True


def remove_tree(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def in_use(cache: Path) -> set[str]:
    """Names below `cache` of the files that living processes use; lists of ended ones are removed."""
    names = set[str]()
    for path in (cache / _IN_USE).glob("*.txt"):
        lock = FileLock(f"{path}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            names |= set(path.read_text().splitlines())
            continue
        path.unlink(missing_ok=True)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
    return names


def unfinished_files(cache: Path) -> list[Path]:
    """What builders that were killed left behind."""
    return [path for path in _within(cache, "*.partial*") if not _is_being_built(path)]


def _within(cache: Path, pattern: str) -> list[Path]:
    """What matches in the folders of a cache and in those within them; not within files that are folders."""
    found = list(cache.glob(f"*/{pattern}"))
    for path in cache.glob(f"*/*/{pattern}"):
        folder = path.parent
        if not checksum_file(folder).exists() and ".partial" not in folder.name:
            found.append(path)
    return found


def _is_being_built(path: Path) -> bool:
    wanted = path.name.removesuffix(SUFFIX).rsplit(".", 2)[0]
    lock = FileLock(path.with_name(f"{wanted}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
