"""Rows a second gathered from a file of encoded rows in random order, against a DataLoader over tensors in memory."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks._prepared import median
from unfreeze.models.tables.batches import TableBatches, write_encoded
from unfreeze.models.tables.columns.encoding import Encoded
from unfreeze.models.training.batches import split_into_batches

ROWS, CATEGORICAL, CONTINUOUS, BATCH = 2_000_000, 20, 10, 1_024
REPEATS = 3


def seconds_of(batches: Callable[[], Iterator[object]]) -> float:
    """Seconds to visit all batches."""
    began = time.perf_counter()
    for _ in batches():
        pass
    return time.perf_counter() - began


def main() -> None:
    """Measure both in turn and print the table."""
    random = np.random.default_rng(0)
    encoded = Encoded(
        random.integers(0, 100, (ROWS, CATEGORICAL), np.int32),
        random.standard_normal((ROWS, CONTINUOUS), np.float32),
    )
    targets = random.standard_normal((ROWS, 1), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoded.arrow"
        began = time.perf_counter()
        write_encoded(encoded, targets, path)
        print(f"writing {path.stat().st_size / 1e6:.0f} MB: {time.perf_counter() - began:.2f} s", flush=True)
        table = TableBatches(path, np.arange(ROWS), torch.device("cpu"), BATCH)
        tensors = [torch.from_numpy(each) for each in (encoded.categorical, encoded.continuous, targets)]
        loader = DataLoader(TensorDataset(*tensors), batch_size=BATCH, shuffle=True, num_workers=0)

        def gathered() -> Iterator[object]:
            for rows in split_into_batches(torch.randperm(ROWS), BATCH):
                yield table.gather(rows, None)

        ways = {"TableBatches, memory-mapped": gathered, "DataLoader over a TensorDataset": lambda: iter(loader)}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(REPEATS):
            for name, batches in ways.items():
                seconds[name].append(seconds_of(batches))
    for name, values in seconds.items():
        print(f"{name:33} {ROWS / median(values):12,.0f} rows a second   (of {[round(each, 2) for each in values]} s)")


if __name__ == "__main__":
    main()
