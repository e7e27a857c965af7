"""Tables in text files: encoding, separator and quotes, and blocks of rows whose cells are text."""

import codecs
import csv
import io
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv

from unfreeze.models.errors import UserError, one_line
from unfreeze.models.tables.reading.table_file import TableFile, find_header, open_bytes

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark is its prefix
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_GUESSED = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp932", "gb18030", "euc_kr", "big5", "koi8_r"),
    *("iso8859_15", "mac_roman", "cp850"),
)
_LINES = 2_000
"""Non-ASCII lines used to guess the encoding."""
_BLOCK_BYTES = 16 * 2**20
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "'|'", " ": "spaces"}
"""Column separator -> its name in messages."""
_SAMPLE_BYTES, _SAMPLE_ROWS = 2**20, 200
_SNIFFED = 20_000
"""Characters used to guess the separator, at least four lines."""
_STATED = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
"""Optional first line that states the separator for Excel."""
_TABBED = re.compile(r"\.(tsv|tab)\b", re.IGNORECASE)


def encoding_of(parts: Iterable[bytes], path: Path) -> tuple[str, str]:
    """Find the encoding of a file read in `parts`; return its Python name, and a note if it is a guess.

    Raises UserError if only some rows are UTF-8, or several encodings are equally likely.
    """
    valid, others, lines_before, rest, first_other = 0, list[bytes](), 0, b"", 0
    for position, part in enumerate(chain(parts, [b"\n"])):
        if position == 0 and (mark := next((mark for mark in _MARKS if part.startswith(mark)), None)):
            return _MARKS[mark], ""
        whole, _, rest = (rest + part).rpartition(b"\n")
        if not whole.isascii() and _is_utf8(whole):
            valid += 1
        elif not whole.isascii():
            for number, line in enumerate(whole.split(b"\n"), start=lines_before + 1):
                if not line.isascii() and _is_utf8(line):
                    valid += 1
                elif not line.isascii() and len(others) < _LINES:
                    first_other = first_other or number
                    others.append(line)
        lines_before += whole.count(b"\n") + 1
    if not others:
        return "utf-8", ""
    if valid > len(others) / 10:
        raise UserError(f"{path}, line {first_other}: not UTF-8 text, though other lines are; save the file as UTF-8")
    return _guess(b"\n".join(others), path)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _guess(text: bytes, path: Path) -> tuple[str, str]:
    from charset_normalizer import from_bytes

    matches = list(from_bytes(text, cp_isolation=list(_GUESSED), threshold=0.5))
    if not matches:
        raise UserError(f"{path}: its encoding is not known; save it as UTF-8")
    clean = [each for each in matches if each.chaos <= min(other.chaos for other in matches) + 0.02]
    likely = [each for each in clean if each.coherence >= max(other.coherence for other in clean) - 0.1]
    readings = {name: str(each) for each in likely for name in each.could_be_from_charset}
    first = min(readings, key=_GUESSED.index)
    if first != "cp1252" and len({*readings.values()}) > 1:  # by far the most common
        ways = " or ".join(f"{name} ({_examples(text, 1)})" for name, text in [*readings.items()][:3])
        raise UserError(f"{path}: not UTF-8 text, and as likely {ways}; save it as UTF-8")
    return first, f"read as {first}, a guess: {_examples(readings[first], 3)} (else save it as UTF-8)"


def _examples(text: str, most: int) -> str:
    words = dict.fromkeys(word[:30] for word in re.findall(r"[^\s,;|\"]+", text) if not word.isascii())
    return ", ".join(map(repr, [*words][:most]))


