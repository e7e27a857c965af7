"""Common parts of table files: decompression, the header row, usable columns, rows in blocks."""

import lzma
import re
import zipfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from unfreeze.models.errors import UserError, one_line

_LETTER = re.compile(r"[^\W\d_]")
_YEARS = range(1900, 2101)
_SHOWN = 4
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz"}
_OTHER_KINDS = {
    b"PAR1": "parquet",
    b"ARROW1": "feather",
    b"PK\x03\x04": "zip",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "spreadsheet",  # container of .xls
}
_SPREADSHEET_PARTS = {"[Content_Types].xml", "mimetype"}
_INDEX = re.compile(r"|Unnamed: 0(\.\d+)*|__index_level_\d+__")


def find_header(rows: Sequence[Sequence[str]], where: str) -> tuple[int, list[str], list[str]]:
    """Find the header among the first, non-empty rows of a table.

    Returns its row, counted from 0, a name per column (empty if it has none), and notes.

    Titles above the header, which fill at most half of the columns, are skipped. Rows with one field more than the
    header begin with a row name, as R writes them, or end with a separator.

    Raises
    ------
    UserError
        If the first row looks like data: numbers above numbers, or texts that recur below.
    """
    counts = Counter(map(len, rows))
    width = max(counts, key=lambda width: (counts[width], width))
    row = next((place for place, cells in enumerate(rows) if not _is_title(cells, width)), 0)
    if len(rows[0]) == width - 1 and width == 2:  # one column beside R's row names
        row = 0
    names, data = [cell if cell.strip() else "" for cell in rows[row]], rows[row + 1 :]
    while len(names) > width and not names[-1]:
        names.pop()
    if len(names) == width - 1 and data:
        last = all(not cells[-1].strip() for cells in data if len(cells) == width)
        names = [*names, ""] if last else ["", *names]
    notes = []
    if row:
        titles = [" ".join(filter(None, map(str.strip, cells))) for cells in rows[:row]]
        shown = ", ".join(repr(title[:40]) for title in titles[:3])
        notes.append(f"{row} row{'s' * (row > 1)} above the names of the columns skipped: {shown}")
    columns = [[cells[place].strip() for cells in data if len(cells) == len(names)] for place in range(len(names))]
    filled = [[*filter(None, column)] for column in columns]
    return row, names, notes + _check([name.strip() for name in names], filled, where)


def _is_title(cells: Sequence[str], width: int) -> bool:
    filled = [bool(cell.strip()) for cell in cells]
    if width == 1 or (not filled[0] and all(filled[1:])):  # an index often has no name
        return False
    return sum(filled) <= width / 2


def _check(names: Sequence[str], columns: Sequence[Sequence[str]], where: str) -> list[str]:
    """Check the header and return notes on it; `UserError` if it looks like values."""
    numeric = [bool(column) and all(map(_is_number, column)) for column in columns]
    if any(number and name and not _is_number(name) for name, number in zip(names, numeric, strict=True)):
        return []
    numbers = [name for name, number in zip(names, numeric, strict=True) if number and _is_number(name)]
    texts = [place for place, column in enumerate(columns) if column and not numeric[place]]
    repeated = [place for place in texts if names[place] in columns[place]]
    shown = ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
    if (numbers and not _counts(numbers)) or (not numbers and texts and len(repeated) * 2 >= len(texts)):
        raise UserError(
            f"{where}: its first row looks like values, not like names of columns: {shown}; put a row of names above it"
        )
    return [f"the first row is taken for names of columns: {shown}"] if numbers else []


def _is_number(cell: str) -> bool:
    """Whether a cell is a number, a date or an amount: digits, and no letter."""
    return any(map(str.isdigit, cell)) and not _LETTER.search(cell)


