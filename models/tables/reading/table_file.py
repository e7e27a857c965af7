"""What every kind of table's file has: names of columns, those of use, and rows in blocks."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from unfreeze.models.errors import UserError

_INDEX = re.compile(r"|Unnamed: 0(\.\d+)*|__index_level_\d+__")


def plain_name(name: object) -> str:
    """A column's name with single spaces, and none around it."""
    return " ".join(str(name).split())


class TableFile(ABC):
    """A table in a file.

    Attributes
    ----------
    names, given
        Of the columns of use: as settings call them, and as pandas reads them from the file.
    places
        Where the columns of use stand in the file, from 0.
    left_out
        Other columns -> why.
    notes
        What was guessed of the file as a whole.
    size
        What `batches` counts: bytes or rows.
    first_row
        Number of the first row of values, as editors and spreadsheet programs count.
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
            raise UserError(f"{path} has no column of use: {'; '.join(map(': '.join, self.left_out.items()))}")

    @abstractmethod
    def batches(self) -> Iterator[tuple[pa.RecordBatch, int]]:
        """Yield blocks of the columns of use, in their order, and how much of `size` is done.

        Cells of files without types are text, null where they are empty.
        """

    def schema(self) -> pa.Schema | None:
        """The types of the columns of use, if the file knows them."""
        return None
