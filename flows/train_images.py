"""Fine-tune an image classifier by the eight steps of the 2017 fast.ai course, from images to a registered model.

1. `precompute`: the frozen body's activations, once per image;
2. `find_lr`: a learning rate for the head;
3. `train_stage`: the head, from the activations;
4. `train_stage`: the head, from activations of augmented images;
5. `unfreeze`: all layers become trainable,
6. with an lr per layer group, earlier layers slower (`ratio`);
7. `find_lr`: again, for the whole network;
8. `train_stage`: all layers, in cycles that grow (`cycle_mult`) until over-fitting.

The spec's `recipe` selects the steps. `course` takes all eight; the default fits the head by logistic regression in
place of 2 to 4, and sets the lr of 8. A resumed run skips finished stages.
"""

from collections.abc import Callable
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from unfreeze.flows.outcome import keep_result
from unfreeze.models.recipe.modality import modality_of
from unfreeze.models.recipe.run import Evaluate, FindLr, Precompute, Refit, SelectModel, Train, Unfreeze, run_recipe
from unfreeze.models.settings import TrainImages, Training
from unfreeze.tasks.machine.flow_runs import HOOKS
from unfreeze.tasks.machine.interruption import cancelled
from unfreeze.tasks.report.publish import report_at_end
from unfreeze.tasks.steps.evaluate import choose, describe, evaluate, refit, register
from unfreeze.tasks.steps.prepare import check_training, prepare
from unfreeze.tasks.steps.train_stage import find_lr, precompute, train_stage, unfreeze
from unfreeze.tasks.steps.workspace import FlowWorkspace, as_task
from unfreeze.tasks.tracking.training_run import Run, open_run

DEFAULTS = TrainImages()


@flow(name="train-images", flow_run_name="train {params.data.source}", **HOOKS)
def train_images(params: TrainImages = DEFAULTS, resume_run_id: str | None = None) -> dict[str, Any] | State[Any]:
    """Train, evaluate and register an image classifier by the recipe.

    Args:
        params: Everything that defines the training; every field has a default.
        resume_run_id: Id of an MLflow run that was stopped: resume it with the params it was started with.
    """
    return train(params, resume_run_id)


def train(params: Training, resume_run_id: str | None = None) -> dict[str, Any] | State[Any]:
    """Train on any modality; a cancellation is the flow's final state."""
    try:
        params = modality_of(params).complete(params)
        check_training(params)
        with open_run(params, resume_run_id) as run:
            result = follow_recipe(run)
        return keep_result(result)
    except KeyboardInterrupt as stopped:
        return keep_result(cancelled(stopped))


def follow_recipe(run: Run) -> dict[str, Any]:
    """Prepare the data once, take the recipe's steps, register the model, report."""
    data = prepare(run.params)
    describe(data, run.id)
    evaluated: list[Callable[[], object]] = []
    for step in run_recipe(data, FlowWorkspace(), run.record):
        match step:
            case Precompute():
                precompute(run, step)
            case FindLr():
                find_lr(run, step)
            case Unfreeze():
                unfreeze(run, step)
            case Train():
                train_stage(run, step)
            case SelectModel():
                choose(run, step)
            case Evaluate():
                evaluated.append(evaluate(run, step))
            case Refit():
                refit(run, step)
    model = register(run, data, step.state.kept)
    for show in evaluated:
        show()
    found = as_task("summarise", lambda: run.summary(model))
    return {**found, "worth_a_look": report_at_end(run.id)}
