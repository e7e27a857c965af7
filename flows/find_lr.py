"""Find a learning rate and stop: the curve of one stage of the recipe on untrained weights."""

from typing import Any

from prefect import flow

from unfreeze.models.errors import UserError
from unfreeze.models.specs import TrainImages
from unfreeze.tasks.find_lr import find_lr as sweep_rates
from unfreeze.tasks.index_images import index_images, list_pictures
from unfreeze.tasks.precompute import precompute_activations
from unfreeze.tasks.resize_images import resize_images
from unfreeze.tasks.run import open_run

DEFAULTS = TrainImages()


@flow(name="find-lr", flow_run_name="find a rate for {params.data.source}")
def find_lr(params: TrainImages = DEFAULTS, stage: str | None = None) -> dict[str, Any]:
    """Run the learning-rate finder on one stage of the recipe, with pretrained body and new head.

    Args:
        params: Everything that defines the training; every field has a default.
        stage: Name of the stage. Empty: the recipe's first.
    """
    names = [each.name for each in params.recipe]
    if stage is not None and stage not in names:
        raise UserError(f"stage: {stage!r} is none of the recipe's: {', '.join(names)}")
    position = names.index(stage) if stage else 0
    with open_run(params, None, kind="find-lr") as run:
        index = index_images(list_pictures(params.data), params.data)
        pictures = resize_images(index, params)
        activations = {}
        if params.recipe[position].precomputes:
            activations = precompute_activations(params, index, pictures, run.id, position)
        suggestions = sweep_rates(params, index, pictures, activations, run.id, position)
        found = {"stage": names[position], "method": params.finder.method, "suggestions": suggestions}
        return {**run.identity(), **found, "curve": run.artifact_uri(f"learning_rate/{names[position]}.png")}
