"""What every task about a stage needs: the recipe bound to its files, and the learner as the run left it."""

from collections.abc import Callable, Mapping
from pathlib import Path

from prefect.runtime import task_run

from models.images.index import Index
from models.images.recipe import ImageRecipe
from models.specs import TrainImages
from models.training.checkpoints import Checkpoint, load_checkpoint, restore, restore_between_stages
from models.training.learner import Learner
from tasks import tracking


def named_after_stage(what: str) -> Callable[[], str]:
    """A name for task runs about one stage: `what` with the stage's name, from the run's own arguments."""

    def name() -> str:
        arguments = task_run.parameters
        return f"{what} {arguments['params'].recipe[arguments['position']].name}"

    return name


def bind(params: TrainImages, index_path: str, caches: Mapping[str, str]) -> ImageRecipe:
    """The recipe with its pictures, from what earlier tasks returned."""
    return ImageRecipe(params, Index.load(Path(index_path)), {int(size): Path(path) for size, path in caches.items()})


def checkpoint_of(run_id: str) -> Checkpoint | None:
    """The run's latest checkpoint, or None before the first."""
    path = tracking.latest_checkpoint(run_id)
    return load_checkpoint(path) if path else None


def learner_at(recipe: ImageRecipe, position: int, lr: float, checkpoint: Checkpoint | None) -> Learner:
    """A learner prepared for stage `position`, where the run left it.

    It goes on in the middle of the stage if `checkpoint` is of it, takes over from an earlier stage otherwise, and
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
