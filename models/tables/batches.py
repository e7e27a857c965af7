"""Encoded rows of a table in one memory-mapped file of records, and batches of them."""

from pathlib import Path

import numpy as np
import torch

from unfreeze.models.errors import UserError
from unfreeze.models.tables.encoding import Encoded
from unfreeze.models.tables.reading import CHUNK_ROWS

FORWARD_SIZE = 8192
"""Rows of a batch that is only predicted."""


def write_encoded(encoded: Encoded, targets: np.ndarray, path: Path) -> None:
    """Write N rows and their targets, (N, T) float32 or (N,) int64, in place as a NumPy file of records.

    It can be mapped into memory, where a row is read from one place.
    """
    columns = {"categorical": encoded.categorical, "continuous": encoded.continuous, "targets": targets}
    record = np.dtype([(name, each.dtype, each.shape[1:]) for name, each in columns.items()], align=True)
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(record), "fortran_order": False, "shape": (len(encoded),)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(encoded), CHUNK_ROWS):
            records = np.zeros(min(CHUNK_ROWS, len(encoded) - start), record)
            for name, each in columns.items():
                records[name] = each[start : start + CHUNK_ROWS]
            records.tofile(file)


def _read_records(path: Path) -> np.ndarray:
    """The mapped file; a `UserError` if it is incomplete, damaged or of another kind."""
    try:
        records: np.ndarray = np.load(path, mmap_mode="r")
        if records.dtype.names != ("categorical", "continuous", "targets"):
            raise ValueError("it holds something else")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is not a complete file of encoded rows ({error}); delete it and run again") from error
    return records


def read_encoded(path: Path) -> tuple[Encoded, np.ndarray]:
    """Views on the file that `write_encoded` wrote; nothing is read before it is used."""
    records = _read_records(path)
    return Encoded(records["categorical"], records["continuous"]), records["targets"]


class TableBatches:
    """Rows, by number (N,) int64, of a file that `write_encoded` wrote, in batches of at most `batch_size`."""

    precomputed = False
    forward_size = FORWARD_SIZE

    def __init__(self, path: Path, rows: np.ndarray, device: torch.device, batch_size: int) -> None:
        self.rows, self.device, self.batch_size = rows, device, batch_size
        self._records = _read_records(path)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def targets(self) -> torch.Tensor:
        """Targets of all rows, (N, T) float32 or (N,) int64, on the CPU."""
        return torch.from_numpy(self._records["targets"][self.rows])

    def gather(
        self, rows: torch.Tensor, generator: torch.Generator | None
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Codes (B, K) int64 and numbers (B, M) float32, and targets; see `training.batches.Batches`."""
        records = self._records.take(self.rows[rows.numpy()])
        codes, numbers, targets = (
            torch.from_numpy(np.ascontiguousarray(records[name])).to(self.device) for name in records.dtype.names
        )
        return (codes.long(), numbers), targets  # codes cross to the device in half the bytes
