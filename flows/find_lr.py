"""Find a learning rate and stop: the curve of one stage of the recipe on untrained weights."""

from typing import Any

from unfreeze.flows.running import flow
from unfreeze.models.errors import UserError
from unfreeze.models.recipe.modality import modality_of
from unfreeze.models.recipe.run import FindLr, Train
from unfreeze.models.recipe.state import Record, TrainingState
from unfreeze.models.settings import TrainImages, TrainTables
from unfreeze.tasks import tracking
from unfreeze.tasks.steps import train_stage as steps
from unfreeze.tasks.steps.prepare import check_training, prepare
from unfreeze.tasks.steps.workspace import FlowWorkspace
from unfreeze.tasks.tracking.server import local_file
from unfreeze.tasks.tracking.training_run import open_run

DEFAULTS = TrainImages()


@flow(name="find-lr", flow_run_name="find an lr for {params.data.source}")
def find_lr(params: TrainImages | TrainTables = DEFAULTS, stage: str | None = None) -> dict[str, Any]:
    """Run the learning-rate finder on one stage of the recipe, with pretrained body and new head.

    Args:
        params: Everything that defines the training; every field has a default.
        stage: Name of the stage. Empty: the recipe's first that has an lr.
    """
    params = modality_of(params).complete(params)
    names = [each.name for each in params.recipe if not each.regression]
    if not names or (stage is not None and stage not in names):
        raise UserError(f"stage: {stage or 'none'} is not one of the recipe's that have an lr: {', '.join(names)}")
    name = stage or names[0]
    position = [each.name for each in params.recipe].index(name)
    check_training(params)
    with open_run(params, kind="find-lr") as run:
        state = TrainingState(prepare(params), FlowWorkspace(), Record())
        for before in range(position):
            if params.recipe[before].regression:
                steps.train_stage(run, Train(state, before))
        suggestions = steps.find_lr(run, FindLr(state, position))
        found = {"stage": name, "method": params.finder.method, "suggestions": suggestions}
        curve = f"learning_rate/{name}.png"
        if tracking.wait_until_published(run.id):
            curve = str(local_file(run.id, curve) or curve)
        return {**run.identity(), **found, "curve": curve}
