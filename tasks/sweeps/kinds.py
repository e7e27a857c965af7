"""The kinds of training that a sweep can search: all that `flows/sweep.py` need not know about images or tables."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from unfreeze.models.specs import TrainImages
from unfreeze.models.table_specs import TrainTables
from unfreeze.tasks.sweeps.image_trial import ImageTrial, describe_images, register_images
from unfreeze.tasks.sweeps.table_trial import TableTrial, describe_tables, register_tables
from unfreeze.tasks.tracking.training_run import source_name


@dataclass(frozen=True)
class Kind:
    """One kind of training."""

    spec: type[BaseModel]
    """What it is defined by; has ``recipe``, ``seed``, ``tracking`` and ``data.source``."""
    trial: Callable[[Any, Any, int], Any]
    """(the sweep's training, the trial's, stages that are shared) -> see `StageChain`."""
    describe: Callable[[Any, str], None]
    """Logs the data of a training to an MLflow run."""
    register: Callable[[Any, str], dict[str, Any]]
    """Evaluates and registers the weights of an MLflow run."""


KINDS = {
    "TrainImages": Kind(TrainImages, ImageTrial, describe_images, register_images),
    "TrainTables": Kind(TrainTables, TableTrial, describe_tables, register_tables),
}


def kind_of(training: BaseModel) -> Kind:
    """The kind of a training."""
    return KINDS[type(training).__name__]


def name_of(training: Any) -> str:
    """A short name of what a training is about."""
    return source_name(training.data.source)
