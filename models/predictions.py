"""Predictions as rows of a file, the same flat columns in every format."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

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
        Name and type of the column that says which row it is.
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
        self._model, self._version = model, version
        self._classes = pa.array(classes) if len(classes) else None
        self._top = min(top_k, len(classes))
        ends = [pa.field(name, pa.string()) for name in ("model", "version", "error")]
        taken = {key.name, *(field.name for field in ends)}
        if self._classes is not None:
            values = [
                field
                for rank in range(1, self._top + 1)
                for field in (
                    pa.field(self._ranked("class", rank), self._classes.type),
                    pa.field(self._ranked("probability", rank), pa.float64()),
                )
            ]
        else:
            values = [pa.field(name if name not in taken else f"predicted_{name}", pa.float64()) for name in targets]
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
        count = len(keys)
        values = (
            self._top_classes(count, rows, results) if self._classes is not None else self._values(count, rows, results)
        )
        reasons = [errors.get(row) for row in range(count)] if errors else [None] * count
        ends = [pa.array([text] * count, pa.string()) for text in (self._model, self._version)]
        return pa.record_batch([keys, *values, *ends, pa.array(reasons, pa.string())], schema=self.schema)

    def _values(self, count: int, rows: np.ndarray, results: np.ndarray) -> list[pa.Array]:
        return [_spread(count, rows, results[:, target]) for target in range(len(self.schema) - 4)]

    def _top_classes(self, count: int, rows: np.ndarray, results: np.ndarray) -> list[pa.Array]:
        assert self._classes is not None
        probabilities = results if len(rows) else np.empty((0, len(self._classes)))
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, : self._top]
        sorted_probabilities = np.take_along_axis(probabilities, order, axis=1)
        columns = []
        for rank in range(self._top):
            columns.append(self._classes.take(_spread(count, rows, order[:, rank])))
            columns.append(_spread(count, rows, sorted_probabilities[:, rank]))
        return columns

    @staticmethod
    def _ranked(name: str, rank: int) -> str:
        return name if rank == 1 else f"{name}_{rank}"


def _spread(count: int, rows: np.ndarray, values: np.ndarray) -> pa.Array:
    """`values` at `rows` of `count` rows, null elsewhere."""
    spread, missing = np.zeros(count, values.dtype), np.ones(count, dtype=bool)
    spread[rows], missing[rows] = values, False
    return pa.array(spread, mask=missing)


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
    """What predictions come to, counted while they pass by.

    Attributes
    ----------
    rows, unreadable : int
        How many there are, and how many of them have an error.
    classes : dict of Any to int
        Class -> rows that it is the most probable one of.
    """

    def __init__(self) -> None:
        self.rows = self.unreadable = 0
        self.classes: dict[Any, int] = {}
        self._sums: dict[str, tuple[float, float, float]] = {}

    def passing(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Count batches and pass them on."""
        for batch in batches:
            self.rows += batch.num_rows
            self.unreadable += batch.num_rows - batch.column("error").null_count
            if "class" in batch.schema.names:
                for found in batch.column("class").drop_null().value_counts().to_pylist():
                    self.classes[found["values"]] = self.classes.get(found["values"], 0) + found["counts"]
            else:
                self._add_values(batch)
            yield batch

    def table(self) -> list[dict[str, Any]]:
        """Rows of a table: class, rows and share; or target, mean, smallest and largest."""
        readable = max(self.rows - self.unreadable, 1)
        if self.classes:
            ranked = sorted(self.classes.items(), key=lambda item: -item[1])
            return [{"class": str(name), "rows": count, "share": round(count / readable, 4)} for name, count in ranked]
        return [
            {"target": name, "mean": total / readable, "smallest": low, "largest": high}
            for name, (total, low, high) in self._sums.items()
        ]

    def _add_values(self, batch: pa.RecordBatch) -> None:
        for name in batch.schema.names[1:-3]:
            values = batch.column(name).drop_null().to_numpy()
            if len(values):
                total, low, high = self._sums.get(name, (0.0, np.inf, -np.inf))
                extremes = min(low, float(values.min())), max(high, float(values.max()))
                self._sums[name] = (total + float(values.sum()), *extremes)


def metadata_of(path: Path) -> dict[str, str]:
    """The texts in the schema of a file of predictions; none of a CSV file, or of a file that is something else."""
    try:
        with pa.OSFile(str(path)) as file:
            is_parquet = path.suffix.lower() == ".parquet"
            schema = pa.parquet.ParquetFile(file).schema_arrow if is_parquet else pa.ipc.open_file(file).schema
    except (OSError, pa.ArrowException):
        return {}
    return {key.decode(): value.decode(errors="replace") for key, value in (schema.metadata or {}).items()}


def read_predictions(path: Path) -> Iterator[pa.RecordBatch]:
    """The rows of a feather or Parquet file that `write_predictions` wrote, in bounded memory."""
    with pa.OSFile(str(path)) as file:
        if path.suffix.lower() == ".parquet":
            yield from pa.parquet.ParquetFile(file).iter_batches()
        else:
            reader = pa.ipc.open_file(file)
            yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
