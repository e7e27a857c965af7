"""One stage of the recipe as a step: the training loop with its metrics, checkpoints and an end at any batch."""

import json
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from prefect import task

from unfreeze.models.specs import TrainImages
from unfreeze.models.table_specs import TrainTables
from unfreeze.models.training.loop import Step, fit
from unfreeze.models.training.schedules import cycle_ends
from unfreeze.tasks import tracking
from unfreeze.tasks.prefect_run.interruption import deferred_signals
from unfreeze.tasks.prefect_run.progress import log_info, progress
from unfreeze.tasks.prefect_run.report import log_figure
from unfreeze.tasks.steps.checkpoint_writer import CheckpointWriter
from unfreeze.tasks.steps.plots import plot_schedule
from unfreeze.tasks.steps.precompute import as_views
from unfreeze.tasks.steps.stage import bind_any, checkpoint_of, cycle_checkpoint, learner_at, named_after_stage


@task(name="train-stage", task_run_name=named_after_stage("train"))
def train_stage(
    params: TrainImages | TrainTables,
    index_path: str,
    caches: dict[str, str],
    activations: dict[str, str],
    run_id: str,
    position: int,
    lr: float,
) -> dict[str, Any]:
    """Train stage `position` with a head lr of `lr`, from the run's latest checkpoint.

    Metrics of every batch and epoch go to MLflow, and a checkpoint at every epoch's end. A signal to stop is heeded
    after the batch under way, with a checkpoint.

    Returns
    -------
    dict
        The stage's ``name``, ``lr``, ``epochs``, ``steps``, ``train_loss``, validation ``metrics`` and ``seconds``.
    """
    began = time.monotonic()
    stage = params.recipe[position]
    recipe = bind_any(params, index_path, caches)
    learner = learner_at(recipe, position, lr, checkpoint_of(run_id))
    train, valid = recipe.batches(position, as_views(activations))
    per_epoch = -(-len(train) // train.batch_size)
    ends = cycle_ends(stage.cycles, stage.cycle_len, stage.cycle_mult)
    done = learner.progress.epoch * per_epoch + (
        len(learner.progress.losses) if learner.progress.order is not None else 0
    )
    before = learner.progress.step - done
    lrs: dict[str, list[tuple[int, float]]] = defaultdict(list)
    last: Step | None = None
    writer = CheckpointWriter(run_id, learner)
    with (
        tracking.MetricLog(run_id) as log,
        progress(f"Training {stage.name}", lambda: _note(last)) as advance,
        deferred_signals() as stop_asked,
    ):
        for step in fit(learner, stage, train, valid):
            if step.kind == "batch":
                log.log({"train/loss": float(step.loss), **_named("lr", step.lrs)}, step.step)
                for group, group_lr in step.lrs.items():
                    lrs[group].append((step.step, group_lr))
                advance(step.step - before, per_epoch * stage.epochs)
                # Asked once: a signal between two questions would end the stage without the checkpoint.
                if not stop_asked():
                    continue
                writer.save()
                break
            elif step.kind == "epoch":
                last = step
                epoch_metrics = {"train/epoch_loss": float(step.loss), **_named("valid", step.metrics)}
                log.log(tracking.as_float(epoch_metrics), step.step)
                log.flush()
                log_info(f"{stage.name}: epoch {step.epoch} of {stage.epochs}: {_note(step)}")
                if params.tracking.cycle_checkpoints and step.epoch in ends:
                    continue  # the cycle's own step, which follows at once, saves the same state
                writer.save()
            elif params.tracking.cycle_checkpoints:
                writer.save(cycle_checkpoint(stage.name, step.cycle))
            if stop_asked():
                break
        else:
            if stage.early_stop_tolerance is not None:
                writer.save()  # the best weights have been put back
    metrics = last.metrics if last and stage.early_stop_tolerance is None else learner.validate(valid)
    if lrs:
        figure = plot_schedule(lrs, f"Schedule of stage {stage.name}")
        log_figure(run_id, figure, f"schedule/{stage.name}.png", f"Schedule of stage {stage.name}")
    result = {
        "name": stage.name,
        "lr": lr,
        "epochs": learner.progress.epoch,
        "steps": learner.progress.step,
        "train_loss": float(last.loss) if last else None,
        "metrics": metrics,
        "seconds": round(time.monotonic() - began, 2),
    }
    tracking.log_tags(run_id, {result_tag(position): json.dumps(result)})
    return result


def result_tag(position: int) -> str:
    """The run's tag that keeps the result of a stage that is over."""
    return f"unfreeze.stage.{position}"


def _named(section: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{section}/{name}": value for name, value in values.items()}


def _note(step: Step | None) -> str:
    if step is None:
        return ""
    values = {"train_loss": float(step.loss), **{f"valid_{name}": value for name, value in step.metrics.items()}}
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())
