"""What goes into a training, as a step: the data set, what was rejected, the network."""

from pathlib import Path

from unfreeze.models.errors import UserError
from unfreeze.models.recipe.training_data import TrainingData
from unfreeze.tasks import tracking
from unfreeze.tasks.steps.findings import keep_findings
from unfreeze.tasks.steps.workspace import as_task

REFERENCE = "data/reference.feather"
"""Artifact of a training: what later data are compared with, see `TrainingData.reference`."""


def describe(data: TrainingData, run_id: str) -> None:
    """Log the run's inputs once: data set with digest, rejected rows, model summary, a reference for drift.

    Raises
    ------
    UserError
        If the run is resumed and its data are no longer those it was started with.
    """
    as_task("describe data and network", lambda: _describe(data, run_id))


def _describe(data: TrainingData, run_id: str) -> None:
    source, prepared = data.params.data.source, data.prepared
    known = tracking.tags_of(run_id).get("data.digest")
    if known == prepared.digest:
        return
    if known is not None:
        raise UserError(
            f"{source}: the data or their split changed since run {run_id} was started; put them back, or start a new "
            "run"
        )
    name = Path(source).name or source
    tracking.log_data_set(run_id, name, prepared.digest, source, prepared.splits)
    tracking.log_file(run_id, data.kept_file, "data")
    keep_findings(run_id, data.describe(), "data")
    tracking.log_frame(run_id, data.reference(), REFERENCE)
    # Last: a run that was killed within this step does it again.
    rows = str(sum(prepared.splits.values()))
    tags = {"data.digest": prepared.digest, tracking.FINGERPRINT: prepared.fingerprint, "data.rows": rows}
    tracking.log_tags(run_id, {**tags, **data.tags()})
