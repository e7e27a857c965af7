"""Predictions of new images or rows by a registered model, in parts that are joined into one file."""

import json
import os
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout
from prefect import task

from unfreeze.models.errors import UserError
from unfreeze.models.reading.labels import count_reasons
from unfreeze.models.reading.remote import file_system, is_url, size_at, upload
from unfreeze.models.recipe.modality import modality
from unfreeze.models.settings.predict import Predict
from unfreeze.models.store.model_folder import WITH_TTA, read_description
from unfreeze.models.store.part_files import PartFiles
from unfreeze.models.store.sealed_files import flush_to_disk
from unfreeze.models.store.workspace import Derived, key_of
from unfreeze.models.targets.conformal import kept_scores, margins
from unfreeze.models.targets.predictions import (
    Layout,
    Tally,
    metadata_of,
    read_predictions,
    unseen_note,
    write_predictions,
)
from unfreeze.tasks.machine.cluster import SHARDS_EACH, cluster_of, connected, resources, run_shards
from unfreeze.tasks.machine.notices import log_info
from unfreeze.tasks.machine.page import progress, show_table
from unfreeze.tasks.predictions.source import out_of
from unfreeze.tasks.steps.workspace import FlowWorkspace

PREDICTION_VERSION = 4
"""Part of a prediction's key; raise it when the same model, options and source would give other rows."""
_NAMED, _UNSEEN = "unfreeze.prediction", "unfreeze.unseen"


