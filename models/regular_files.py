"""Detection of special files: opening a named pipe would block, and a device may never end."""

import os
import stat
from pathlib import Path

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
