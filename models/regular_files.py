"""Files that can be read from beginning to end: opening a named pipe would wait for ever, a device may never end."""

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
    """What a path leads to in words, if that is neither a file nor a folder; links are followed."""
    try:
        return _KINDS.get(stat.S_IFMT(os.stat(path).st_mode))
    except (OSError, ValueError):  # what is not there, or cannot be a path, is for the caller to report
        return None
