"""Champion against challenger on the same validation rows, as a step."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import task

from unfreeze.models.comparison import Comparison, compare_classes, compare_values
from unfreeze.models.errors import UserError
from unfreeze.models.images.index import Index
from unfreeze.models.images.serving import ImagePredictor
from unfreeze.models.specs import TrainImages
from unfreeze.models.table_specs import TrainTables
from unfreeze.models.tables.serving import TablePredictor
from unfreeze.tasks import tracking
from unfreeze.tasks.prefect_run.progress import log_info
from unfreeze.tasks.prefect_run.report import show_table
from unfreeze.tasks.steps.index_images import index_of
from unfreeze.tasks.steps.prepare_table import prepared_frame
from unfreeze.tasks.tracking import registry

Training = TrainImages | TrainTables


@task(name="compare-models", task_run_name="compare {challenger.number} with champion {champion.number}")
def compare_models(
    training: Training, data: dict[str, str], champion: registry.Version, challenger: registry.Version
) -> Comparison:
    """Let both predict the validation rows of the challenger that the champion was not trained on.

    Raises
    ------
    UserError
        If no such row is left.
    """
    if isinstance(training, TrainImages):
        comparison = _images(Index.load(Path(data["index"])), champion, challenger)
    else:
        comparison = _tables(training, data, champion, challenger)
    tracking.log_frame(challenger.run_id, pd.DataFrame([_flat(comparison)]), "comparison/summary.feather")
    if comparison.classes:
        tracking.log_frame(challenger.run_id, pd.DataFrame(comparison.classes), "comparison/classes.feather")
        show_table(comparison.classes, "comparison-by-class", "Recall of champion and challenger by class")
    with tracking.MetricLog(challenger.run_id) as log:
        numbers = {f"comparison/{name}": value for name, value in _flat(comparison).items() if name in _METRICS}
        log.log(tracking.as_float(numbers), 0)
    log_info(
        f"{comparison.metric} on {comparison.rows:,} rows: champion {comparison.champion:.4f}, "
        f"challenger {comparison.challenger:.4f} ({comparison.test}: p = {comparison.p_value:.3f})"
    )
    return comparison


_METRICS = ("champion", "challenger", "improvement", "low", "high", "p_value", "rows")


def _flat(comparison: Comparison) -> dict[str, Any]:
    return {name: value for name, value in asdict(comparison).items() if name != "classes"}


def _images(index: Index, champion: registry.Version, challenger: registry.Version) -> Comparison:
    sides = index_of(champion.run_id).sides()
    contents = index.rows["content"].to_pylist()
    rows = [row for row in index.valid_rows() if sides.get(contents[row]) != "train"]
    if not rows:
        raise UserError("no validation image is left that the champion was not trained on; add images")
    paths = index.rows["path"].take(rows).to_pylist()
    said = []
    for version in (champion, challenger):
        predictor = ImagePredictor(registry.folder_of(version))
        said.append(np.array(predictor.classes)[predictor.probabilities(paths).argmax(1)])
    return compare_classes(np.array(index.rows["label"].take(rows).to_pylist()), said[0], said[1])


def _tables(
    training: TrainTables, data: dict[str, str], champion: registry.Version, challenger: registry.Version
) -> Comparison:
    with np.load(data["split"]) as split:
        frame = prepared_frame(data).iloc[split["valid"]].reset_index(drop=True)
    until = tracking.tags_of(champion.run_id).get(tracking.TRAINED_UNTIL)
    if until is not None and training.data.split in ("auto", "last_days"):
        frame = frame[frame[training.data.date[0]] > pd.Timestamp(until)].reset_index(drop=True)
    if frame.empty:
        raise UserError("no validation row is later than those that the champion was trained on; add rows")
    predictors = [TablePredictor(registry.folder_of(version)) for version in (champion, challenger)]
    said = [predictor.predict_assembled(frame) for predictor in predictors]
    encoder = predictors[1].encoder
    if encoder.task == "classification":
        actual = frame[training.data.target[0]].astype(str).to_numpy()
        before, now = (each["class"].astype(str).to_numpy() for each in said)
        return compare_classes(actual, before, now)
    targets = list(encoder.target_names)
    metric = "rmspe" if training.data.log_target else "rmse"
    known, before, now = (each[targets].to_numpy(dtype=np.float64) for each in (frame, *said))
    return compare_values(known, before, now, metric)
