"""Tables in text files: blocks of rows whose cells are text."""

import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from unfreeze.models.errors import UserError, one_line
from unfreeze.models.tables.reading.bytes_of_files import open_bytes
from unfreeze.models.tables.reading.table_file import TableFile
from unfreeze.models.tables.reading.text_layout import SEPARATORS, layout_of

_BLOCK_BYTES = 16 * 2**20


class TextFile(TableFile):
    """A text file of separated values, which may be compressed; see `layout_of` for what is found out about it."""

    def __init__(self, path: Path, names_only: bool = False) -> None:
        self._layout = layout_of(path, names_only)
        empty = dict.fromkeys(self._layout.empty, "it has neither a name nor values")
        super().__init__(path, self._layout.names, empty, self._layout.notes, path.stat().st_size)
        self.first_row = self._layout.lines + 1

    def batches(self, threads: bool = True) -> Iterator[tuple[pa.RecordBatch, int]]:
        """With pyarrow: polars fills rows that are too short with missing values, and names no row in its errors."""
        layout = self._layout
        every = [str(place) for place in range(len(layout.names))]  # names may repeat among those left out
        read = [str(place) for place in [*self.places, *layout.empty]]
        try:
            with open_bytes(self.path) as opened:
                reader = pa.csv.open_csv(
                    opened.stream,
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
                    self._check_empty(batch, len(self.places))
                    yield batch.select(range(len(self.places))), min(opened.file.tell(), self.size)
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self.path}: not all of it is text in {layout.encoding}, it may be cut off; save it as UTF-8"
            ) from error
        except pa.ArrowInvalid as error:
            if threads and "Row #" not in str(error):  # several threads do not know the row, one does
                deque(self.batches(threads=False), maxlen=0)
            raise self._error(str(error)) from error

    def _check_empty(self, batch: pa.RecordBatch, first: int) -> None:
        for place, values in zip(self._layout.empty, batch.columns[first:], strict=True):
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
        if "UTF8" in message:
            column = re.search(r"column #(\d+)", message)
            field = f", field {self._layout.names[int(column[1])]}" if column else ""
            return UserError(f"{where}{field}: not UTF-8 text; save the file as UTF-8")
        if "straddl" in message:
            return UserError(f"{self.path}: a quote is never closed, or a row is longer than {_BLOCK_BYTES >> 20} MiB")
        return UserError(f"{where}: {one_line(message)}")


def _skip_comments(row: pa.csv.InvalidRow) -> str:
    return "skip" if row.text.startswith("#") else "error"
