"""Train by the eight steps of the 2017 fast.ai course, from images or a table to a registered model.

1. `precompute`: the frozen body's activations, once per image;
2. `find_lr`: a learning rate for the head;
3. `train_stage`: the head, from the activations;
4. `train_stage`: the head, from activations of augmented images;
5. `unfreeze`: all layers become trainable,
6. with an lr per layer group, earlier layers slower (`ratio`);
7. `find_lr`: again, for the whole network;
8. `train_stage`: all layers, in cycles that grow (`cycle_mult`) until over-fitting.

The spec's `recipe` selects the steps. `course` takes all eight; the default fits the head by logistic regression in
place of 2 to 4, and sets the lr of 8. Networks for tables have no pretrained body, so the default recipe of a table
finds an lr and trains all layers. A resumed run skips finished stages.
"""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from unfreeze.flows.running import flow
from unfreeze.models.recipe.modality import modality_of
from unfreeze.models.recipe.ranks import lead
from unfreeze.models.recipe.run import Evaluate, FindLr, Precompute, Refit, SelectModel, Train, Unfreeze, run_recipe
from unfreeze.models.settings import TrainImages, Training, TrainTables
from unfreeze.models.settings.overrides import build_spec
from unfreeze.tasks.machine.devices import lease_devices
from unfreeze.tasks.machine.ranks import devices_of, on_ranks
from unfreeze.tasks.report.publish import report_at_end
from unfreeze.tasks.steps.evaluate import choose, describe, evaluate, refit, register
from unfreeze.tasks.steps.plan import within_budget
from unfreeze.tasks.steps.prepare import check_training, prepare
from unfreeze.tasks.steps.train_stage import find_lr, train_stage, unfreeze
from unfreeze.tasks.steps.workspace import FlowWorkspace, as_task
from unfreeze.tasks.tracking.training_run import Run, open_run

DEFAULTS, TABLE_DEFAULTS = TrainImages(), TrainTables()


@flow(name="train-images", flow_run_name="train {params.data.source}")
def train_images(params: TrainImages = DEFAULTS, resume_run_id: str | None = None) -> dict[str, Any]:
    """Train, evaluate and register an image classifier by the recipe.

    Args:
        params: Everything that defines the training; every field has a default.
        resume_run_id: Id of an MLflow run that was stopped: resume it with the params it was started with.
    """
    return train(params, resume_run_id)


@flow(name="train-tables", flow_run_name="train on {params.data.source}")
def train_tables(params: TrainTables = TABLE_DEFAULTS, resume_run_id: str | None = None) -> dict[str, Any]:
    """Train, evaluate and register a network on a table by the recipe.

    Args:
        params: Everything that defines the training; every field has a default.
        resume_run_id: Id of an MLflow run that was stopped: resume it with the params it was started with.
    """
    return train(params, resume_run_id)


@flow(name="train", flow_run_name="train {source}")
def train_short(
    source: str = DEFAULTS.data.source,
    backbone: str = DEFAULTS.model.backbone,
    size: Annotated[int, Field(ge=16, le=1024)] | None = None,
    hours: Annotated[float, Field(gt=0)] | None = None,
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0,
) -> dict[str, Any]:
    """Train, evaluate and register an image classifier by the recipe; the form with every setting is `train-images`.

    Args:
        source: A folder with a folder per class, a CSV file of paths and labels, or `digits`.
        backbone: The pretrained network: a classifier of timm by name (`resnet34`, `timm/convnext_tiny`).
        size: Side of the images in pixels. Empty: the size that the weights were trained at.
        hours: The longest that the training may take; stages are shortened to fit. Empty: as long as it helps.
        seed: Of weights, order and augmentation.
    """
    given = {"data.source": source, "model.backbone": backbone, "data.size": size, "seed": seed}
    params = build_spec(TrainImages, {}, given)
    return train(within_budget(params, hours) if hours is not None else params)


FLOWS: dict[str, Any] = {"images": train_images, "tables": train_tables}
"""Modality -> flow that trains on it."""


def train(params: Training, resume_run_id: str | None = None) -> dict[str, Any]:
    """Train on any modality."""
    params = modality_of(params).complete(params)
    check_training(params)
    devices = devices_of(params)
    lease_devices(params.device, devices)
    return on_ranks(devices, train_here, params, resume_run_id)


def train_here(params: Training, resume_run_id: str | None) -> dict[str, Any]:
    """Train in this process: the only one, or the first of several."""
    with open_run(params, resume_run_id) as run:
        return follow_recipe(run)


def follow_recipe(run: Run) -> dict[str, Any]:
    """Prepare the data once, take the recipe's steps, register the model, report."""
    data = prepare(run.params)
    lead(run.params, data.prepared, run.record)
    describe(data, run.id)
    evaluated: list[Callable[[], object]] = []
    for step in run_recipe(data, FlowWorkspace(), run.record):
        match step:
            case Precompute():
                step.run()
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
