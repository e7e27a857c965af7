"""The bytes of a file, also of a compressed one, and what their beginning says about it."""

import lzma
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from unfreeze.models.errors import UserError, one_line

_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz"}
_OTHERS = {
    b"PAR1": "parquet",
    b"ARROW1": "feather",
    b"PK\x03\x04": "zip",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "spreadsheet",  # the container of .xls
}
_SPREADSHEET_PARTS = {"[Content_Types].xml", "mimetype"}


class OpenBytes(NamedTuple):
    """A stream that pyarrow reads, and the open file below it, whose place tells the progress."""

    stream: Any
    file: Any


def kind_of(path: Path) -> str:
    """What a file is by its first bytes: ``parquet``, ``feather``, ``spreadsheet``, ``zip``, or else ``text``.

    A compressed file is what is in it, except that only text is looked for there.
    """
    with open(path, "rb") as file:
        beginning = file.read(8)
    kind = next((kind for magic, kind in _OTHERS.items() if beginning.startswith(magic)), "text")
    return "spreadsheet" if kind == "zip" and _SPREADSHEET_PARTS & {*_members(path)} else kind


@contextmanager
def open_bytes(path: Path) -> Iterator[OpenBytes]:
    """Open a file that may be compressed by gzip, bzip2, zstd or xz, or be the only one in a zip archive.

    Raises UserError where it is compressed but damaged, or several files are in the archive.
    """
    with open(path, "rb") as file:
        beginning = file.read(8)
        file.seek(0)
        codec = next((codec for magic, codec in _COMPRESSED.items() if beginning.startswith(magic)), None)
        if codec is None and not beginning.startswith(b"PK\x03\x04"):
            with pa.OSFile(str(path)) as whole:
                yield OpenBytes(whole, whole)
            return
        try:
            if codec is None:
                with zipfile.ZipFile(file).open(_only_member(path)) as member:
                    yield OpenBytes(pa.PythonFile(member, mode="r"), file)
            elif codec == "xz":
                with lzma.open(file) as plain:
                    yield OpenBytes(pa.PythonFile(plain, mode="r"), file)
            else:
                yield OpenBytes(pa.CompressedInputStream(pa.PythonFile(file, mode="r"), codec), file)
        except (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise UserError(f"{path} cannot be decompressed ({one_line(error)}); make the archive again") from error


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is a damaged zip archive ({one_line(error)}); make it again") from error


def _only_member(path: Path) -> str:
    names = _members(path)
    if len(names) != 1:
        shown = f": {', '.join(names[:5])}" if names else ""
        raise UserError(f"{path} holds {len(names)} files{shown}; unpack it and give the one that is meant")
    return names[0]
