"""Locks that last as long as their process: the kernel releases them even after kill -9."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_held: set[int] = set()
"""Descriptors of this process's locks; a forked child closes its copies, which would keep the locks."""


def hold(path: Path, shared: bool = False, seconds: float = 0.0) -> int | None:
    """Lock a file until `release` or the end of this process.

    Parameters
    ----------
    path
        Created if missing, with its folder.
    shared
        Whether other processes may hold it too, if they also pass `shared`.
    seconds
        How long to wait for another process to release it.

    Returns
    -------
    int or None
        The descriptor for `release`; None if another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)  # not inherited by child processes
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                os.close(descriptor)
                return None
            time.sleep(0.1)
        else:
            _held.add(descriptor)
            return descriptor


def release(descriptor: int) -> None:
    """Release a lock."""
    _held.discard(descriptor)
    os.close(descriptor)


@contextmanager
def holding(path: Path, seconds: float = 0.0) -> Iterator[bool]:
    """Try for `seconds` to hold a lock, while the block runs; yields whether that succeeded."""
    descriptor = hold(path, seconds=seconds)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            release(descriptor)


def _forget() -> None:
    for descriptor in tuple(_held):
        release(descriptor)


os.register_at_fork(after_in_child=_forget)
