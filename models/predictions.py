"""Predictions as rows of a file, the same flat columns in every format."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet
from pyarrow.fs import LocalFileSystem

ROWS_AT_ONCE = 131_072
"""Rows that are written at a time: a Parquet file of many small groups of rows would be slow to read."""


class Chunk(NamedTuple):
    """Some consecutive rows of a source.

    Attributes
    ----------
    keys : sequence
        What names every row: its path or its number.
    rows : numpy.ndarray
        Positions (m,) int64 in the chunk of those that were predicted.
    results : numpy.ndarray
        Their probabilities (m, C) or values (m, T), float64.
    errors : dict of int to str
        Position -> why it was not predicted.
    """

    keys: Sequence[Any]
    rows: np.ndarray
    results: np.ndarray
    errors: dict[int, str]


class Layout:
    """The columns of predictions.

    Of a classifier: the key, ``class`` and ``probability`` of the most probable class, ``class_2`` and
    ``probability_2`` of the next, and so on. Of a regression: the key and a column per target. Then ``model``,
    ``version`` and ``error``: a row that cannot be read has a reason there, and nothing in the columns before.

    Parameters
    ----------
    key
        Name and type of the column that identifies the row.
    model, version
        Which model predicts.
    classes
        Names of the C classes, all of one type; empty for a regression.
    targets
        Names of the values of a regression.
    top_k
        Classes in a row, at most.
    """

    def __init__(
        self, key: pa.Field, model: str, version: str, classes: Sequence[Any], targets: Sequence[str], top_k: int
    ) -> None:
        self._model, self._classes, self._width = [model, version], pa.array(classes), len(classes) or len(targets)
        self._ranks = range(min(top_k, len(classes)))
        ends = [pa.field(name, pa.string()) for name in ("model", "version", "error")]
        taken = {key.name, *(field.name for field in ends)}
        values = [pa.field(f"predicted_{name}" if name in taken else name, pa.float64()) for name in targets]
        if len(classes):
            suffixes = [f"_{rank + 1}" if rank else "" for rank in self._ranks]
            kinds = [("class", self._classes.type), ("probability", pa.float64())]
            values = [pa.field(f"{name}{suffix}", kind) for suffix in suffixes for name, kind in kinds]
        self.schema = pa.schema([key, *values, *ends])

    def batch(self, keys: pa.Array, rows: np.ndarray, results: np.ndarray, errors: Mapping[int, str]) -> pa.RecordBatch:
        """Some rows of the file.

        Parameters
        ----------
        keys
            Of all n rows.
        rows
            Which of them were predicted, (m,) int64 from 0.
        results
            Probabilities (m, C) or values (m, T), float64.
        errors
            Row -> why it was not predicted.
        """
        count, results = len(keys), results.reshape(len(rows), self._width)
        columns = list(results.T)
        if len(self._classes):
            order = np.argsort(-results, axis=1, kind="stable")[:, : len(self._ranks)]
            pairs = zip(order.T, np.take_along_axis(results, order, axis=1).T, strict=True)
            columns = [
                column for best, probability in pairs for column in (self._classes.take(pa.array(best)), probability)
            ]
        places = np.full(count, -1)
        places[rows] = np.arange(len(rows))
        spread = pa.array(places, mask=places < 0)  # where each row's result is, null if it has none
        values = [pa.array(column).take(spread) for column in columns]
        ends = [pa.repeat(pa.scalar(text, pa.string()), count) for text in self._model]
        reasons = pa.array([errors.get(row) for row in range(count)] if errors else pa.nulls(count), pa.string())
        return pa.record_batch([keys, *values, *ends, reasons], schema=self.schema)


def write_predictions(batches: Iterable[pa.RecordBatch], schema: pa.Schema, path: Path, suffix: str) -> None:
    """Write rows as feather, Parquet or CSV, in bounded memory.

    Parameters
    ----------
    batches
        Rows in order, of `schema`.
    schema
        Its metadata are kept where the format has a place for them.
    path
        File to write in place: publish it by renaming.
    suffix
        `.feather`, `.parquet` or `.csv`.
    """
    with _writer(path, schema, suffix) as writer:
        waiting: list[pa.RecordBatch] = []
        for batch in batches:
            waiting.append(batch)
            if sum(each.num_rows for each in waiting) >= ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_batches(waiting, schema).combine_chunks())
                waiting = []
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting, schema).combine_chunks())


def _writer(path: Path, schema: pa.Schema, suffix: str) -> Any:
    if suffix == ".csv":
        return pa.csv.CSVWriter(str(path), schema)
    if suffix == ".parquet":
        return pa.parquet.ParquetWriter(str(path), schema)
    return pa.ipc.new_file(str(path), schema, options=pa.ipc.IpcWriteOptions(compression="zstd"))


class Tally:
    """Counts of predictions, taken while they pass by.

    Attributes
    ----------
    rows, unreadable : int
        Number of rows, and of those among them that have an error.
    classes : Counter
        Class -> rows that it is the most probable one of.
    """

    def __init__(self) -> None:
        self.rows = self.unreadable = 0
        self.classes: Counter[Any] = Counter()
        self._values: dict[str, list[tuple[float, float, float]]] = {}

    def passing(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Count batches and pass them on."""
        for batch in batches:
            self.rows += batch.num_rows
            self.unreadable += batch.num_rows - batch.column("error").null_count
            if "class" in batch.schema.names:
                found = batch.column("class").drop_null().value_counts()
                self.classes.update({each["values"]: each["counts"] for each in found.to_pylist()})
            else:
                for name in batch.schema.names[1:-3]:
                    values = batch.column(name).drop_null()
                    if len(values):
                        total, ends = pc.sum(values).as_py(), pc.min_max(values).as_py()
                        self._values.setdefault(name, []).append((total, ends["min"], ends["max"]))
            yield batch

    def table(self) -> list[dict[str, Any]]:
        """Rows of a table: class, rows and share; or target, mean, smallest and largest."""
        readable = max(self.rows - self.unreadable, 1)
        if self.classes:
            ranked = self.classes.most_common()
            return [{"class": str(name), "rows": count, "share": round(count / readable, 4)} for name, count in ranked]
        table = []
        for name, found in self._values.items():
            totals, smallest, largest = zip(*found, strict=True)
            mean = sum(totals) / readable
            table.append({"target": name, "mean": mean, "smallest": min(smallest), "largest": max(largest)})
        return table


def metadata_of(path: Path) -> dict[str, str]:
    """The texts in the schema of a file of predictions; none of a CSV file, or of a file that is something else."""
    try:
        schema = _opened(path).schema
    except (OSError, pa.ArrowException):
        return {}
    return {key.decode(): value.decode(errors="replace") for key, value in (schema.metadata or {}).items()}


def read_predictions(path: Path) -> Iterator[pa.RecordBatch]:
    """The rows of a feather or Parquet file that `write_predictions` wrote, in bounded memory."""
    return iter(_opened(path).to_batches())


def _opened(path: Path) -> pa.dataset.Dataset:
    kind = "parquet" if path.suffix.lower() == ".parquet" else "feather"
    return pa.dataset.dataset(str(path), format=kind, filesystem=LocalFileSystem())
