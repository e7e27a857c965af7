"""Locks that a process holds while it lives: the kernel releases them however it ends, kill -9 included."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_held: set[int] = set()
"""Descriptors of this process's locks; a forked child closes its copies, by which it would hold them as well."""


def hold(path: Path, shared: bool = False) -> int | None:
    """Lock a file for as long as this process lives, or until `release`.

    Parameters
    ----------
    path
        Made if it is missing, together with its folder.
    shared
        Whether other processes may hold it as well, if they say so too.

    Returns
    -------
    int or None
        The descriptor for `release`; None if another holder is in the way.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)  # not inherited by processes that are started from here
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    _held.add(descriptor)
    return descriptor


def release(descriptor: int) -> None:
    """Let go of a lock."""
    _held.discard(descriptor)
    os.close(descriptor)


@contextmanager
def holding(path: Path) -> Iterator[bool]:
    """Try to hold a lock while the block runs; yields whether it is held."""
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
