"""Sources and outputs at URLs, in any file system of fsspec: S3, Google Cloud Storage, Azure, HTTP, Hugging Face."""

import errno
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from fsspec.core import url_to_fs
from fsspec.spec import AbstractFileSystem

from unfreeze.models.errors import UserError, one_line
from unfreeze.models.settings.addresses import masked
from unfreeze.models.store.copies import Made, copies_in
from unfreeze.models.store.paths import given_path
from unfreeze.models.store.workspace import Workspace, key_of

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://.")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
_EXTRAS |= {"http": "http", "https": "http"}
"""Scheme -> extra of this package with its file system."""
_WEB = ("http", "https")
_WHOLE = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf")
"""Schemes of stores where an object appears whole or not at all."""
_TAGS: tuple[str, ...] = ("ETag", "etag", "md5Hash", "blob_id", "LastModified", "last_modified", "Last-Modified")
_TAGS += ("updated", "mtime", "created")
"""Fields of a listing that change with an object's content, the most reliable first."""
_OWN_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_MOST_FILES, _MOST_BYTES = 256, 2**28
"""Files and bytes fetched before they are recorded as copied."""
Progress = Callable[[int, int], None]


def is_url(source: str) -> bool:
    """Whether a source is a URL such as ``s3://bucket/photos``, rather than a path or a name."""
    return _SCHEME.match(source) is not None


def local_source(source: str, workspace: Workspace) -> Path:
    """Local path of a source: a URL is copied to the data folder first; see `mirror`."""
    if not is_url(source):
        return given_path(source)
    with workspace.progress(f"Fetching {_name_of(source)}") as advance:
        return mirror(source, workspace.datasets / "copies", advance)


def mirror(url: str, into: Path, progress: Progress = lambda done, total: None) -> Path:
    """Copy the files at a URL that are new or changed, and remove the copies of those that are gone.

    Files are compared by the listing's etag or time, and size. A stopped copy is continued by the next call.

    Parameters
    ----------
    url
        A file or a folder; a folder of a web server ends with ``/`` and lists its files as links.
    into
        Folder of copies; each URL has a folder in it.
    progress
        Called with the number of files done and in all.

    Returns
    -------
    Path
        The copy, of the same name: a file, or a folder without files whose names begin with a dot.

    Raises
    ------
    UserError
        If nothing is there, it cannot be read, or the package of its file system is missing.
    """
    system = file_system(url)
    with _reaching(url):
        found = _files_at(url, system)
        identities = {name: _identity(system, info) for name, info in found.items()}
    name = _name_of(url)
    if not found:
        raise UserError(f"{url} holds no files")
    with copies_in(into / key_of(url.rstrip("/"))) as copies, copies.workplace() as place:
        wanted = copies.outdated(identities)
        for done, chunk in _chunks(wanted, found):
            progress(done, len(wanted))
            partial = {each: place / str(number) for number, each in enumerate(chunk)}
            try:
                with _reaching(url, f"; {done} of {len(wanted)} new files were fetched, the same command continues"):
                    system.get([found[each]["name"] for each in chunk], [*map(str, partial.values())])
            except UserError:
                # Of a batch that failed, those that are complete are kept.
                whole = [each for each in chunk if _is_whole(partial[each], found[each])]
                copies.keep(Made(each, partial[each], identities[each]) for each in whole)
                raise
            copies.keep(Made(each, partial[each], identities[each]) for each in chunk)
        progress(len(wanted), len(wanted))
        return copies.folder / name


def size_at(url: str) -> int | None:
    """Size in bytes of the file at a URL; None if there is none."""
    system = file_system(url)
    with _reaching(url):
        return int(system.size(url)) if system.exists(url) else None


def upload(file: Path, url: str) -> None:
    """Write a file to a URL, where it appears whole or not at all.

    Raises
    ------
    UserError
        If it cannot be written there.
    """
    system, scheme = file_system(url), _scheme(url)
    target = url if scheme in _WHOLE else f"{url}.unfinished"
    with _reaching(url):
        system.put_file(str(file), system._strip_protocol(target))
        if target != url:
            system.mv(system._strip_protocol(target), system._strip_protocol(url))


def file_system(url: str) -> AbstractFileSystem:
    """Open the file system of a URL; a `UserError` says which package is missing."""
    scheme = _scheme(url)
    try:
        with _reaching(url):
            system: AbstractFileSystem = url_to_fs(url)[0]
            system.invalidate_cache()  # listings of an earlier look
            return system
    except UserError as error:
        if isinstance(error.__cause__, ImportError):
            extra = _EXTRAS.get(scheme)
            package = f"'unfreeze[{extra}]'" if extra else one_line(error.__cause__).rpartition("Install ")[2]
            raise UserError(f"{url}: {scheme}:// needs a package: pip install {package}") from error
        raise


@contextmanager
def _reaching(url: str, remark: str = "") -> Iterator[None]:
    """Turn any error of a file system into one line."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{url} does not exist, or may not be read{remark}") from error
    except Exception as error:
        # Each file system raises the errors of its own libraries.
        if isinstance(error, OSError) and error.errno in _OWN_DISK:
            raise
        reason = masked(one_line(error)) or type(error).__name__
        raise UserError(f"{url}: {reason}{remark}") from error


def _files_at(url: str, system: AbstractFileSystem) -> dict[str, dict[str, Any]]:
    """Name of the copy -> what the listing says of each file; one request per page of a listing."""
    root, own = system._strip_protocol(url).rstrip("/"), _name_of(url)
    if _scheme(url) in _WEB and not url.endswith("/"):
        return {own: {**system.info(root), "name": root}}
    files = {}
    for path, info in system.find(url.rstrip("/") + "/" if _scheme(url) in _WEB else root, detail=True).items():
        below = path.removeprefix(root).strip("/")
        if _scheme(url) in _WEB:
            below = "" if urlsplit(path).query else unquote(below)  # links that sort the listing
            if not below:
                continue
        parts = below.split("/") if below else []
        if any(part in ("", "..") or "\0" in part for part in parts):
            raise UserError(f"{url} has a file named {below!r}, which no local file can be named; rename it")
        if info.get("type") != "directory" and not any(part.startswith(".") for part in parts):
            files[posixpath.join(own, *parts)] = {**info, "name": path}
    return files


def _identity(system: AbstractFileSystem, info: Mapping[str, Any]) -> str:
    if not any(info.get(tag) for tag in _TAGS):
        info = system.info(info["name"])  # a web server's listing has names only
    return f"{next((info[tag] for tag in _TAGS if info.get(tag)), '')} {info.get('size')}"


def _chunks(wanted: Sequence[str], found: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[int, list[str]]]:
    """Number of files before it, and the names, of each batch to fetch."""
    first, size = 0, 0
    for place, name in enumerate(wanted):
        if place > first and (place - first == _MOST_FILES or size >= _MOST_BYTES):
            yield first, [*wanted[first:place]]
            first, size = place, 0
        size += found[name].get("size") or 0
    if wanted:
        yield first, [*wanted[first:]]


def _is_whole(path: Path, info: Mapping[str, Any]) -> bool:
    return info.get("size") is not None and path.is_file() and path.stat().st_size == info["size"]


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower()


def _name_of(url: str) -> str:
    return unquote(PurePosixPath(url.partition("://")[2].partition("?")[0]).name)
