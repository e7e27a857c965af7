"""Long lists as memory-mapped Arrow tables, so that memory does not grow with the number of rows."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import Any, Generic, TypeVar, overload

import numpy as np
import pyarrow as pa

from unfreeze.models.errors import UserError

Row = TypeVar("Row")
AT_ONCE = 16_384
"""Rows of a record batch, and Python objects in memory at a time."""


class OnDisk(Sequence[Row], Generic[Row]):
    """Rows of a memory-mapped table as Python objects, made when they are asked for.

    Parameters
    ----------
    table
        See `mapped`.
    make
        Values of a row -> the object.
    """

    def __init__(self, table: pa.Table, make: Callable[..., Row]) -> None:
        self.table, self._make = table, make

    @classmethod
    def of(cls, rows: Iterable[Sequence[Any]], schema: pa.Schema, make: Callable[..., Row]) -> "OnDisk[Row]":
        """Write rows of values to a temporary file, which goes with the object."""
        with NamedTemporaryFile(prefix="unfreeze-", suffix=".arrow") as file:
            write_rows(rows, schema, Path(file.name))
            return cls(mapped(Path(file.name)), make)

    def columns(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """See `rows_of`; without making the objects."""
        return rows_of(self.table, *names)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[Row]:
        for batch in self.table.to_batches(max_chunksize=AT_ONCE):
            yield from map(self._make, *(column.to_pylist() for column in batch.columns))

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...

    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        if isinstance(place, slice):
            first, end, _ = place.indices(len(self))
            return list(OnDisk(self.table.slice(first, max(end - first, 0)), self._make))
        return self._make(*(column[place].as_py() for column in self.table.columns))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


def rows_of(table: pa.Table, *names: str) -> Iterator[tuple[Any, ...]]:
    """Yield the values of some columns row by row."""
    for batch in table.select(names).to_batches(max_chunksize=AT_ONCE):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def texts_on_disk(texts: Iterable[str]) -> OnDisk[str]:
    """Move texts to disk."""
    return OnDisk.of(((text,) for text in texts), pa.schema([("text", pa.string())]), str)


def write_rows(rows: Iterable[Sequence[Any]], schema: pa.Schema, path: Path) -> None:
    """Write rows of values as an Arrow file, in bounded memory."""
    left = iter(rows)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        while chunk := list(islice(left, AT_ONCE)):
            columns = zip(*chunk, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def mapped(path: Path) -> pa.Table:
    """Map an Arrow file that `write_rows` wrote; raises a `UserError` if it is not one."""
    try:
        with pa.memory_map(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
        table.validate(full=True)  # bad offsets in a damaged file would crash later reads
        return table
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({error}); delete it and run again") from error


def matched(paths: Iterable[bytes], known: Iterator[tuple[bytes, Any]]) -> Iterator[tuple[bytes, Any]]:
    """Yield each path with the known value of that path, or None; both are sorted by path."""
    place, value = next(known, (None, None))
    for path in paths:
        while place is not None and place < path:
            place, value = next(known, (None, None))
        yield path, value if place == path else None


def fixed_width(texts: Any, width: int = 32) -> np.ndarray:
    """Content hashes as an array of bytes, (n,) S32; those of an Arrow column stay on disk.

    Parameters
    ----------
    texts
        An Arrow column, or texts of at most `width` ASCII characters.
    """
    if not isinstance(texts, pa.ChunkedArray):
        return np.asarray(texts, f"S{width}")
    if texts.num_chunks == 1:
        return _view(texts.chunk(0), width)
    if not len(texts):
        return np.empty(0, f"S{width}")
    with TemporaryFile(prefix="unfreeze-") as file:
        for chunk in texts.chunks:
            file.write(_view(chunk, width).tobytes())
        file.flush()
        return np.memmap(file, f"S{width}", "r").view(np.ndarray)


def _view(chunk: pa.Array, width: int) -> np.ndarray:
    offsets = np.frombuffer(chunk.buffers()[1], np.int32, len(chunk) + 1, 4 * chunk.offset)
    if chunk.null_count or (np.diff(offsets) != width).any():
        return np.array(chunk.to_pylist(), f"S{width}")
    return np.frombuffer(chunk.buffers()[2], f"S{width}", len(chunk), int(offsets[0]))
