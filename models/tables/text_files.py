"""Tables in text files: blocks of rows whose cells are text."""

import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from unfreeze.models.csv_header import SEPARATORS, csv_header
from unfreeze.models.errors import UserError, one_line

_BLOCK_BYTES = 16 * 2**20


class TextFile:
    """A CSV file in UTF-8 with a header.

    Attributes
    ----------
    names
        Of its columns; one without a name is called ``column N``.
    size
        Bytes of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = csv_header(path)
        self.names = [name.strip() or f"column {place}" for place, name in enumerate(self.header.names, start=1)]
        self.size = path.stat().st_size

    def batches(self, threads: bool = True) -> Iterator[tuple[pa.RecordBatch, int]]:
        """Yield blocks of rows, all columns as text, null where a field is empty, with the bytes read so far.

        With pyarrow: polars fills rows that are too short with missing values, and names no row in its errors.
        """
        try:
            with pa.OSFile(str(self.path)) as file:
                reader = pa.csv.open_csv(
                    file,
                    read_options=pa.csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=threads),
                    parse_options=pa.csv.ParseOptions(delimiter=self.header.separator, newlines_in_values=True),
                    convert_options=pa.csv.ConvertOptions(
                        column_types=dict.fromkeys(self.header.names, pa.string()),
                        strings_can_be_null=True,
                        null_values=[""],
                    ),
                )
                for batch in reader:
                    yield batch, min(file.tell(), self.size)
        except pa.ArrowInvalid as error:
            if threads and "Row #" not in str(error):  # several threads do not know the row, one does
                deque(self.batches(threads=False), maxlen=0)
            raise self._error(str(error)) from error

    def _error(self, message: str) -> UserError:
        row = re.search(r"Row #(\d+)", message)
        where = f"{self.path}, row {row[1]}" if row else f"{self.path}"
        if "Empty CSV file" in message:
            return UserError(f"{self.path} has a header but no rows")
        if fields := re.search(r"Expected (\d+) columns, got (\d+)", message):
            quoted = f"quote values that contain {SEPARATORS[self.header.separator]}"
            return UserError(f"{where}: {fields[2]} fields instead of {fields[1]}; {quoted}")
        if "UTF8" in message:
            column = re.search(r"column #(\d+)", message)
            field = f", field {self.header.names[int(column[1])]}" if column else ""
            return UserError(f"{where}{field}: not UTF-8 text; save the file as UTF-8")
        if "straddl" in message:
            return UserError(f"{self.path}: a quote is never closed, or a row is longer than {_BLOCK_BYTES >> 20} MiB")
        return UserError(f"{where}: {one_line(message)}")
