"""What a CSV file begins with: the names of its columns, and what separates them."""

import csv
from pathlib import Path
from typing import NamedTuple

from unfreeze.models.errors import UserError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "'|'"}
"""What may stand between columns -> what people call it."""


class CsvHeader(NamedTuple):
    """The names of a file's columns as they stand, and the character between two of them."""

    names: list[str]
    separator: str


def csv_header(source: Path) -> CsvHeader:
    """Read the first row that is not empty.

    Commas separate the columns of a header that has any; else the one of semicolon, tab and ``|`` that it has most of.

    Raises
    ------
    UserError
        If the file is empty, or its header is no CSV in UTF-8.
    """
    headers = (CsvHeader(_first_row(source, separator), separator) for separator in SEPARATORS)
    header = next(headers)
    if len(header.names) == 1:  # a wide one would be a single field to the others, longer than csv reads
        header = max(header, *headers, key=lambda each: len(each.names))
    if not header.names:
        raise UserError(f"{source} is empty; give a file with a header and rows")
    if any("\udc80" <= letter <= "\udcff" for name in header.names for letter in name):
        raise UserError(f"{source}, header: not UTF-8 text; save the file as UTF-8")
    return header


def _first_row(source: Path, separator: str) -> list[str]:
    # Bytes that are no UTF-8 are let through here, so that those of later rows are reported with their row.
    with open(source, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        try:
            return next((row for row in csv.reader(file, delimiter=separator) if row), [])
        except csv.Error as error:
            raise UserError(f"{source}, header: {error}; save the file as comma-separated text") from error
