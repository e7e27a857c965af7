"""Files below a folder, without those added by operating systems, NAS devices and image viewers."""

import mimetypes
import os
import re
from collections.abc import Collection, Container, Iterable, Iterator
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
    """Yield the paths of all files below a folder, sorted; links to folders are followed.

    Memory: the names of one folder at a time.

    Parameters
    ----------
    without
        Absolute paths of files and folders to leave out.
    skipped
        Receives the names of skipped system files, system folders and thumbnail folders, except names that start with
        a dot.
    """
    place = os.fspath(folder)
    try:
        with os.scandir(place) as entries:
            is_folder = {entry.name: entry.is_dir() for entry in entries}
    except OSError:
        return
    beside = _Stems(is_folder)
    # A folder's files sort as if its name ended with the separator.
    for name in sorted(is_folder, key=lambda name: name + os.sep if is_folder[name] else name):
        path = os.path.join(place, name)
        is_smaller = _holds_thumbnails(path, beside) if is_folder[name] else _is_thumbnail(name, beside)
        if is_smaller or is_system_name(name):
            if skipped is not None and not name.startswith("."):
                skipped.add(name)
        elif path in without:
            continue
        elif not is_folder[name]:
            yield path
        elif not _leads_back(path):
            yield from files_below(path, without, skipped)


class _Stems:
    """Stems of the names in a folder, made when the first is looked for."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names, self._stems = names, set[str]()

    def __contains__(self, stem: object) -> bool:
        self._stems = self._stems or {_stem(name) for name in self._names}
        return stem in self._stems


def _holds_thumbnails(folder: str, beside: Container[str]) -> bool:
    """Whether a folder of that name holds files or folders named like those beside it."""
    if os.path.basename(folder).casefold() not in _THUMBNAILS:
        return False
    return any(_stem(name) in beside for name in os.listdir(folder))


def _is_thumbnail(name: str, beside: Container[str]) -> bool:
    """Whether a file is a thumbnail of one beside it, such as ``1_thumb`` or ``1-150x150`` of ``1``."""
    stem = _stem(name)
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
