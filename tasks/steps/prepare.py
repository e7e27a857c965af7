"""Preparation as steps: read, verify, split and convert the data; look names up before anything is read."""

from functools import cache
from pathlib import Path

from unfreeze.models.errors import UserError, choose
from unfreeze.models.recipe.modality import bind, modality_of
from unfreeze.models.recipe.training_data import Prepared, TrainingData
from unfreeze.models.settings import Training
from unfreeze.models.settings.search import SweepSpec, trial_spec
from unfreeze.models.targets.losses import LOSSES
from unfreeze.models.training.learner import OPTIMIZERS
from unfreeze.models.training.schedules import SCHEDULES
from unfreeze.tasks import tracking
from unfreeze.tasks.steps.workspace import FlowWorkspace


def prepare(params: Training) -> TrainingData:
    """The training's data, prepared by tasks of which those are skipped whose files exist, and bound to its spec."""
    return bind(params, prepare_handle(params))


def prepare_handle(params: Training) -> Prepared:
    """Prepare the data without binding them to the spec."""
    return modality_of(params).prepare(params, FlowWorkspace(), _earlier_split(params))


def _earlier_split(params: Training) -> Path | None:
    earlier = getattr(params.data, "split_like", None)
    return kept_file(earlier) if earlier is not None else None


@cache
def kept_file(run_id: str) -> Path:
    """The file of its data that a run keeps, see `TrainingData.kept_file`; MLflow is asked for it once.

    Raises
    ------
    UserError
        If the run is unknown or has none.
    """
    tracking.get_run(run_id)
    names = [name for name in tracking.artifacts(run_id, "data") if name.endswith((".arrow", ".json"))]
    path = tracking.fetch(run_id, names[0]) if names else None
    if path is None:
        raise UserError(f"run {run_id} keeps no description of its data: it stopped before, or it is not a training")
    return path


def check_training(params: Training) -> None:
    """Reject names that only the libraries or MLflow know, before anything is read or written.

    Raises
    ------
    UserError
        Names the field, the choices and the nearest of them.
    """
    modality_of(params).check(params)
    choose(OPTIMIZERS, params.optimizer.name, "optimizer.name")
    choose({"auto": None, **LOSSES}, params.optimizer.loss, "optimizer.loss")
    for position, stage in enumerate(params.recipe):
        choose(SCHEDULES, stage.schedule, f"recipe.{position}.schedule")
    _earlier_split(params)


def check_trials(search: SweepSpec, training: Training) -> None:
    """Reject what `check_training` rejects, in the training of a sweep and in every choice of its space.

    Raises
    ------
    UserError
        As `check_training` does.
    """
    check_training(training)
    for dimension in search.space:
        if dimension.name in ("model.backbone", "model.head", "optimizer.name", "optimizer.loss"):
            for choice in dimension.choices or []:
                check_training(trial_spec(training, {dimension.name: choice}))
