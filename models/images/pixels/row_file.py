"""Fixed-width rows in one memory-mapped Arrow file: images as uint8, activations as float16."""

from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import DTypeLike

from unfreeze.models.errors import UserError

_MOST_ROWS = 128
_MOST_BYTES = 32 * 2**20


class RowWriter:
    """Appends rows to a file, with one record batch in memory (128 rows, fewer where that exceeds 32 MiB).

    Use it as a context manager: the file, uncompressed Arrow IPC (feather) of `width` numbers of `dtype` per row with
    `metadata` in its schema, is written in place and complete when the block ends without an error.
    """

    def __init__(self, path: Path, width: int, dtype: DTypeLike, metadata: dict[str, str]) -> None:
        row_bytes = width * np.dtype(dtype).itemsize
        self._buffer = np.empty((max(1, min(_MOST_ROWS, _MOST_BYTES // row_bytes)), width), dtype)
        self._filled = 0
        self._type = pa.list_(pa.field("item", pa.from_numpy_dtype(np.dtype(dtype)), nullable=False), width)
        self._schema = pa.schema([pa.field("row", self._type, nullable=False)], metadata=metadata)
        self._file = pa.ipc.new_file(str(path), self._schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._filled:
            self._flush()
        self._file.close()

    def append(self, rows: np.ndarray) -> None:
        """Append rows, (n, width) of the file's dtype."""
        while len(rows):
            taken = rows[: len(self._buffer) - self._filled]
            self._buffer[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            rows = rows[len(taken) :]
            if self._filled == len(self._buffer):
                self._flush()

    def _flush(self) -> None:
        values = pa.array(self._buffer[: self._filled].reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(values, type=self._type)
        self._file.write_batch(pa.record_batch([column], schema=self._schema))
        self._filled = 0


class RowFile:
    """A file that `RowWriter` completed, memory-mapped: opening is instant, and only the rows asked for are read.

    It has the `width` and `metadata` that it was written with, and its record batches as `blocks`, arrays (n, width) on
    the mapped file, of which all but the last have as many rows. A `UserError` if it is incomplete, damaged or of
    another kind.
    """

    def __init__(self, path: Path) -> None:
        try:
            reader = pa.ipc.open_file(pa.py_buffer(_mapped(path)))
            batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
            for batch in batches:
                batch.validate()  # Arrow reads a batch whose buffers are shorter than its rows
            columns = [batch.column(0) for batch in batches]
            self.width = int(reader.schema.field(0).type.list_size)
            self.metadata = {key.decode(): value.decode() for key, value in (reader.schema.metadata or {}).items()}
            # Views on the mapped file: nothing is read yet.
            self.blocks = [column.values.to_numpy(zero_copy_only=True).reshape(-1, self.width) for column in columns]
            if self.width < 1 or not self.blocks or len({len(block) for block in self.blocks[:-1]}) > 1:
                raise ValueError("its rows have no width, or its batches another size than one another")
        # ArrowInvalid is a ValueError.
        except (ValueError, IndexError, OSError, RuntimeError, AttributeError, pa.ArrowException) as error:
            raise UserError(f"{path} is not a complete cache file ({error}); delete it and run again") from error

    def __len__(self) -> int:
        return sum(map(len, self.blocks))

    def gather(self, rows: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Copy rows (B,) int64, in any order and repeatedly, as (B, width) of the dtype of the file; halves as float32.

        An `IndexError` if a row is negative or past the end.
        """
        blocks, offsets = np.divmod(within(rows, len(self)), len(self.blocks[0]))
        return gather_from(self.blocks, blocks, offsets)


def within(rows: np.ndarray | torch.Tensor, count: int) -> np.ndarray:
    """Row numbers (B,) as int64; an `IndexError` if one is negative or not below `count`."""
    wanted = np.asarray(rows, dtype=np.int64)
    if wanted.size and not 0 <= wanted.min() <= wanted.max() < count:
        raise IndexError(f"rows {wanted.min()} to {wanted.max()} of a file of {count}")
    return wanted


def gather_from(blocks: list[np.ndarray], numbers: np.ndarray, offsets: np.ndarray) -> torch.Tensor:
    """Copy rows, given as the number of the block and the row in it, (B,) each, as (B, width); halves as float32."""
    kept = blocks[0].dtype
    out = np.empty((len(numbers), blocks[0].shape[1]), np.float32 if kept == np.float16 else kept)
    for position, (number, offset) in enumerate(zip(numbers.tolist(), offsets.tolist(), strict=True)):
        out[position] = blocks[number][offset]
    return torch.from_numpy(out)


def _mapped(path: Path) -> np.ndarray:
    """A file's bytes, mapped into memory.

    Not by Arrow or Python, whose maps keep their file open: a large data set has more shards than a process may have
    open files. The map is private: what is written to it never reaches the file.
    """
    size = path.stat().st_size
    if not size:
        raise OSError("it is empty")
    return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