class TextLayout(NamedTuple):
    """Layout of a table in a text file.

    Attributes
    ----------
    separator, quote, escape
        Characters; without an escape character, quotes are doubled.
    names
        Names of all columns, empty where a column has none.
    empty
        Positions of columns with neither a name nor values in the first rows, such as after a trailing separator.
    lines
        Lines up to the end of the header.
    comments
        Whether there are comments that begin with #.
    notes
        Guesses.
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
    """Find the layout from a file's first MiB, and the encoding from all of it unless only names are wanted.

    Raises
    ------
    UserError
        If the file is empty or not text, has no header, or its encoding is unknown.
    """
    (encoding, note), lines = _first_lines(path, names_only)
    stated = _STATED.fullmatch(lines[0].strip()) if lines else None
    above = 1 if stated else 0
    comments = next((place for place, line in enumerate(lines[above:]) if not line.startswith("#")), 0)
    body = above + comments
    if not "".join(lines[above:]).strip():
        raise UserError(f"{path} is empty; give a file with a header and rows")
    if lines[body].lstrip().startswith(("{", "<", "[{")):
        raise UserError(f"{path} holds JSON, XML or a web page; save the table as CSV or Parquet")
    separator, quote, escape = _dialect(lines[body:], stated[1] if stated else None)

    def parse(first: int) -> list[tuple[list[str], int]]:
        text = io.StringIO("".join(lines[first:]), newline="")
        reader = csv.reader(text, delimiter=separator, quotechar=quote, escapechar=escape)
        try:
            return [(row, first + reader.line_num) for row, _ in zip(reader, range(_SAMPLE_ROWS), strict=False) if row]
        except csv.Error as error:
            raise UserError(f"{path}, header: {error}; save the file as comma-separated text") from error

    found, notes = parse(body), [note] if note else []
    try:
        row, names, said = find_header([cells for cells, _ in found], str(path))
        if comments:
            notes.append(f"{comments} line{'s' * (comments > 1)} of comments above the names skipped")
    except UserError:  # the header may be the last comment, or # the first column's name
        width, found = len(found[0][0]), parse(body - 1) if comments else found
        first = found[0][0]
        if not comments or len(first) != width:
            raise
        first[0] = first[0].lstrip("#").strip() or "#"
        row, names, said = find_header([cells for cells, _ in found], str(path))
    if len(names) > 1 and not stated and separator != ("\t" if _TABBED.search(path.name) else ","):
        notes.append(f"columns are separated by {SEPARATORS[separator]}")
    if quote != '"':
        notes.append(f"cells are quoted by {quote}")
    filled = {place for cells, _ in found[row + 1 :] for place, cell in enumerate(cells) if cell.strip()}
    empty = [place for place, name in enumerate(names) if place and not name and place not in filled]
    return TextLayout(encoding, separator, quote, escape, names, empty, found[row][1], bool(comments), notes + said)


class TextFile(TableFile):
    """A text file of separated values, possibly compressed; see `layout_of`."""

    def __init__(self, path: Path, names_only: bool = False) -> None:
        self._layout = layout_of(path, names_only)
        empty = dict.fromkeys(self._layout.empty, "it has neither a name nor values")
        super().__init__(path, self._layout.names, empty, self._layout.notes, path.stat().st_size)
        self.first_row = self._layout.lines + 1

    def batches(self, threads: bool = True) -> Iterator[tuple[pa.RecordBatch, int]]:
        """Read with pyarrow, whose errors name the row."""
        layout = self._layout
        every = [str(place) for place in range(len(layout.names))]  # names of unused columns may repeat
        read = [str(place) for place in [*self.places, *layout.empty]]
        try:
            with open_bytes(self.path) as (stream, file):
                reader = pa.csv.open_csv(
                    stream,
                    read_options=pa.csv.ReadOptions(
                        block_size=_BLOCK_BYTES,
                        use_threads=threads,
                        encoding=layout.encoding.removesuffix("-sig"),
                        skip_rows=layout.lines,
                        column_names=every,
                    ),
                    parse_options=pa.csv.ParseOptions(
                        delimiter=layout.separator,
                        quote_char=layout.quote,
                        escape_char=layout.escape or False,
                        newlines_in_values=True,
                        invalid_row_handler=_skip_comments if layout.comments else None,
                    ),
                    convert_options=pa.csv.ConvertOptions(
                        column_types=dict.fromkeys(every, pa.string()),
                        include_columns=read,
                        strings_can_be_null=True,
                        null_values=[""],
                    ),
                )
                for batch in reader:
                    self._check_empty(batch)
                    yield batch.select(range(len(self.places))), min(file.tell(), self.size)
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self.path}: not all of it is text in {layout.encoding}, it may be cut off; save it as UTF-8"
            ) from error
        except pa.ArrowInvalid as error:
            if threads and "Row #" not in str(error):  # only single-threaded errors name the row
                deque(self.batches(threads=False), maxlen=0)
            raise self._error(str(error)) from error

    def _check_empty(self, batch: pa.RecordBatch) -> None:
        for place, values in zip(self._layout.empty, batch.columns[len(self.places) :], strict=True):
            if values.null_count < len(values):
                value = values.drop_null()[0].as_py()
                raise UserError(f"{self.path}: column {place + 1} has values such as {value!r}, but no name; name it")

    def _error(self, message: str) -> UserError:
        row = re.search(r"Row #(\d+)", message)
        where = f"{self.path}, row {row[1]}" if row else f"{self.path}"
        if "Empty CSV file" in message or "Could not skip initial" in message:
            return UserError(f"{self.path} has a header but no rows")
        if fields := re.search(r"Expected (\d+) columns, got (\d+): ?(.*)", message, re.DOTALL):
            count = f"{fields[2]} field{'s' * (fields[2] != '1')} instead of {fields[1]}"
            quoted = f"quote values that contain {SEPARATORS[self._layout.separator]}"
            return UserError(f"{where}: {count}: {one_line(fields[3])[:80]!r}; {quoted}")
        if "straddl" in message:
            return UserError(f"{self.path}: a quote is never closed, or a row is longer than {_BLOCK_BYTES >> 20} MiB")
        return UserError(f"{where}: {one_line(message)}")


def _skip_comments(row: pa.csv.InvalidRow) -> str:
    return "skip" if row.text.startswith("#") else "error"


def _first_lines(path: Path, names_only: bool) -> tuple[tuple[str, str], list[str]]:
    with open_bytes(path) as (stream, _):
        first = stream.read(_SAMPLE_BYTES)

        def parts() -> Iterator[bytes]:
            yield first if len(first) < _SAMPLE_BYTES or not names_only else first.rpartition(b"\n")[0]
            while not names_only and (part := stream.read(1 << 22)):
                yield part

        encoding = encoding_of(parts(), path)
    is_whole = len(first) < _SAMPLE_BYTES
    text = codecs.getincrementaldecoder(encoding[0])(errors="replace").decode(first, final=is_whole)
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
