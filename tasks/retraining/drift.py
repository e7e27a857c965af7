"""How the data differ from those that the champion was trained on, as a step."""

from pathlib import Path

import numpy as np
import pandas as pd
from prefect import task

from unfreeze.models.drift import ImageSample, image_drift, image_statistics, table_drift
from unfreeze.models.images.index import Index, hash_file
from unfreeze.models.images.serving import ImagePredictor
from unfreeze.models.specs import TrainImages
from unfreeze.models.table_specs import TrainTables
from unfreeze.tasks import tracking
from unfreeze.tasks.prefect_run.progress import log_info
from unfreeze.tasks.prefect_run.report import show_table
from unfreeze.tasks.steps.index_images import index_of
from unfreeze.tasks.steps.prepare_table import prepared_frame
from unfreeze.tasks.tracking import registry

REFERENCE = "data/reference.feather"
"""Artifact of a training: of a table, a sample of its training rows or only their columns' distributions; of images,
how a sample of them looks."""
MOST_IMAGES, MOST_TABLE_ROWS = 256, 2000
FEWEST_NEW = 32
"""With fewer new images than this, all are compared instead of the new ones alone."""


def sample_rows(rows: np.ndarray, most: int = MOST_IMAGES) -> np.ndarray:
    """At most so many of the rows, drawn without replacement, always the same ones; ascending."""
    chosen = np.random.default_rng(0).choice(rows, min(most, len(rows)), replace=False)
    return np.sort(chosen)


@task(name="report-drift", task_run_name="compare data with the champion's")
def report_drift(
    training: TrainImages | TrainTables, data: dict[str, str], champion: registry.Version, run_id: str
) -> list[dict[str, object]]:
    """Compare the data with the champion's training data; the table is an artifact of both Prefect and the run.

    Parameters
    ----------
    training, data
        What the challenger was trained with, and its files from `read_data`.
    champion
        Whose training data are the reference.
    run_id
        MLflow run of the challenger.

    Returns
    -------
    list of dict
        A row per measure or column, each with a ``verdict``; none if the champion kept no sample of its data.
    """
    kept = tracking.fetch(champion.run_id, REFERENCE)
    if kept is None:
        log_info(f"version {champion.number} kept no sample of its training data, so drift cannot be told")
        return []
    reference = pd.read_feather(kept)
    if isinstance(training, TrainImages):
        report = _images(reference, Index.load(Path(data["index"])), champion)
    else:
        with np.load(data["split"]) as split:
            rows = sample_rows(np.concatenate([split["train"], split["valid"]]), MOST_TABLE_ROWS)
        report = table_drift(reference, prepared_frame(data).iloc[rows].reset_index(drop=True))
    tracking.log_frame(run_id, report, "drift/report.feather")
    tracking.log_text(run_id, report.to_string(index=False), "drift/report.txt")
    table = [
        {str(name): None if pd.isna(value) else value for name, value in row.items()}
        for row in report.round(4).to_dict("records")
    ]
    show_table(table, "drift", f"Data against those of version {champion.number}")
    drifted = [row for row in table if row["verdict"] not in ("stable", "unknown")]
    named = ", ".join(f"{row.get('what', row.get('column'))} {row['verdict']}" for row in drifted[:5])
    log_info(f"drift against version {champion.number}: {named or 'none'}")
    return table


def _images(reference: pd.DataFrame, index: Index, champion: registry.Version) -> pd.DataFrame:
    """Class balance of all images, looks and features of the new ones against the champion's."""
    predictor = ImagePredictor(registry.folder_of(champion))
    before = index_of(champion.run_id)
    known = before.sides()
    contents = index.rows["content"].to_pylist()
    new = np.array([position for position, content in enumerate(contents) if content not in known], dtype=np.int64)
    rows = sample_rows(new if len(new) >= FEWEST_NEW else np.arange(len(index)))
    log_info(f"{len(new):,} of {len(index):,} images are new; {len(rows)} are looked at")
    paths = index.rows["path"].take(rows).to_pylist()
    looks = image_statistics(np.stack([predictor.square(path) for path in paths]))
    # What the network makes of the old images can only be told of those that are still there.
    old = sample_rows(before.train_rows())
    there = [
        path
        for path, content in zip(
            before.rows["path"].take(old).to_pylist(), before.rows["content"].take(old).to_pylist(), strict=True
        )
        if hash_file(Path(path)) == content
    ]
    trained = before.rows["label"].take(before.train_rows()).to_pylist()
    return image_drift(
        ImageSample(trained, reference, predictor.features(there)),
        ImageSample(index.rows["label"].to_pylist(), looks, predictor.features(paths)),
    )
