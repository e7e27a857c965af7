"""Paths as people write them."""

import os
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
