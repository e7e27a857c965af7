"""Generated tables of 1, 10 and 50 million rows, from the file to predictions of the validation rows.

Three columns of categories (10, 100 and 1,000 values), three of numbers and a target made of them: 21 bytes a row. Each
size runs in a process of its own: a Parquet file is read into the cache, prepared, encoded, trained on for one epoch
(two layers of 64 units, batches of 4,096 rows, float32), and its validation rows are predicted. Neither baselines nor
trees are part of it: trees see at most `unfreeze.models.tables.trees.MOST_FITTED` rows, however many there are.

Memory is the peak of anonymous memory, as in `benchmarks.memory`: pages of mapped files, which the system takes back
when something else needs them, are not counted. Seconds are those of a single run, with one thread unless
OMP_NUM_THREADS says otherwise: two, on cores that do other work as well, wait for each other.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet
from rich.console import Console
from rich.table import Table

from unfreeze.models.evaluation.metrics import rmse
from unfreeze.models.recipe.modality import modality
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.tables import TrainTables
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.tables.data import TableData
from unfreeze.models.training.loop import fit

MILLIONS = (1, 10, 50)
VALUES = {"shop": 1_000, "product": 100, "weekday": 10}
AT_ONCE = 1_000_000
LIMIT = 4e9
"""Bytes that 50 million rows may take."""
SPEC = {
    "data": {"target": ["sales"], "categorical": list(VALUES)},
    "model": {"members": 4, "width": 64, "depth": 2, "dropout": 0.0},
    "recipe": [{"name": "all", "train": "all", "lr": 0.003, "ratio": 1, "cycles": 1, "cycle_len": 1}],
    "optimizer": {"batch_size": 4096},
    "metrics": ["rmse", "r2"],
    "device": "cpu",
    "precision": "fp32",
}


def generate(rows: int, path: Path) -> None:
    """Write a table whose target follows from its columns, with noise of deviation 1 on top."""
    random = np.random.default_rng(0)
    effects = {name: random.normal(size=values).astype(np.float32) for name, values in VALUES.items()}
    writer = None
    for start in range(0, rows, AT_ONCE):
        count = min(AT_ONCE, rows - start)
        types = {"shop": np.int16, "product": np.int8, "weekday": np.int8}
        codes = {name: random.integers(0, values, count).astype(types[name]) for name, values in VALUES.items()}
        numbers = {name: random.standard_normal(count, np.float32) for name in ("price", "distance", "stock")}
        sales = sum(effects[name][code] for name, code in codes.items()) + numbers["price"] * effects["weekday"][0]
        sales = sales + np.square(numbers["distance"]) + random.standard_normal(count, np.float32)
        part = pa.table({**codes, **numbers, "sales": sales.astype(np.float32)})
        writer = writer or pa.parquet.ParquetWriter(str(path), part.schema)
        writer.write_table(part)
    assert writer is not None
    writer.close()


class Peak:
    """Peak of this process's anonymous memory, and of each part of the work, by asking ten times a second."""

    def __init__(self) -> None:
        self.part, self.bytes = "start", dict[str, int]()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, int]:
        """Bytes by part."""
        self._over.set()
        self._thread.join()
        return self.bytes

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._over.wait(0.1):
            memory = process.memory_info()
            self.bytes[self.part] = max(self.bytes.get(self.part, 0), memory.rss - memory.shared)


def measure(source: Path, folder: Path) -> dict[str, object]:
    """What the process of one size does; seconds and peak bytes of each part, the error, and the rows of each split."""
    params, peak, seconds = build_spec(TrainTables, SPEC, {"data.source": str(source)}), Peak(), dict[str, float]()
    began = time.perf_counter()

    def done(following: str) -> None:
        nonlocal began
        seconds[peak.part] = time.perf_counter() - began
        peak.part, began = following, time.perf_counter()

    done("prepare")
    handle = modality("tables").prepare(params, Workspace(folder))
    done("train")
    data = TableData(params, handle)
    learner = data.learner()
    stage = params.recipe[0]
    train, valid = (data.batches(0, split, {}) for split in ("train", "valid"))
    learner.prepare(stage, 0, float(stage.lr or 0))
    for _ in fit(learner, stage, train, valid):
        pass
    done("predict")
    outputs, targets = learner.predict(valid)
    error = rmse(learner.target.predictions(outputs), learner.target.actual(targets))
    done("end")
    return {"seconds": seconds, "bytes": peak.stop(), "rmse": error, **handle.splits}


def run(millions: float) -> dict[str, Any]:
    """Generate a table and measure it in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "table.parquet"
        generate(round(millions * 1e6), source)
        command = [sys.executable, "-m", "benchmarks.large_table", "--measure", str(source), folder]
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment, text=True).stdout
    return dict(json.loads(output.splitlines()[-1]))


def main() -> None:
    """Measure every size and print the table."""
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(Path(sys.argv[2]), Path(sys.argv[3]))))
        return
    sizes = [float(text) for text in sys.argv[1:]] or list(MILLIONS)
    columns = ("million rows", "read, prepare", "train", "predict", "trained a second", "RMSE", "peak of each")
    shown = Table(*columns, "peak", title="Seconds, and anonymous memory in GB")
    totals, peaks = [], []
    for millions in sizes:
        found: dict[str, Any] = run(millions)
        seconds, peak = found["seconds"], found["bytes"]
        totals.append(sum(seconds.values()) / millions)
        peaks.append(max(peak.values()))
        shown.add_row(
            f"{millions:g}",
            f"{seconds['prepare']:.1f}",
            f"{seconds['train']:.1f}",
            f"{seconds['predict']:.1f}",
            f"{found['train'] / seconds['train']:,.0f}",
            f"{found['rmse']:.3f}",
            ", ".join(f"{part} {size / 1e9:.2f}" for part, size in peak.items() if part not in ("start", "end")),
            f"{peaks[-1] / 1e9:.2f}",
        )
        print(f"{millions:g} million rows: {totals[-1]:.2f} s a million, {peaks[-1] / 1e9:.2f} GB", flush=True)
    Console(width=150).print(shown)
    print(f"seconds a million rows, last against first size: {totals[-1] / totals[0]:.2f}x (1: linear)")
    print(f"peak of the largest: {peaks[-1] / 1e9:.2f} GB ({'under' if peaks[-1] < LIMIT else 'OVER'} 4 GB)")


if __name__ == "__main__":
    main()
