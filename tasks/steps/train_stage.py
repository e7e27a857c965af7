"""Training steps of the recipe: the learning-rate finder, unfreezing, and the loop with its checkpoints."""

import time
from collections import defaultdict
from functools import partial
from typing import Any

import pandas as pd
from safetensors import SafetensorError

from unfreeze.models.evaluation.plots import plot_schedule
from unfreeze.models.recipe.run import FindLr, Train, Unfreeze
from unfreeze.models.training import loop
from unfreeze.models.training.checkpoints import save_checkpoint
from unfreeze.models.training.learner import Learner
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.interruption import deferred_signals
from unfreeze.tasks.machine.notices import log_info, log_notice
from unfreeze.tasks.machine.page import progress, show_table
from unfreeze.tasks.steps.workspace import as_task
from unfreeze.tasks.tracking.files import log_figure
from unfreeze.tasks.tracking.training_run import Run

SECONDS_BETWEEN_CHECKPOINTS = 90
"""Longer epochs are also saved midway, because metrics reach MLflow with checkpoints."""


def find_lr(run: Run, step: FindLr) -> dict[str, float]:
    """Find the lr of a stage on the current weights; returns the suggestions by method.

    The curve goes to MLflow as a figure and a feather file, the suggestions as a tag, by which a resumed run trains at
    the same lr.
    """

    def find() -> dict[str, float]:
        stage, method, curve = step.stage, run.params.finder.method, step.run()
        suggestions = curve.suggestions()
        frame = pd.DataFrame({"lr": curve.lrs, "loss": curve.losses, "smoothed": curve.smoothed})
        tracking.log_frame(run.id, frame, f"learning_rate/{stage.name}.feather")
        draw = partial(curve.plot, f"Learning rate for stage {stage.name}", method)
        log_figure(run.id, draw, f"learning_rate/{stage.name}.png", f"Learning-rate finder, stage {stage.name}")
        listed = ", ".join(f"{name} {lr:.2g}" for name, lr in suggestions.items())
        sure = f"; stable may be off by a factor of {10 ** curve.estimate()[1]:.1f}"
        tried = f"; tried on training rows held out: {curve.trials}" if curve.trials else ""
        log_info(f"{stage.name}: lr {suggestions[method]:.2g} ({method}), of {listed}{sure}{tried}")
        run.keep_suggestions(step.position, suggestions)
        return suggestions

    return as_task(step.name, find)


def unfreeze(run: Run, step: Unfreeze) -> None:
    """Make layers of the body trainable, with differential lrs."""

    def unfreeze_layers() -> None:
        rows = step.run()
        show_table(rows, f"unfreeze-{step.stage.name}", f"Trainable layer groups of stage {step.stage.name}")
        lrs = ", ".join(f"{row['layer group']} {row['lr relative to the head']}" for row in rows)
        log_info(f"{step.stage.name}: layers that train, and their learning rates as shares of the head's: {lrs}")

    as_task(step.name, unfreeze_layers)


def train_stage(run: Run, step: Train) -> dict[str, Any]:
    """Train a stage from the run's current state; returns its result, see `Train.result`.

    Metrics of batches and epochs go to MLflow with the next checkpoint, at every epoch's end and within long epochs. A
    stop signal ends the training after the current batch, with a checkpoint.
    """
    return as_task(step.name, lambda: _train(run, step))


def _train(run: Run, step: Train) -> dict[str, Any]:
    stage, learner = step.stage, step.state.learner
    keeps_cycles = run.params.tracking.cycle_checkpoints or run.params.snapshots > 1
    lrs: dict[str, list[tuple[int, float]]] = defaultdict(list)
    last: loop.Event | None = None
    with (
        tracking.MetricLog(run.id, with_checkpoints=True) as log,
        progress(f"Training {stage.name}", lambda: _note(last)) as advance,
        deferred_signals() as stop_asked,
    ):
        saved = time.monotonic()
        for event in step.run():
            log.log_event(event)
            if event.kind == "batch":
                for group, lr in event.lrs.items():
                    lrs[group].append((event.step, lr))
                advance(event.batch, event.batches)
                stops = stop_asked()  # asked once: a signal between two calls would end the stage without a checkpoint
                if stops or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                    saved = _save(run, learner, log)
                if stops:
                    break
                continue
            if event.kind == "epoch":
                last = event
                epochs = event.epoch * event.batches // event.batch  # includes cycles beyond those requested
                log_info(f"{stage.name}: epoch {event.epoch} of {epochs}: {_note(event)}")
                if keeps_cycles and event.ends_cycle:
                    continue  # the cycle's own event follows immediately and saves the same state
                saved = _save(run, learner, log)
            elif keeps_cycles:
                saved = _save(run, learner, log, cycle_checkpoint(stage.name, event.cycle))
            if stop_asked():
                break
        else:
            if stage.patience is not None:
                _save(run, learner, log)  # the best weights have been restored
    if lrs:
        draw = partial(plot_schedule, lrs, f"Schedule of stage {stage.name}")
        log_figure(run.id, draw, f"schedule/{stage.name}.png", f"Schedule of stage {stage.name}")
    run.keep_result(step.position, step.result)
    return step.result


def _save(run: Run, learner: Learner, log: tracking.MetricLog, name: str | None = None) -> float:
    """Save a checkpoint, permanently with `name`, else over the last but one; returns its start by `time.monotonic`.

    A full disk does not end the training; a line reports the missing checkpoint.
    """
    began = time.monotonic()
    try:
        tracking.save_checkpoint(run.id, lambda path: save_checkpoint(learner, path), name, log)
    except (OSError, SafetensorError) as error:
        log_notice(f"warning: the checkpoint cannot be written ({error}); the training continues without it")
    return began


def cycle_checkpoint(stage: str, cycle: int) -> str:
    """Name of the checkpoint at a cycle's end, counted from 1."""
    return f"{stage}-cycle-{cycle}.safetensors"


def _note(step: loop.Event | None) -> str:
    if step is None:
        return ""
    values = {"train_loss": float(step.loss), **{f"valid_{name}": value for name, value in step.metrics.items()}}
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())
