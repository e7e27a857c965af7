"""User-supplied paths."""

import os
import stat
from pathlib import Path


def given_path(path: str | Path) -> Path:
    """Expand `~` and `~user` to home folders; an unknown user's name is kept as it is.

    Unlike `pathlib.Path.expanduser`, which raises a `RuntimeError`: ``~draft`` may be a file.

    Examples
    --------
    >>> given_path("~no-such-user/photos").parts
    ('~no-such-user', 'photos')
    """
    return Path(os.path.expanduser(path))


def data_folder() -> Path:
    """The data folder: ``$UNFREEZE_HOME``, or ``.unfreeze`` in the working folder."""
    return given_path(os.environ.get("UNFREEZE_HOME", ".unfreeze")).resolve()


_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def irregular_kind(path: Path | str) -> str | None:
    """Kind of a special file, such as ``a named pipe``; None for a file, a folder or a missing path. Follows links."""
    try:
        return _KINDS.get(stat.S_IFMT(os.stat(path).st_mode))
    except (OSError, ValueError):  # missing files and invalid paths are for the caller to report
        return None
