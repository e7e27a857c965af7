"""Prediction files with the same flat columns in every format."""

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

from unfreeze.models.reading.labels import SEPARATOR, kind_of_reason, split
from unfreeze.models.targets.base import Target

ROWS_AT_ONCE = 131_072
"""Rows written at a time; Parquet files with many small row groups are slow to read."""


NO_LABEL = "(none)"
"""Key of the rows without a label in `Tally.answers`."""


class Chunk(NamedTuple):
    """Consecutive rows of a source, with their predictions.

    Attributes
    ----------
    keys : sequence
        Path or number of every row.
    rows : numpy.ndarray
        Positions (m,) int64 of the predicted rows in the chunk.
    results : numpy.ndarray
        Their probabilities (m, C) or values (m, T), float64.
    errors : dict of int to str
        Position -> why it was not predicted.
    unseen : dict of str to int
        Column -> number of predicted rows with a category that is not in the training rows.
    """

    keys: Sequence[Any]
    rows: np.ndarray
    results: np.ndarray
    errors: dict[int, str]
    unseen: Mapping[str, int] = {}


def unseen_note(column: str, count: int, rows: int) -> str:
    """Describe how many rows have a category that is not in the training rows."""
    return (
        f"column {column!r}: {count:,} of {rows:,} rows have a category that no training row has; the model takes it "
        "as missing"
    )


class Layout:
    """Columns of a predictions file.

    One class: the key, ``class`` and ``probability`` of the most probable class, ``class_2`` and ``probability_2`` of
    the next, and so on. Several labels: the key, ``labels`` joined by ``|``, ``label`` and ``probability`` of the most
    probable one, and so on. Numbers: the key and a column per target. Then ``model``, ``version`` and ``error``, the
    reason why a row cannot be read; its predictions are null.

    Parameters
    ----------
    key
        Name and type of the column that identifies the row.
    model, version
        The predicting model.
    target
        Target of the predictions.
    top_k
        Maximum classes or labels per row.
    margins
        Add ``set``, the classes joined by ``|``, and ``abstains``; or ``TARGET_low`` and ``TARGET_high``. See
        `Target.covering`.
    """

    def __init__(
        self, key: pa.Field, model: str, version: str, target: Target, top_k: int, margins: np.ndarray | None = None
    ) -> None:
        self._model, self._target, self._top_k, self._margins = [model, version], target, top_k, margins
        ends = [pa.field(name, pa.string()) for name in ("model", "version", "error")]
        taken = {key.name, *(field.name for field in ends)}
        columns = self._columns(np.empty((0, target.outputs)))
        values = [
            pa.field(f"predicted_{name}" if name in taken else name, column.type) for name, column in columns.items()
        ]
        self.schema = pa.schema([key, *values, *ends])

    def batch(self, keys: pa.Array, rows: np.ndarray, results: np.ndarray, errors: Mapping[int, str]) -> pa.RecordBatch:
        """Make a record batch of the file.

        Parameters
        ----------
        keys
            Keys of all n rows.
        rows
            Positions of the predicted rows, (m,) int64 from 0.
        results
            Probabilities (m, C) or values (m, T), float64.
        errors
            Row -> why it was not predicted.
        """
        count, results = len(keys), results.reshape(len(rows), self._target.outputs)
        places = np.full(count, -1)
        places[rows] = np.arange(len(rows))
        spread = pa.array(places, mask=places < 0)  # index of each row's result, null without one
        values = [column.take(spread) for column in self._columns(results).values()]
        ends = [pa.repeat(pa.scalar(text, pa.string()), count) for text in self._model]
        reasons = pa.array([errors.get(row) for row in range(count)] if errors else pa.nulls(count), pa.string())
        return pa.record_batch([keys, *values, *ends, reasons], schema=self.schema)

    def _columns(self, results: np.ndarray) -> dict[str, pa.Array]:
        """Columns of `Target.filed` and `Target.covering`, with lists of classes joined to text."""
        columns = self._target.filed(results, self._top_k)
        if self._margins is not None:
            for name, column in self._target.covering(results, self._margins).items():
                is_set = column.dtype == object
                texts = [SEPARATOR.join(map(str, each)) for each in column] if is_set else column
                columns[str(name)] = pa.array(texts, pa.string() if is_set else None)
        return columns


