"""Preparation of data as steps (read, verify, split, convert), after a check of all names."""

from functools import cache
from pathlib import Path

from unfreeze.models.errors import UserError, choose
from unfreeze.models.own_parts import check_own_parts, is_own
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
    """Prepare the training's data, skipping tasks whose files exist, and bind them to its spec."""
    return bind(params, prepare_handle(params))


def prepare_handle(params: Training) -> Prepared:
    """Prepare the data without binding them to the spec."""
    return modality_of(params).prepare(params, FlowWorkspace(), _earlier_split(params))


def _earlier_split(params: Training) -> Path | None:
    earlier = getattr(params.data, "split_like", None)
    return kept_file(earlier) if earlier is not None else None


@cache
def kept_file(run_id: str) -> Path:
    """The data file kept with a run, see `TrainingData.kept_file`; fetched from MLflow once.

    Raises
    ------
    UserError
        If the run is unknown or has no such file.
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
        Names the field, the choices and the nearest one.
    """
    modality_of(params).check(params)
    choose(OPTIMIZERS, params.optimizer.name, "optimizer.name")
    check_own_parts(params)
    if not is_own(params.optimizer.loss):
        choose({"auto": None, **LOSSES}, params.optimizer.loss, "optimizer.loss")
    for position, stage in enumerate(params.recipe):
        choose(SCHEDULES, stage.schedule, f"recipe.{position}.schedule")
    _earlier_split(params)


def check_trials(search: SweepSpec, training: Training) -> None:
    """Apply `check_training` to the training of a sweep and every choice of its space.

    Raises
    ------
    UserError
        See `check_training`.
    """
    check_training(training)
    if getattr(training, "devices", 1) != 1:
        raise UserError("devices: a sweep's trials train on one device each; run several with --workers instead")
    for dimension in search.space:
        if dimension.name in ("model.backbone", "model.head", "optimizer.name", "optimizer.loss"):
            for choice in dimension.choices or []:
                check_training(trial_spec(training, {dimension.name: choice}))
