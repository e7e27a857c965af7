"""Locks that last as long as their process: the kernel releases them even after kill -9."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_held: set[int] = set()
"""Descriptors of this process's locks; a forked child closes its copies, which would keep the locks."""


def hold(path: Path, shared: bool = False) -> int | None:
    """Lock a file until `release` or the end of this process.

    Parameters
    ----------
    path
        Created if missing, with its folder.
    shared
        Whether other processes may hold it too, if they also pass `shared`.

    Returns
    -------
    int or None
        The descriptor for `release`; None if another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)  # not inherited by child processes
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    _held.add(descriptor)
    return descriptor


def release(descriptor: int) -> None:
    """Release a lock."""
    _held.discard(descriptor)
    os.close(descriptor)


@contextmanager
def holding(path: Path) -> Iterator[bool]:
    """Try to hold a lock while the block runs; yields whether that succeeded."""
    descriptor = hold(path)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            release(descriptor)


def _forget() -> None:
    for descriptor in tuple(_held):
        release(descriptor)


os.register_at_fork(after_in_child=_forget)
