"""Files below a folder, without those added by operating systems, NAS devices and image viewers."""

import mimetypes
import os
import re
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

_SYSTEM_NAMES = {
    "__macosx",
    "__pycache__",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",
    "$recycle.bin",
    "recycler",
    "recycled",
    "#recycle",
    "#snapshot",
    "system volume information",
    "lost+found",
    "network trash folder",
    "temporary items",
    "thevolumesettingsfolder",
}
_THUMBNAILS = {"thumb", "thumbs", "thumbnail", "thumbnails", "_thumb", "_thumbs", "_thumbnails"}
_SMALLER = re.compile(r"[ ._-]?thumb(nail)?s?[ ._-]?|-\d+x\d+$")
_TYPES = mimetypes.MimeTypes()
"""Python's built-in MIME table; the system's differs between machines."""


def is_system_name(name: str) -> bool:
    """Whether a name is hidden or belongs to the system (``@eaDir``, ``Thumbs.db``)."""
    return name.startswith((".", "@", "~$")) or name.casefold() in _SYSTEM_NAMES


def may_be_image(name: str) -> bool:
    """Whether a file's suffix is an image suffix or unknown."""
    return _is_image_suffix(os.path.splitext(name)[1].lower())


@cache
def _is_image_suffix(suffix: str) -> bool:
    kind = _TYPES.guess_type(f"file{suffix}")[0]
    return kind is None or kind.startswith("image/")


def files_below(folder: str | Path, without: Collection[str] = (), skipped: set[str] | None = None) -> Iterator[str]:
    """Yield the paths of all files below a folder, in no particular order; links to folders are followed.

    Parameters
    ----------
    without
        Absolute paths of files and folders to leave out.
    skipped
        Receives the names of skipped system files, system folders and thumbnail folders, except names that start with
        a dot.
    """
    for place, folders, names in os.walk(folder, followlinks=True):
        beside = {_stem(name) for name in (*folders, *names)}
        left_out = [name for name in (*folders, *names) if is_system_name(name)]
        left_out += [name for name in folders if _holds_thumbnails(os.path.join(place, name), beside)]
        left_out += [name for name in names if _is_thumbnail(_stem(name), beside)]
        if skipped is not None:
            skipped.update(name for name in left_out if not name.startswith("."))
        paths = {name: os.path.join(place, name) for name in (*folders, *names) if name not in left_out}
        folders[:] = [name for name in folders if name in paths and not _leads_back(paths[name])]
        folders[:] = [name for name in folders if paths[name] not in without]
        yield from (paths[name] for name in names if name in paths and paths[name] not in without)


def _holds_thumbnails(folder: str, beside: Collection[str]) -> bool:
    """Whether a folder of that name holds files or folders named like those beside it."""
    if os.path.basename(folder).casefold() not in _THUMBNAILS:
        return False
    return any(_stem(name) in beside for name in os.listdir(folder))


def _is_thumbnail(stem: str, beside: Collection[str]) -> bool:
    """Whether a file is a thumbnail of one beside it, such as ``1_thumb`` or ``1-150x150`` of ``1``."""
    original = _SMALLER.sub("", stem, count=1)
    return original != stem and original in beside


def _leads_back(folder: str) -> bool:
    """Whether a link points to one of its own parent folders."""
    if not os.path.islink(folder):
        return False
    real, place = os.path.realpath(folder), os.path.realpath(os.path.dirname(folder))
    return os.path.commonpath([real, place]) == real


def _stem(name: str) -> str:
    return os.path.splitext(name)[0].casefold()
