"""A registered model on new images or rows: predicted part by part, then put together into one file."""

import json
import os
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout
from prefect import task

from unfreeze.models.errors import UserError
from unfreeze.models.reading.labels import count_reasons
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
from unfreeze.tasks.machine.interruption import heeding_hangups
from unfreeze.tasks.machine.notices import log_info
from unfreeze.tasks.machine.page import progress, show_table
from unfreeze.tasks.predictions.source import out_of
from unfreeze.tasks.steps.workspace import FlowWorkspace

PREDICTION_VERSION = 4
"""Raise it when the same model, options and source would give other rows; it is part of what names a prediction."""
_NAMED, _UNSEEN = "unfreeze.prediction", "unfreeze.unseen"


class Prediction:
    """What is predicted, by which model, and where it is kept.

    Parameters
    ----------
    params
        The spec.
    model, source
        From `find_model` and `list_source`.
    """

    def __init__(self, params: Predict, model: dict[str, str], source: dict[str, Any]) -> None:
        self.params, self.model, self.source, self.out = params, model, source, out_of(params)
        self.chunk = params.chunk or modality(model["modality"]).chunk
        # Everything that the rows, and the parts that they come in, depend on.
        options = [self.chunk, params.tta, params.top_k, params.coverage]
        version = [model["name"], model["version"], model["run_id"]]
        self.key = key_of(PREDICTION_VERSION, version, options, source["content"])
        folder = self.out.with_name(f"{self.out.name}.{self.key[:8]}.partial")
        self.parts = PartFiles(folder, source["rows"], self.chunk)
        about = read_description(Path(model["folder"]))
        self.as_evaluated = params.tta in (None, bool(about.get(WITH_TTA)))
        self.margins = None if params.coverage is None else margins(kept_scores(about), params.coverage)
        if params.coverage is not None and not self.as_evaluated:
            raise UserError("coverage: it is known of the way in which the model was evaluated only; omit --tta")

    @property
    def version(self) -> str:
        """The model's version, with a note where it is not used as it was evaluated."""
        note = "" if self.as_evaluated else f" with{'' if self.params.tta else 'out'} TTA, unlike its evaluation"
        return f"{self.model['version']}{note}"

    def is_there(self) -> bool:
        """Whether the output holds this very prediction.

        Raises
        ------
        UserError
            If it holds anything else, which is replaced only if that is wanted.
        """
        if self.out.is_dir():
            raise UserError(f"out: {self.out} is a folder; choose another --out")
        if not self.out.exists():
            return False
        if metadata_of(self.out).get(_NAMED) == self.key:
            return True
        if not self.params.overwrite:
            raise UserError(
                f"out: {self.out} exists already, maybe from this very command; choose another --out, or give "
                "--overwrite"
            )
        return False

    def batches(self, first: int) -> Generator[pa.RecordBatch, None, None]:
        """Predictions from row `first` on, a batch per chunk."""
        kind = modality(self.model["modality"])
        folder, on_onnx = Path(self.model["folder"]), self.params.runtime == "onnx"
        predictor = kind.load(folder, "cpu" if on_onnx else self.params.device)
        if on_onnx:
            kind.use_onnxruntime(predictor, folder, FlowWorkspace())
        model = (self.model["name"], self.version, predictor.target)
        layout = Layout(kind.key, *model, self.params.top_k, self.margins)
        with closing(predictor.chunks(self.source, self.chunk, first, self.params.tta)) as chunks:
            for chunk in chunks:
                batch = layout.batch(pa.array(chunk.keys, kind.key.type), chunk.rows, chunk.results, chunk.errors)
                yield batch.replace_schema_metadata({_UNSEEN: json.dumps(chunk.unseen)})

    def publish(self) -> Tally:
        """Put the parts together into the output; returns their counts."""
        tally = Tally()
        # Beside the output, because a file can be renamed only within its disk; hidden, so that no folder lists it.
        unfinished = self.out.with_name(f".{self.out.name}.{self.key[:8]}.unfinished")
        try:
            for batch in self.parts.batches():
                tally.unseen.update(json.loads(batch.schema.metadata[_UNSEEN.encode()]))
            schema = self.parts.schema().with_metadata({_NAMED: self.key, _UNSEEN: json.dumps(tally.unseen)})
            write_predictions(tally.passing(self.parts.batches()), schema, unfinished, self.out.suffix.lower())
            flush_to_disk(unfinished)
            os.replace(unfinished, self.out)
        finally:
            unfinished.unlink(missing_ok=True)
        return tally


