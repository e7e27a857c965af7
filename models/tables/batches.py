"""Encoded rows in one memory-mapped Arrow file, and batches of them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from unfreeze.models.errors import UserError
from unfreeze.models.tables.columns.encoding import Encoded
from unfreeze.models.training.batches import WHOLE

FORWARD_SIZE = 1024
"""Rows per prediction batch; activations grow with the number of ensemble members."""


def write_encoded(encoded: Encoded, targets: np.ndarray, path: Path) -> None:
    """Write rows as a memory-mappable file: uncompressed Arrow IPC (feather) with one record batch.

    `pixels.row_file` would be slow to gather from: it has many small record batches, made for large rows.

    Parameters
    ----------
    encoded
        N rows.
    targets
        (N, T) float32 or (N,) int64.
    path
        File to write in place.
    """
    columns, fields = [], []
    matrices = {"categorical": encoded.categorical, "continuous": encoded.continuous, "targets": targets}
    for name, matrix in matrices.items():
        width = matrix.shape[1] if matrix.ndim == 2 else 1
        if width:  # 0 if the table has no such columns
            kind = pa.list_(pa.field("item", pa.from_numpy_dtype(matrix.dtype), nullable=False), width)
            values = pa.array(np.ascontiguousarray(matrix).reshape(-1))
            columns.append(pa.FixedSizeListArray.from_arrays(values, type=kind))
            fields.append(pa.field(name, kind, nullable=False))
    schema = pa.schema(fields, metadata={"target_axes": str(targets.ndim)})
    with pa.ipc.new_file(str(path), schema) as file:
        file.write_batch(pa.record_batch(columns, schema=schema))


def read_encoded(path: Path) -> tuple[Encoded, np.ndarray]:
    """Views on a file from `write_encoded`, read lazily.

    Raises
    ------
    UserError
        If the file is incomplete, damaged or of another kind.
    """
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batch, axes = reader.get_batch(0), int(reader.schema.metadata[b"target_axes"])
        targets = _matrix(batch, "targets", np.float32)
    except (pa.ArrowException, OSError, AttributeError, TypeError, KeyError) as error:
        raise UserError(f"{path} is not a complete file of encoded rows ({error}); delete it and run again") from error
    encoded = Encoded(_matrix(batch, "categorical", np.int32), _matrix(batch, "continuous", np.float32))
    return encoded, targets if axes == 2 else targets.reshape(-1)


def _matrix(batch: pa.RecordBatch, name: str, dtype: type) -> np.ndarray:
    if name not in batch.schema.names:
        return np.empty((batch.num_rows, 0), dtype)
    column = batch.column(name)
    values: np.ndarray = column.values.to_numpy(zero_copy_only=True)
    return values.reshape(batch.num_rows, column.type.list_size)


class TableBatches:
    """Batches from a file of encoded rows.

    Parameters
    ----------
    path
        File written by `write_encoded`.
    rows
        Row numbers (N,) int64.
    device, batch_size
        Device of the batches, and their largest size.

    Raises
    ------
    UserError
        If the file cannot be used.
    """

    precomputed, epoch = False, 0
    forward_size = FORWARD_SIZE

    def __init__(self, path: Path, rows: np.ndarray, device: torch.device, batch_size: int) -> None:
        self.rows, self.device, self.batch_size = rows, device, batch_size
        self._encoded, self._targets = read_encoded(path)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def targets(self) -> torch.Tensor:
        """Targets of all rows, (N, T) float32 or (N,) int64, on the CPU."""
        return torch.from_numpy(self._targets.take(self.rows, axis=0))

    def gather(
        self, rows: torch.Tensor, generator: torch.Generator | None, share: slice = WHOLE
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Codes (B, K) int64 and numbers (B, M) float32, and targets; see `training.batches.Batches`."""
        wanted = self.rows[rows[share].numpy()]
        codes, numbers, targets = (
            torch.from_numpy(matrix.take(wanted, axis=0)).to(self.device)
            for matrix in (self._encoded.categorical, self._encoded.continuous, self._targets)
        )
        return (codes.long(), numbers), targets  # transferred as int32 to halve the bytes
