"""A long table written part by part, so that an interrupted run continues after its last whole part."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

_NAME = f"part-{'[0-9]' * 12}"


class PartFiles:
    """Parts of a table of a known number of rows, in a folder.

    A part has its name only once it is whole and on disk, so an interrupted run leaves whole parts, and at most one
    unfinished file that is none of them.

    Parameters
    ----------
    folder
        For these parts only; created by the first.
    rows
        Rows of the whole table.
    chunk
        Rows of each part but the last.
    """

    def __init__(self, folder: Path, rows: int, chunk: int) -> None:
        self._folder, self._rows, self._chunk = folder, rows, chunk

    def done(self) -> int:
        """Rows of the whole parts from the first on, without a gap."""
        for first in range(0, self._rows, self._chunk):
            try:
                count = self._read(first).num_rows
            except (OSError, pa.ArrowException):
                return first
            if count != min(self._chunk, self._rows - first):
                return first
        return self._rows

    def write(self, first: int, batch: pa.RecordBatch) -> None:
        """Write the part that begins at row `first`, whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(first)
        unfinished = path.with_suffix(".unfinished")
        with pa.OSFile(str(unfinished), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        flush_to_disk(unfinished)
        os.replace(unfinished, path)

    def schema(self) -> pa.Schema:
        """Of the rows; the first part must be there."""
        return self._read(0).schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows in order; every part must be there."""
        return map(self._read, range(0, self._rows, self._chunk))

    def remove(self) -> None:
        """Remove the parts, and the folder unless something else is in it."""
        for path in [*self._folder.glob(f"{_NAME}.arrow"), *self._folder.glob(f"{_NAME}.unfinished")]:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _path(self, first: int) -> Path:
        return self._folder / f"part-{first:012d}.arrow"

    def _read(self, first: int) -> pa.RecordBatch:
        with pa.OSFile(str(self._path(first))) as file:
            return pa.ipc.open_file(file).get_batch(0)


def flush_to_disk(path: Path) -> None:
    """Wait until a file is on the disk: renamed before, it could be empty after a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
