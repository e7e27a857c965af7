"""Paths as people write them."""

import os
import stat
from pathlib import Path


def given_path(path: str | Path) -> Path:
    """Return the path with `~` and `~user` replaced by their home folders; the name of no user stays as it is.

    Unlike `pathlib.Path.expanduser`, which raises a `RuntimeError` for it: ``~draft`` may be a file here.

    Examples
    --------
    >>> given_path("~no-such-user/photos").parts
    ('~no-such-user', 'photos')
    """
    return Path(os.path.expanduser(path))


_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def irregular_kind(path: Path | str) -> str | None:
    """What a path leads to, such as ``a named pipe``, or None for a file, a folder or nothing; follows links."""
    try:
        return _KINDS.get(stat.S_IFMT(os.stat(path).st_mode))
    except (OSError, ValueError):  # missing files and invalid paths are for the caller to report
        return None
