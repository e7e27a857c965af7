"""How a text file holds its table: encoding, separator, quotes, and the row of names."""

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from unfreeze.models.errors import UserError
from unfreeze.models.tables.reading.bytes_of_files import open_bytes
from unfreeze.models.tables.reading.header import NoHeader, find_header
from unfreeze.models.tables.reading.text_encoding import Encoding, encoding_of

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "'|'", " ": "spaces"}
"""What may stand between columns -> what people call it."""
_SAMPLE_BYTES, _SAMPLE_ROWS = 2**20, 200
_SNIFFED = 20_000
"""Characters that the separator is found by, and at least four lines."""
_STATED = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
"""The first line by which Excel is told of the separator."""
_TABBED = re.compile(r"\.(tsv|tab)\b", re.IGNORECASE)


class TextLayout(NamedTuple):
    """How a text file holds its table.

    Attributes
    ----------
    separator, quote, escape
        Characters; without an escape, quotes are doubled.
    names
        Of all columns, empty where there is none.
    empty
        Places of columns without a name and, in the first rows, without a value, such as after a separator at the end.
    lines
        Lines up to the end of the names.
    comments
        Whether there are comments that begin with #.
    notes
        What was guessed.
    """

    encoding: str
    separator: str
    quote: str
    escape: str | None
    names: list[str]
    empty: list[int]
    lines: int
    comments: bool
    notes: list[str]


def layout_of(path: Path, names_only: bool = False) -> TextLayout:
    """Look at the first MiB of a file, and for its encoding at all of it unless only names are wanted.

    Raises
    ------
    UserError
        If the file is empty, is not text, has no names of columns, or its encoding is not known.
    """
    encoding, lines = _first_lines(path, names_only)
    stated = _STATED.fullmatch(lines[0].strip()) if lines else None
    above = 1 if stated else 0
    comments = next((place for place, line in enumerate(lines[above:]) if not line.startswith("#")), 0)
    body = above + comments
    if not "".join(lines[above:]).strip():
        raise UserError(f"{path} is empty; give a file with a header and rows")
    if lines[body].lstrip().startswith(("{", "<", "[{")):
        raise UserError(f"{path} holds JSON, XML or a web page; save the table as CSV or Parquet")
    separator, quote, escape = _dialect(lines[body:], stated[1] if stated else None)

    def parse(first: int) -> tuple[list[list[str]], list[int]]:
        text = io.StringIO("".join(lines[first:]), newline="")
        reader = csv.reader(text, delimiter=separator, quotechar=quote, escapechar=escape)
        try:
            found = [(row, first + reader.line_num) for row, _ in zip(reader, range(_SAMPLE_ROWS), strict=False) if row]
        except csv.Error as error:
            raise UserError(f"{path}, header: {error}; save the file as comma-separated text") from error
        return [row for row, _ in found], [end for _, end in found]

    rows, ends = parse(body)
    notes = [encoding.note] if encoding.note else []
    try:
        header = find_header(rows, str(path))
        if comments:
            notes.append(f"{comments} line{'s' * (comments > 1)} of comments above the names skipped")
    except NoHeader:
        commented, comment_ends = parse(body - 1) if comments else ([[]], [])
        if len(commented[0]) != len(rows[0]):
            raise
        commented[0][0] = commented[0][0].lstrip("#").strip() or "#"
        rows, ends = commented, comment_ends
        header = find_header(rows, str(path))
    if len(header.names) > 1 and not stated and separator != ("\t" if _TABBED.search(path.name) else ","):
        notes.append(f"columns are separated by {SEPARATORS[separator]}")
    if quote != '"':
        notes.append(f"cells are quoted by {quote}")
    data = rows[header.row + 1 :]
    empty = [
        place
        for place, name in enumerate(header.names)
        if not name and place and not any(row[place].strip() for row in data if len(row) > place)
    ]
    notes += header.notes
    lines_above = ends[header.row]
    return TextLayout(encoding.name, separator, quote, escape, header.names, empty, lines_above, bool(comments), notes)


def _first_lines(path: Path, names_only: bool) -> tuple[Encoding, list[str]]:
    with open_bytes(path) as opened:
        first = opened.stream.read(_SAMPLE_BYTES)

        def parts() -> Iterator[bytes]:
            yield first if len(first) < _SAMPLE_BYTES or not names_only else first.rpartition(b"\n")[0]
            while not names_only and (part := opened.stream.read(1 << 22)):
                yield part

        encoding = encoding_of(parts(), path)
    is_whole = len(first) < _SAMPLE_BYTES
    text = codecs.getincrementaldecoder(encoding.name)(errors="replace").decode(first, final=is_whole)
    if "\0" in text:
        raise UserError(f"{path} is not a text file: it holds NUL characters; save the table as CSV or Parquet")
    lines = re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text)
    return encoding, lines if is_whole or len(lines) < 2 else lines[:-1]


def _dialect(lines: Sequence[str], separator: str | None) -> tuple[str, str, str | None]:
    from clevercsv.detect import Detector

    sample, count = "", 0
    while count < len(lines) and (count < 4 or len(sample) < _SNIFFED):
        sample, count = sample + lines[count], count + 1
    found = Detector().detect(sample, delimiters=[separator] if separator else [*SEPARATORS])
    if found is None:
        return separator or ",", '"', None
    quote = "'" if found.quotechar == "'" else '"'
    return separator or found.delimiter or ",", quote, "\\" if found.escapechar == "\\" else None
