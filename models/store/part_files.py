"""A table written in parts; an interrupted run resumes after the last complete part."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from unfreeze.models.errors import UserError
from unfreeze.models.store.sealed_files import SUFFIX, is_intact, publish

_NAME = f"part-{'[0-9]' * 12}"


class PartFiles:
    """Parts of a table of a known number of rows, in a folder.

    A part is renamed into place once it and its checksum are on disk, so an interrupted run leaves complete parts and
    at most one unfinished file. A damaged part counts as missing.

    Parameters
    ----------
    folder
        Holds only these parts; created with the first one.
    rows
        Number of rows in the table.
    chunk
        Rows per part, except the last.
    """

    def __init__(self, folder: Path, rows: int, chunk: int) -> None:
        self._folder, self._rows, self._chunk = folder, rows, chunk

    def done(self) -> int:
        """Count the rows in the leading complete parts."""
        return next(self.missing(), self._rows)

    def missing(self, first: int = 0, end: int | None = None) -> Iterator[int]:
        """Yield the first row of each part that is not complete, of those that start in a range of rows."""
        for start in range(first, self._rows if end is None else end, self._chunk):
            try:
                count = self._read(start).num_rows
            except (OSError, pa.ArrowException, UserError):
                count = -1
            if count != min(self._chunk, self._rows - start):
                yield start

    def write(self, first: int, batch: pa.RecordBatch) -> None:
        """Write the part that starts at row `first`, atomically."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(first)
        unfinished = path.with_suffix(".unfinished")
        with pa.OSFile(str(unfinished), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        publish(unfinished, path)

    def schema(self) -> pa.Schema:
        """Schema of the table; requires the first part."""
        return self._read(0).schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows in order; requires every part, and raises a `UserError` for a damaged one."""
        return map(self._read, range(0, self._rows, self._chunk))

    def remove(self) -> None:
        """Remove the parts, and the folder if it is then empty."""
        for kind in ("arrow", "unfinished"):
            for suffix in ("", SUFFIX):
                for path in self._folder.glob(f"{_NAME}.{kind}{suffix}"):
                    path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _path(self, first: int) -> Path:
        return self._folder / f"part-{first:012d}.arrow"

    def _read(self, first: int) -> pa.RecordBatch:
        path = self._path(first)
        if path.exists() and not is_intact(path):
            raise UserError(f"{path} is damaged: its content is not that of its checksum; run the same command again")
        with pa.OSFile(str(path)) as file:
            return pa.ipc.open_file(file).get_batch(0)
