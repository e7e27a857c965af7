"""One stage of the recipe as a step: the training loop with its metrics, checkpoints and an end at any batch."""

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Any

from unfreeze.models.evaluation.plots import plot_schedule
from unfreeze.models.recipe.run import Precompute, Train, Unfreeze
from unfreeze.models.training import loop
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.interruption import deferred_signals
from unfreeze.tasks.machine.notices import log_info
from unfreeze.tasks.machine.page import progress, show_table
from unfreeze.tasks.steps.checkpoint_writer import CheckpointWriter
from unfreeze.tasks.steps.workspace import as_task
from unfreeze.tasks.tracking.files import log_figure
from unfreeze.tasks.tracking.training_run import Run


def precompute(run: Run, step: Precompute) -> None:
    """Activations of the frozen body for a stage; tasks of which those are skipped whose files exist."""
    step.run()


def unfreeze(run: Run, step: Unfreeze) -> None:
    """Make layers of the body trainable, with differential lrs."""

    def unfreeze_layers() -> None:
        rows = step.run()
        show_table(rows, f"unfreeze-{step.stage.name}", f"Trainable layer groups of stage {step.stage.name}")
        lrs = ", ".join(f"{row['layer group']} {row['lr relative to the head']}" for row in rows)
        log_info(f"{step.stage.name}: trainable layer groups and their lrs relative to the head: {lrs}")

    as_task(step.name, unfreeze_layers)


def train_stage(run: Run, step: Train) -> dict[str, Any]:
    """Train a stage from where the run is; returns its result, see `Train.result`.

    Metrics of every batch and epoch go to MLflow with the checkpoint that they lead up to: at every epoch's end, and
    within epochs that take long. A signal to stop ends the training after the batch under way, with a checkpoint.
    """
    return as_task(step.name, lambda: _train(run, step))


def _train(run: Run, step: Train) -> dict[str, Any]:
    stage, learner = step.stage, step.course.learner
    keeps_cycles = run.params.tracking.cycle_checkpoints or run.params.snapshots > 1
    lrs: dict[str, list[tuple[int, float]]] = defaultdict(list)
    last: loop.Step | None = None
    with (
        tracking.MetricLog(run.id, with_checkpoints=True) as log,
        progress(f"Training {stage.name}", lambda: _note(last)) as advance,
        deferred_signals() as stop_asked,
    ):
        writer = CheckpointWriter(run.id, learner, log)
        for event in step.run():
            if event.kind == "batch":
                log.log({"train/loss": float(event.loss), **_named("lr", event.lrs)}, event.step)
                for group, lr in event.lrs.items():
                    lrs[group].append((event.step, lr))
                advance(event.batch, event.batches)
                # Asked once: a signal between two questions would end the stage without the checkpoint.
                if stop_asked():
                    writer.save()
                    break
                if writer.is_due:
                    writer.save()
                continue
            if event.kind == "epoch":
                last = event
                metrics = {"train/epoch_loss": float(event.loss), **_named("valid", event.metrics)}
                log.log(tracking.as_float(metrics), event.step)
                epochs = event.epoch * event.batches // event.batch  # of cycles beyond those asked for as well
                log_info(f"{stage.name}: epoch {event.epoch} of {epochs}: {_note(event)}")
                if keeps_cycles and event.ends_cycle:
                    continue  # the cycle's own event, which follows at once, saves the same state
                writer.save()
            elif keeps_cycles:
                writer.save(cycle_checkpoint(stage.name, event.cycle))
            if stop_asked():
                break
        else:
            if stage.patience is not None:
                writer.save()  # the best weights have been restored
    if lrs:
        draw = partial(plot_schedule, lrs, f"Schedule of stage {stage.name}")
        log_figure(run.id, draw, f"schedule/{stage.name}.png", f"Schedule of stage {stage.name}")
    run.keep_result(step.position, step.result)
    return step.result


def cycle_checkpoint(stage: str, cycle: int) -> str:
    """Name of the checkpoint at a cycle's end, counted from 1."""
    return f"{stage}-cycle-{cycle}.safetensors"


def _named(section: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{section}/{name}": value for name, value in values.items()}


def _note(step: loop.Step | None) -> str:
    if step is None:
        return ""
    values = {"train_loss": float(step.loss), **{f"valid_{name}": value for name, value in step.metrics.items()}}
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())
