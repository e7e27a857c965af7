"""A long table written part by part, so that an interrupted run continues after its last whole part."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

_NAME = f"part-{'[0-9]' * 12}"


class PartFiles:
    """Parts of a table of a known number of rows, in a folder.

    A part has its name only once it is whole and on disk, so whatever stops a run leaves whole parts behind, and at
    most one unfinished file that is not one of them.

    Parameters
    ----------
    folder
        Of these parts and nothing else; made if need be.
    rows
        Of the whole table.
    chunk
        Rows of each part but the last.
    """

    def __init__(self, folder: Path, rows: int, chunk: int) -> None:
        self._folder, self._rows, self._chunk = folder, rows, chunk

    def done(self) -> int:
        """Rows of the whole parts from the first on, without a gap."""
        rows = 0
        while rows < self._rows and self._is_whole(rows):
            rows = min(rows + self._chunk, self._rows)
        return rows

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
        with pa.OSFile(str(self._path(0))) as file:
            return pa.ipc.open_file(file).schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows in order; every part must be there."""
        for first in range(0, self._rows, self._chunk):
            with pa.OSFile(str(self._path(first))) as file:
                yield pa.ipc.open_file(file).get_batch(0)

    def remove(self) -> None:
        """Remove the parts, and the folder unless something else is in it."""
        for path in [*self._folder.glob(f"{_NAME}.arrow"), *self._folder.glob(f"{_NAME}.unfinished")]:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _path(self, first: int) -> Path:
        return self._folder / f"part-{first:012d}.arrow"

    def _is_whole(self, first: int) -> bool:
        try:
            with pa.OSFile(str(self._path(first))) as file:
                reader = pa.ipc.open_file(file)
                return bool(reader.get_batch(0).num_rows == min(self._chunk, self._rows - first))
        except (OSError, pa.ArrowException):
            return False


def flush_to_disk(path: Path) -> None:
    """Wait until a file is on the disk: renamed before, it could be empty after a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
