"""Find a learning rate and stop: the curve of one stage of the recipe on untrained weights."""

from typing import Any

from prefect import flow

from unfreeze.models.errors import UserError
from unfreeze.models.specs import TrainImages
from unfreeze.tasks.steps.find_lr import find_lr as sweep_lrs
from unfreeze.tasks.steps.index_images import index_images, list_images
from unfreeze.tasks.steps.precompute import precompute_activations
from unfreeze.tasks.steps.resize_images import resize_images
from unfreeze.tasks.tracking.training_run import open_run

DEFAULTS = TrainImages()


@flow(name="find-lr", flow_run_name="find a lr for {params.data.source}")
def find_lr(params: TrainImages = DEFAULTS, stage: str | None = None) -> dict[str, Any]:
    """Run the learning-rate finder on one stage of the recipe, with pretrained body and new head.

    Args:
        params: Everything that defines the training; every field has a default.
        stage: Name of the stage. Empty: the recipe's first.
    """
    names = [each.name for each in params.recipe]
    if stage is not None and stage not in names:
        raise UserError(f"stage: {stage!r} is not one of the recipe's: {', '.join(names)}")
    position = names.index(stage) if stage else 0
    with open_run(params, None, kind="find-lr") as run:
        index = index_images(list_images(params.data), params.data)
        images = resize_images(index, params)
        activations = {}
        if params.recipe[position].precomputes:
            activations = precompute_activations(params, index, images, run.id, position)
        suggestions = sweep_lrs(params, index, images, activations, run.id, position)
        found = {"stage": names[position], "method": params.finder.method, "suggestions": suggestions}
        return {**run.identity(), **found, "curve": run.artifact_uri(f"learning_rate/{names[position]}.png")}