def _counts(numbers: Sequence[str]) -> bool:
    """Whether these are 0, 1, 2 ... or consecutive years, which also serve as names."""
    if len(numbers) < 2 or not all(map(str.isdecimal, numbers)):
        return False
    first = int(numbers[0])
    return [*map(int, numbers)] == [*range(first, first + len(numbers))] and (first == 0 or first in _YEARS)


def kind_of(path: Path) -> str:
    """Kind of a file by its first bytes: ``parquet``, ``feather``, ``spreadsheet``, ``zip``, or else ``text``.

    Compressed files always count as text.
    """
    with open(path, "rb") as file:
        beginning = file.read(8)
    kind = next((kind for magic, kind in _OTHER_KINDS.items() if beginning.startswith(magic)), "text")
    return "spreadsheet" if kind == "zip" and _SPREADSHEET_PARTS & {*_members(path)} else kind


@contextmanager
def open_bytes(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a file, plain, compressed by gzip, bzip2, zstd or xz, or alone in a zip archive.

    Yields a stream for pyarrow, and the underlying file, whose position measures progress.

    Raises UserError if the compressed data are damaged, or the archive has several files.
    """
    with open(path, "rb") as file:
        beginning = file.read(8)
        file.seek(0)
        codec = next((codec for magic, codec in _COMPRESSED.items() if beginning.startswith(magic)), None)
        if codec is None and not beginning.startswith(b"PK\x03\x04"):
            with pa.OSFile(str(path)) as whole:
                yield whole, whole
            return
        try:
            if codec is None:
                with zipfile.ZipFile(file).open(_only_member(path)) as member:
                    yield pa.PythonFile(member, mode="r"), file
            elif codec == "xz":
                with lzma.open(file) as plain:
                    yield pa.PythonFile(plain, mode="r"), file
            else:
                yield pa.CompressedInputStream(pa.PythonFile(file, mode="r"), codec), file
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


def plain_name(name: object) -> str:
    """A column's name with whitespace collapsed and trimmed."""
    return " ".join(str(name).split())


class TableFile(ABC):
    """A table in a file.

    Attributes
    ----------
    names, given
        Names of the usable columns, in settings and as pandas reads them from the file.
    places
        Positions of the usable columns in the file, from 0.
    left_out
        Unusable columns -> the reason.
    notes
        Guesses about the file.
    size
        Total work for `batches`, in bytes or rows.
    first_row
        Number of the first row of values, as editors and spreadsheets count.
    """

    first_row = 2

    def __init__(
        self, path: Path, names: Sequence[str], unusable: Mapping[int, str], notes: Sequence[str], size: int
    ) -> None:
        self.path, self.notes, self.size = path, list(notes), size
        self.names, self.given, self.places = list[str](), list[str](), list[int]()
        self.left_out: dict[str, str] = {}
        index = 0
        while index < len(names) - 1 and _INDEX.fullmatch(names[index].strip()):
            index += 1
        seen, twice = set[str](), set[str]()
        for place, given in enumerate(names):
            name = plain_name(given) or f"column {place + 1}"
            if name in seen:
                twice.add(name)
            seen.add(name)
            if place < index or given.startswith("__index_level_"):
                self.left_out[name] = "it has no name: the index of the rows, as saved; name it to use it"
            elif place in unusable:
                self.left_out[name] = unusable[place]
            else:
                self.names.append(name)
                self.given.append(given or f"Unnamed: {place}")
                self.places.append(place)
        if twice:
            raise UserError(f"{path}, header: several columns are called {', '.join(sorted(twice)[:3])}; rename them")
        if not self.names:
            raise UserError(f"{path} has no usable column: {'; '.join(map(': '.join, self.left_out.items()))}")

    @abstractmethod
    def batches(self) -> Iterator[tuple[pa.RecordBatch, int]]:
        """Yield blocks of the usable columns, in order, and how much of `size` is done.

        Cells of untyped files are text, null where empty.
        """

    def schema(self) -> pa.Schema | None:
        """Types of the usable columns, if the file has types."""
        return None