class Prediction:
    """One prediction: the model, the source, and the storage of its rows.

    Parameters
    ----------
    params
        The spec.
    model, source
        From `find_model` and `list_source`.
    """

    def __init__(self, params: Predict, model: dict[str, str], source: dict[str, Any]) -> None:
        self.params, self.model, self.source, self.out = params, model, source, out_of(params)
        self.shown = params.out if is_url(params.out) else str(self.out)
        self.kind = modality(model["modality"])
        self.chunk = params.chunk or self.kind.chunk
        # Everything that the rows and their division into parts depend on.
        options = [self.chunk, params.tta, params.top_k, params.coverage]
        version = [model["name"], model["version"], model["run_id"]]
        self.key = key_of(PREDICTION_VERSION, version, options, source["content"])
        folder = self.out.with_name(f"{self.out.name}.{self.key[:8]}.partial")
        self.parts = PartFiles(folder, source["rows"], self.chunk)
        about = read_description(Path(model["folder"]))
        as_evaluated = params.tta in (None, bool(about.get(WITH_TTA)))
        if params.coverage is not None and not as_evaluated:
            raise UserError("coverage: it is known of the way in which the model was evaluated only; omit --tta")
        self.margins = None if params.coverage is None else margins(kept_scores(about), params.coverage)
        self.version = model["version"]
        if not as_evaluated:
            self.version += f" with{'' if params.tta else 'out'} TTA, unlike its evaluation"

    def is_there(self) -> bool:
        """Whether the output already holds this prediction.

        Raises
        ------
        UserError
            If it holds anything else and must not be overwritten.
        """
        if self.out.is_dir():
            raise UserError(f"out: {self.out} is a folder; choose another --out")
        size = self.out.stat().st_size if self.out.exists() else None
        there = size_at(self.params.out) if is_url(self.params.out) else size
        if there is None:
            return False
        if there == size and metadata_of(self.out).get(_NAMED) == self.key:
            return True
        if not self.params.overwrite:
            raise UserError(
                f"out: {self.shown} exists already, maybe from this very command; choose another --out, or give "
                "--overwrite"
            )
        return False

    def complete_parts(self) -> int:
        """Predict the parts that an earlier run did not; returns the number of rows."""
        rows, cluster = self.source["rows"], cluster_of(self.params.cluster)
        done = rows - self._rows_of(self.parts.missing()) if cluster else self.parts.done()
        first = done
        if done:
            log_info(f"{done:,} of {rows:,} rows were there already")
        if done < rows:
            with progress("Predicting") as advance, closing(self._counts(cluster, first)) as counts:
                for count in counts:
                    done += count
                    advance(done, rows)
        return done - first

    def _rows_of(self, firsts: Iterable[int]) -> int:
        return sum(min(self.chunk, self.source["rows"] - first) for first in firsts)

    def _counts(self, cluster: str | None, first: int) -> Generator[int, None, None]:
        """Write the missing parts here or on a cluster; yields the number of rows written each time."""
        rows = self.source["rows"]
        if cluster is None:
            yield from self.write(first, rows)
            return
        with connected(cluster) as ray:
            wanted, slots = resources(ray, self.params.device)
            parts = -(-rows // self.chunk)
            size = self.chunk * max(1, parts // (SHARDS_EACH * slots))
            todo = sorted({start - start % size for start in self.parts.missing()})
            given = (self.params, self.model, self.source)
            yield from run_shards(
                ray, _write_shard, [(*given, start, min(start + size, rows)) for start in todo], wanted
            )

    def write(self, first: int, end: int) -> Generator[int, None, None]:
        """Predict and write the parts of a range of rows; yields the number of rows of each."""
        with closing(self._batches(first)) as batches:
            while first < end:
                batch = next(batches)
                self.parts.write(first, batch)
                first += batch.num_rows
                yield batch.num_rows

    def write_missing(self, first: int, end: int) -> int:
        """Predict and write the parts of a range of rows that are missing; returns the number of their rows."""
        missing = list(self.parts.missing(first, end))
        if not missing:
            return 0
        for _ in self.write(missing[0], missing[-1] + 1):
            pass
        return self._rows_of(missing)

    def _batches(self, first: int) -> Generator[pa.RecordBatch, None, None]:
        """Predictions from row `first` on, one batch per chunk."""
        folder, on_onnx = Path(self.model["folder"]), self.params.runtime == "onnx"
        predictor = self.kind.load(folder, "cpu" if on_onnx else self.params.device)
        if on_onnx:
            self.kind.use_onnxruntime(predictor, folder, FlowWorkspace())
        model = (self.model["name"], self.version, predictor.target)
        layout = Layout(self.kind.key, *model, self.params.top_k, self.margins)
        with closing(predictor.chunks(self.source, self.chunk, first, self.params.tta)) as chunks:
            for chunk in chunks:
                batch = layout.batch(pa.array(chunk.keys, self.kind.key.type), chunk.rows, chunk.results, chunk.errors)
                yield batch.replace_schema_metadata({_UNSEEN: json.dumps(chunk.unseen)})

    def publish(self) -> Tally:
        """Join the parts into the output; returns its counts."""
        tally = Tally()
        # Beside the output, because renaming works only within a disk; hidden from listings.
        unfinished = self.out.with_name(f".{self.out.name}.{self.key[:8]}.unfinished")
        try:
            for batch in self.parts.batches():
                tally.unseen.update(json.loads(batch.schema.metadata[_UNSEEN.encode()]))
            schema = self.parts.schema().with_metadata({_NAMED: self.key, _UNSEEN: json.dumps(tally.unseen)})
            write_predictions(tally.passing(self.parts.batches()), schema, unfinished, self.out.suffix.lower())
            flush_to_disk(unfinished)
            os.replace(unfinished, self.out)
            if is_url(self.params.out):
                upload(self.out, self.params.out)
        finally:
            unfinished.unlink(missing_ok=True)
        return tally

    def published(self) -> Tally:
        """Counts of the existing output."""
        tally = Tally()
        for _ in tally.passing(read_predictions(self.out)):
            pass
        tally.unseen.update(json.loads(metadata_of(self.out)[_UNSEEN]))
        return tally


def _write_shard(params: Predict, model: dict[str, str], source: dict[str, Any], first: int, end: int) -> int:
    """Predict a range of rows on a node of a cluster, which shares the folders with the machine that asks for it."""
    for path in (model["folder"], source["path"]):
        if not Path(path).exists():
            raise UserError(
                f"cluster: {path} is not on the node {os.uname().nodename}; put the data folder (UNFREEZE_HOME), the "
                "source and the output on a disk that all nodes share, at the same path"
            )
    return Prediction(params, model, source).write_missing(first, end)


@contextmanager
def writing(params: Predict) -> Iterator[None]:
    """Create the output's folder and lock the output; adds a note on how to continue to a Ctrl-C.

    Raises
    ------
    UserError
        If it cannot be written, or another process writes it.
    """
    folder = out_of(params).parent
    if is_url(params.out):
        file_system(params.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out: cannot make {folder}: {error.strerror}; choose another --out") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"out: no right to write in {folder}; choose another --out")
    path = FlowWorkspace().path(Derived("predictions", key_of(str(out_of(params))), ".lock"))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout:
        raise UserError(f"out: another process is writing {params.out}; choose another --out") from None
    except KeyboardInterrupt as stopped:
        stopped.add_note("continue with the same command: the parts that are done are kept")
        raise


@task(name="predict-parts", task_run_name="predict {params.source}")
def predict_parts(params: Predict, model: dict[str, str], source: dict[str, Any]) -> dict[str, Any]:
    """Predict the parts that an earlier run did not, and join all parts into one file.

    Returns
    -------
    dict
        ``out``, ``rows``, ``unreadable`` and ``why`` (counts by reason), ``unseen`` (column -> rows with a category
        absent from the training rows), ``model``, ``version``, ``predicted`` (rows of this run), ``rows_per_second``
        ``table`` (rows and share of every class, or the range of every target), and ``few``, see `Tally`.

    Raises
    ------
    UserError
        If the output holds another prediction, or the model cannot predict these rows.
    """
    prediction, predicted, rate = Prediction(params, model, source), 0, None
    if prediction.is_there():
        log_info(f"{prediction.shown} holds this prediction already")
        tally = prediction.published()
    else:
        began = time.monotonic()
        predicted = prediction.complete_parts()
        rate = round(predicted / (time.monotonic() - began), 1) if predicted else None
        tally = prediction.publish()
    prediction.parts.remove()
    by = f"{model['name']} version {prediction.version}"
    why = count_reasons(tally.reasons.elements())
    unreadable = f"{tally.unreadable:,} unreadable" + (f": {why}" if why else "")
    log_info(
        f"{tally.rows:,} rows by {by}, {unreadable}{f', {rate:,.0f} a second' if rate else ''}; {prediction.shown}"
    )
    if tally.abstaining:
        log_info(f"{tally.abstaining:,} rows abstain: at a coverage of {params.coverage} their set is not one class")
    for column, count in tally.unseen.items():
        log_info(f"warning: {unseen_note(column, count, tally.rows)}")
    show_table(tally.table(), "predictions", f"{by} on {params.source}")
    return {
        "out": prediction.shown,
        "rows": tally.rows,
        "unreadable": tally.unreadable,
        "why": why,
        "unseen": dict(tally.unseen),
        "model": model["name"],
        "version": prediction.version,
        "predicted": predicted,
        "rows_per_second": rate,
        "table": tally.table(),
        "few": tally.few,
    }
