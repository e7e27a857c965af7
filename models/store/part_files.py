"""A long table written part by part, so that an interrupted run continues after its last whole part."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from unfreeze.models.errors import UserError
from unfreeze.models.store.sealed_files import SUFFIX, is_intact, publish

_NAME = f"part-{'[0-9]' * 12}"


class PartFiles:
    """Parts of a table of a known number of rows, in a folder.

    A part gets its name once it and its checksum are on disk: an interrupted run leaves whole parts and at most one
    unfinished file. A damaged part counts as missing.

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
        """Count the rows of the leading whole parts."""
        for first in range(0, self._rows, self._chunk):
            try:
                count = self._read(first).num_rows
            except (OSError, pa.ArrowException, UserError):
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
        publish(unfinished, path)

    def schema(self) -> pa.Schema:
        """Of the rows; the first part must be there."""
        return self._read(0).schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows in order; every part must be there, and a `UserError` names one that is damaged."""
        return map(self._read, range(0, self._rows, self._chunk))

    def remove(self) -> None:
        """Remove the parts, and the folder unless something else is in it."""
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