@contextmanager
def writing(params: Predict) -> Iterator[None]:
    """Make the output's folder and lock the output; a Ctrl-C gets a note on how to continue.

    Raises
    ------
    UserError
        If it cannot be written, or another process writes it.
    """
    folder = out_of(params).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out: cannot make {folder}: {error.strerror}; choose another --out") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"out: no right to write in {folder}; choose another --out")
    path = FlowWorkspace().path(Derived("predictions", key_of(str(out_of(params))), ".lock"))
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"out: another process is writing {out_of(params)}; choose another --out") from None
    try:
        with heeding_hangups():
            yield
    except KeyboardInterrupt as stopped:
        stopped.add_note("continue with the same command: the parts that are done are kept")
        raise
    finally:
        lock.release()


@task(name="predict-parts", task_run_name="predict {params.source}")
def predict_parts(params: Predict, model: dict[str, str], source: dict[str, Any]) -> dict[str, Any]:
    """Predict what an earlier run of the same prediction has not, part by part, into a folder beside the output.

    Returns
    -------
    dict
        ``rows`` that were predicted here, and the ``seconds`` it took.

    Raises
    ------
    UserError
        If the output holds another prediction, or the model cannot predict these rows.
    """
    began, prediction, rows = time.monotonic(), Prediction(params, model, source), source["rows"]
    if prediction.is_there():
        log_info(f"{prediction.out} holds this prediction already")
        return {"rows": 0, "seconds": 0.0}
    done = first = prediction.parts.done()
    if done:
        log_info(f"{done:,} of {rows:,} rows were there already")
    if done < rows:
        with progress("Predicting") as advance, closing(prediction.batches(first)) as batches:
            for batch in batches:
                prediction.parts.write(done, batch)
                done += batch.num_rows
                advance(done, rows)
    return {"rows": done - first, "seconds": time.monotonic() - began}


@task(name="publish-predictions", task_run_name="write {params.out}")
def publish_predictions(
    params: Predict, model: dict[str, str], source: dict[str, Any], predicted: dict[str, Any]
) -> dict[str, Any]:
    """Put the parts together into the output, remove them once it is there, and show their counts.

    Returns
    -------
    dict
        ``out``, ``rows``, ``unreadable`` and ``why`` (counts by reason), ``unseen`` (column -> rows with a category
        that no training row has), ``model``, ``version``, ``predicted`` (rows of this run), ``rows_per_second`` and
        ``table`` (rows and share of every class, or the range of every target).
    """
    prediction = Prediction(params, model, source)
    if prediction.is_there():
        tally = Tally()
        for _ in tally.passing(read_predictions(prediction.out)):
            pass
        tally.unseen.update(json.loads(metadata_of(prediction.out)[_UNSEEN]))
    else:
        tally = prediction.publish()
    prediction.parts.remove()
    rate = round(predicted["rows"] / predicted["seconds"], 1) if predicted["rows"] else None
    speed = f", {rate:,.0f} a second" if rate else ""
    by = f"{model['name']} version {prediction.version}"
    why = count_reasons(tally.reasons.elements())
    unreadable = f"{tally.unreadable:,} unreadable" + (f": {why}" if why else "")
    log_info(f"{tally.rows:,} rows by {by}, {unreadable}{speed}; {prediction.out}")
    if tally.abstaining:
        log_info(f"{tally.abstaining:,} rows abstain: at a coverage of {params.coverage} their set is not one class")
    for column, count in tally.unseen.items():
        log_info(f"warning: {unseen_note(column, count, tally.rows)}")
    show_table(tally.table(), "predictions", f"{by} on {params.source}")
    return {
        "out": str(prediction.out),
        "rows": tally.rows,
        "unreadable": tally.unreadable,
        "why": why,
        "unseen": dict(tally.unseen),
        "model": model["name"],
        "version": prediction.version,
        "predicted": predicted["rows"],
        "rows_per_second": rate,
        "table": tally.table(),
    }
