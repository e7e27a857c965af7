"""Fine-tune an image classifier: from a folder of images to a registered model."""

from typing import Any

from prefect import flow
from prefect.states import State

from unfreeze.models.specs import TrainImages
from unfreeze.tasks.prefect_run.interruption import cancelled
from unfreeze.tasks.steps.describe import describe
from unfreeze.tasks.steps.evaluate import evaluate
from unfreeze.tasks.steps.find_lr import find_lr
from unfreeze.tasks.steps.index_images import index_images, list_images
from unfreeze.tasks.steps.precompute import precompute_activations
from unfreeze.tasks.steps.register import register_model
from unfreeze.tasks.steps.resize_images import resize_images
from unfreeze.tasks.steps.train_stage import train_stage
from unfreeze.tasks.tracking.training_run import Run, open_run

DEFAULTS = TrainImages()


@flow(name="train-images", flow_run_name="train {params.data.source}")
def train_images(params: TrainImages = DEFAULTS, resume_run_id: str | None = None) -> dict[str, Any] | State[Any]:
    """Train, evaluate and register an image classifier by the recipe.

    Args:
        params: Everything that defines the training; every field has a default.
        resume_run_id: Id of an MLflow run that was stopped: continue where it was, with the params it was started with.
    """
    try:
        with open_run(params, resume_run_id) as run:
            return follow_recipe(run)
    except KeyboardInterrupt as stopped:
        return cancelled(stopped)


def follow_recipe(run: Run) -> dict[str, Any]:
    """Prepare the images once; let each stage find its lr and train; evaluate; register."""
    params = run.params
    index = index_images(list_images(params.data), params.data)
    images = resize_images(index, params)
    describe(params, index, images, run.id)

    for position, stage in run.remaining():
        activations = {}
        if stage.precomputes:
            activations = precompute_activations(params, index, images, run.id, position)
        if run.wants_lr(position):
            run.keep_lrs(position, find_lr(params, index, images, activations, run.id, position))
        if not run.is_trained(position):
            train_stage(params, index, images, activations, run.id, position, run.lr(position))
        if run.wants_baseline(position):
            evaluate(params, index, images, activations, run.id, position, "baseline")

    metrics = evaluate(params, index, images, activations, run.id, position, "valid")
    model = register_model(params, index, images, run.id, position, run.model_name, metrics)
    return run.summary(metrics, model)
