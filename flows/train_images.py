"""Fine-tune an image classifier: from a folder of pictures to a registered model."""

from typing import Any

from prefect import flow
from prefect.states import State

from unfreeze.models.specs import TrainImages
from unfreeze.tasks.describe import describe
from unfreeze.tasks.evaluate import evaluate
from unfreeze.tasks.find_lr import find_lr
from unfreeze.tasks.index_images import index_images, list_pictures
from unfreeze.tasks.interruption import cancelled
from unfreeze.tasks.precompute import precompute_activations
from unfreeze.tasks.register import register_model
from unfreeze.tasks.resize_images import resize_images
from unfreeze.tasks.run import Run, open_run
from unfreeze.tasks.train_stage import train_stage

DEFAULTS = TrainImages()


@flow(name="train-images", flow_run_name="train {params.data.source}")
def train_images(params: TrainImages = DEFAULTS, resume_run_id: str | None = None) -> dict[str, Any] | State[Any]:
    """Train, evaluate and register an image classifier by the recipe.

    Args:
        params: Everything that defines the training; every field has a default.
        resume_run_id: Id of an MLflow run that was stopped: go on where it was, with the params it was started with.
    """
    try:
        with open_run(params, resume_run_id) as run:
            return follow_recipe(run)
    except KeyboardInterrupt as stopped:
        return cancelled(stopped)


def follow_recipe(run: Run) -> dict[str, Any]:
    """Prepare the pictures once; let each stage find its rate and train; evaluate; register."""
    params = run.params
    index = index_images(list_pictures(params.data), params.data)
    pictures = resize_images(index, params)
    describe(params, index, pictures, run.id)

    for position, stage in run.remaining():
        activations = {}
        if stage.precomputes:
            activations = precompute_activations(params, index, pictures, run.id, position)
        if run.wants_rate(position):
            run.keep_rates(position, find_lr(params, index, pictures, activations, run.id, position))
        if not run.is_trained(position):
            train_stage(params, index, pictures, activations, run.id, position, run.rate(position))
        if run.wants_baseline(position):
            evaluate(params, index, pictures, activations, run.id, position, "baseline")

    metrics = evaluate(params, index, pictures, activations, run.id, position, "valid")
    model = register_model(params, index, pictures, run.id, position, run.model_name, metrics)
    return run.summary(metrics, model)
