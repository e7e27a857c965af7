"""The row of names at the top of a table of texts: which one it is, and what stands above it."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from unfreeze.models.errors import UserError

_LETTER = re.compile(r"[^\W\d_]")
_YEARS = range(1900, 2101)
_SHOWN = 4


class Header(NamedTuple):
    """Where the names stand, counted from 0, and one name for every column; empty where there is none."""

    row: int
    names: list[str]
    notes: list[str]


class NoHeader(UserError):
    """The first row looks like data."""


def find_header(rows: Sequence[Sequence[str]], where: str) -> Header:
    """Find the names among the first rows of a table, none of which is empty.

    Titles above the names, which fill at most half of the columns, are skipped. Rows that have one field more than
    names begin with a name of the row, as R writes them, or end with a separator.

    Raises
    ------
    NoHeader
        If the first row holds what its columns hold: numbers above numbers, or texts that occur below again.
    """
    width = _usual_width(rows)
    row = next((place for place, cells in enumerate(rows) if not _is_title(cells, width)), 0)
    if len(rows[0]) == width - 1 and width == 2:  # one name, and row names as R writes them
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
    if note := _check([name.strip() for name in names], [[*filter(None, column)] for column in columns], where):
        notes.append(note)
    return Header(row, names, notes)


def _usual_width(rows: Sequence[Sequence[str]]) -> int:
    counts = Counter(map(len, rows))
    return max(counts, key=lambda width: (counts[width], width))


def _is_title(cells: Sequence[str], width: int) -> bool:
    filled = [bool(cell.strip()) for cell in cells]
    if width == 1 or (not filled[0] and all(filled[1:])):  # the name of an index is often left out
        return False
    return sum(filled) <= width / 2


def _check(names: Sequence[str], columns: Sequence[Sequence[str]], where: str) -> str:
    """What is to be said about the names, if anything; raises `NoHeader`."""
    numeric = [bool(column) and all(map(_is_number, column)) for column in columns]
    if any(number and name and not _is_number(name) for name, number in zip(names, numeric, strict=True)):
        return ""
    numbers = [name for name, number in zip(names, numeric, strict=True) if number and _is_number(name)]
    texts = [
        (name, column) for name, column, number in zip(names, columns, numeric, strict=True) if not number and column
    ]
    repeated = [name for name, column in texts if name in column]
    shown = ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
    if (numbers and not _counts(numbers)) or (not numbers and texts and len(repeated) * 2 >= len(texts)):
        raise NoHeader(
            f"{where}: its first row looks like values, not like names of columns: {shown}; put a row of names above it"
        )
    return f"the first row is taken for names of columns: {shown}" if numbers else ""


def _is_number(cell: str) -> bool:
    """Whether a cell is a number, a date or an amount: digits, and no letter."""
    return any(map(str.isdigit, cell)) and not _LETTER.search(cell)


def _counts(numbers: Sequence[str]) -> bool:
    """Whether these are 0, 1, 2 ... or years one after the other, which are names as well."""
    if len(numbers) < 2 or not all(map(str.isdecimal, numbers)):
        return False
    first = int(numbers[0])
    return [*map(int, numbers)] == [*range(first, first + len(numbers))] and (first == 0 or first in _YEARS)