def write_predictions(batches: Iterable[pa.RecordBatch], schema: pa.Schema, path: Path, suffix: str) -> None:
    """Write rows as feather, Parquet or CSV, in bounded memory.

    Parameters
    ----------
    batches
        Rows in order, of `schema`.
    schema
        Its metadata are kept if the format supports them.
    path
        File to write in place; publish it by renaming.
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


FEW = 20
"""Rows of a file of predictions up to which each is shown."""


class Tally:
    """Running counts of predictions.

    Attributes
    ----------
    rows : int
        Number of rows.
    reasons : Counter
        Kind of error -> rows.
    answers : Counter
        Class -> rows with it as the most probable one, or label -> rows with it.
    abstaining : int
        Rows whose set has not exactly one class.
    few : list of dict
        The rows themselves where there are at most `FEW`, without the model's name and version.
    unseen : Counter
        Column -> rows with a category that is not in the training rows; filled in by the caller.
    """

    def __init__(self) -> None:
        self.rows = self.abstaining = 0
        self.few: list[dict[str, Any]] = []
        self.reasons: Counter[str] = Counter()
        self.answers: Counter[Any] = Counter()
        self._kind = "class"
        self.unseen: Counter[str] = Counter()
        self._values: dict[str, list[tuple[float, float, float]]] = {}

    def passing(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Count batches and pass them on."""
        for batch in batches:
            self.rows += batch.num_rows
            shown = [name for name in batch.schema.names if name not in ("model", "version")]
            self.few = [*self.few, *batch.select(shown).to_pylist()] if self.rows <= FEW else []
            self.reasons.update(map(kind_of_reason, batch.column("error").drop_null().to_pylist()))
            if "abstains" in batch.schema.names:
                self.abstaining += pc.sum(batch.column("abstains")).as_py() or 0
            if "class" in batch.schema.names:
                found = batch.column("class").drop_null().value_counts()
                self.answers.update({each["values"]: each["counts"] for each in found.to_pylist()})
            elif "labels" in batch.schema.names and pa.types.is_string(batch.schema.field("labels").type):
                self._kind = "label"
                for each in batch.column("labels").drop_null().value_counts().to_pylist():
                    self.answers.update(dict.fromkeys(split(each["values"]) or [NO_LABEL], each["counts"]))
            else:
                for name in batch.schema.names[1:-3]:
                    values = batch.column(name).drop_null()
                    if len(values):
                        total, ends = pc.sum(values).as_py(), pc.min_max(values).as_py()
                        self._values.setdefault(name, []).append((total, ends["min"], ends["max"]))
            yield batch

    @property
    def unreadable(self) -> int:
        """Number of rows with an error."""
        return self.reasons.total()

    def table(self) -> list[dict[str, Any]]:
        """Summary table: class or label, rows and share; or target, mean, smallest and largest."""
        readable = max(self.rows - self.unreadable, 1)
        if self.answers:
            return [
                {self._kind: str(name), "rows": count, "share": round(count / readable, 4)}
                for name, count in self.answers.most_common()
            ]
        table = []
        for name, found in self._values.items():
            totals, smallest, largest = zip(*found, strict=True)
            mean = sum(totals) / readable
            table.append({"target": name, "mean": mean, "smallest": min(smallest), "largest": max(largest)})
        return table


def metadata_of(path: Path) -> dict[str, str]:
    """Schema metadata of a predictions file; empty for CSV and other files."""
    try:
        schema = _opened(path).schema
    except (OSError, pa.ArrowException):
        return {}
    return {key.decode(): value.decode(errors="replace") for key, value in (schema.metadata or {}).items()}


def read_predictions(path: Path) -> Iterator[pa.RecordBatch]:
    """Read a feather or Parquet file of `write_predictions` in bounded memory."""
    return iter(_opened(path).to_batches())


def _opened(path: Path) -> pa.dataset.Dataset:
    kind = "parquet" if path.suffix.lower() == ".parquet" else "feather"
    return pa.dataset.dataset(str(path), format=kind, filesystem=LocalFileSystem())
