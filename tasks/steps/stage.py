"""What every task about a stage needs: the recipe bound to its files, and the learner as the run left it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from prefect.runtime import task_run

from unfreeze.models.errors import UserError
from unfreeze.models.images.index import Index
from unfreeze.models.images.recipe import ImageRecipe
from unfreeze.models.specs import TrainImages
from unfreeze.models.table_specs import TrainTables
from unfreeze.models.tables.recipe import TableRecipe
from unfreeze.models.training.batches import Batches
from unfreeze.models.training.checkpoints import Checkpoint, load_checkpoint, restore, restore_between_stages
from unfreeze.models.training.learner import Learner
from unfreeze.tasks import tracking


def named_after_stage(what: str) -> Callable[[], str]:
    """A name for task runs about one stage: `what` with the stage's name, from the run's own arguments."""

    def name() -> str:
        arguments = task_run.parameters
        return f"{what} {arguments['params'].recipe[arguments['position']].name}"

    return name


class Recipe(Protocol):
    """A spec bound to its data: what a stage needs to know of images or tables."""

    params: Any

    def learner(self) -> Learner:
        """A learner with initial weights."""

    def batches(self, position: int, activations: Mapping[tuple[str, int], Path]) -> tuple[Batches, Batches]:
        """Training and validation batches of a stage."""


def bind(params: TrainImages, index_path: str, caches: Mapping[str, str]) -> ImageRecipe:
    """The recipe with its images, from what earlier tasks returned."""
    return ImageRecipe(params, Index.load(Path(index_path)), {int(size): Path(path) for size, path in caches.items()})


def bind_table(params: TrainTables, files: Mapping[str, str]) -> TableRecipe:
    """The recipe with its prepared rows, from what `prepare_table` returned."""
    return TableRecipe(params, Path(files["encoder"]), {name: Path(path) for name, path in files.items()})


def bind_any(params: TrainImages | TrainTables, index_path: str, files: Mapping[str, str]) -> Recipe:
    """The recipe with its data: `bind` or `bind_table`."""
    return bind(params, index_path, files) if isinstance(params, TrainImages) else bind_table(params, files)


def checkpoint_of(run_id: str) -> Checkpoint | None:
    """The run's latest checkpoint, or None before the first."""
    path = tracking.latest_checkpoint(run_id)
    return load_checkpoint(path) if path else None


def snapshots_of(run_id: str, params: TrainImages | TrainTables) -> list[dict[str, torch.Tensor]]:
    """Weights and buffers at the ends of the cycles that the spec's snapshot ensemble has besides the last.

    Raises
    ------
    UserError
        If the run kept no checkpoint of one of them.
    """
    stage = params.recipe[-1]
    states = []
    for cycle in range(stage.cycles - params.snapshots + 1, stage.cycles):
        name = f"{tracking.CHECKPOINTS}/{cycle_checkpoint(stage.name, cycle)}"
        path = tracking.fetch(run_id, name)
        if path is None:
            raise UserError(f"snapshots: run {run_id} has no {name}; train it with tracking.cycle_checkpoints")
        states.append(load_checkpoint(path).part("network"))
    return states


def cycle_checkpoint(stage: str, cycle: int) -> str:
    """Name of the checkpoint at a cycle's end, counted from 1."""
    return f"{stage}-cycle-{cycle}.safetensors"


def learner_at(recipe: Recipe, position: int, lr: float, checkpoint: Checkpoint | None) -> Learner:
    """A learner prepared for stage `position`, where the run left it.

    It continues in the middle of the stage if `checkpoint` is of it, takes over from an earlier stage otherwise, and
    starts afresh without a checkpoint.
    """
    learner = recipe.learner()
    stage = recipe.params.recipe[position]
    if checkpoint is not None and checkpoint.stage != position:
        restore_between_stages(learner, checkpoint)
    learner.prepare(stage, position, lr)
    if checkpoint is not None and checkpoint.stage == position:
        restore(learner, checkpoint)
    return learner
