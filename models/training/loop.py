"""The training loop, for every stage of every recipe and for the learning-rate finder."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch

from unfreeze.models.errors import UserError, choose
from unfreeze.models.settings import Stage
from unfreeze.models.training import ranks
from unfreeze.models.training.batches import Batches, split_into_batches
from unfreeze.models.training.learner import Learner
from unfreeze.models.training.schedules import (
    MOST_PROLONGED,
    SCHEDULES,
    Schedule,
    cycle_at,
    cycle_ends,
    steps_per_epoch,
)

WORTHWHILE = 0.005
"""Share by which a cycle must lower the validation loss to earn an extra one."""


class DivergedError(UserError):
    """The loss is not finite, so training cannot continue with these settings."""


@dataclass(frozen=True)
class Event:
    """End of a batch, an epoch or a cycle."""

    kind: Literal["batch", "epoch", "cycle"]
    step: int
    """Batches since the training began."""
    epoch: int
    """Completed epochs of this stage."""
    cycle: int
    """Cycle of the batch or epoch, from 1."""
    lrs: dict[str, float]
    """Learning rate of every trained layer group, at the last batch."""
    loss: torch.Tensor
    """Batch: its loss, a scalar on the training device; reading it waits for the device. Epoch and cycle: the mean."""
    batch: int
    """Completed batches of this stage."""
    batches: int
    """Batches of this stage unless it ends early or is prolonged."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Epoch and cycle: validation loss and metrics."""
    ends_cycle: bool = False
    """Epoch and cycle: whether a cycle ends here."""


def train_epoch(
    learner: Learner, train: Batches, schedule: Schedule, first: int
) -> Iterator[tuple[torch.Tensor, dict[str, float]]]:
    """Train one epoch, or the rest of an interrupted one; yields each batch's loss and lrs.

    Parameters
    ----------
    learner
        Prepared for a stage. Its progress holds the epoch's row order (drawn here if unset) and the losses of completed
        batches, so an interrupted epoch continues with the next batch.
    train
        Training rows.
    schedule
        Factor of the base lrs by batch number.
    first
        Number of the epoch's first batch in the schedule.
    """
    progress = learner.progress
    if progress.order is None:
        progress.order, progress.batch = torch.randperm(len(train), generator=learner.generator), 0
    batches = split_into_batches(progress.order, train.batch_size)
    # One tensor, as many small ones between the batches' buffers would fragment and grow the heap.
    losses = torch.empty(len(batches), device=learner.device)
    losses[: progress.batch] = progress.losses[: progress.batch]
    progress.losses = losses
    learner.train_mode()
    train.epoch = progress.epoch
    for number in range(progress.batch, len(batches)):
        lrs = learner.set_lrs(schedule(first + number))
        rows = batches[number]
        share, total = ranks.share(len(rows))
        inputs, targets = train.gather(rows, learner.generator, share)
        losses[number] = learner.train_batch(inputs, targets, train, total)
        progress.batch += 1
        progress.step += 1
        yield losses[number], lrs
    progress.order = None


def fit(learner: Learner, stage: Stage, train: Batches, valid: Batches) -> Iterator[Event]:
    """Train one stage; yields after each batch, epoch and cycle for the caller to log, save, prune or stop.

    The learner must be prepared for the stage. Training continues from ``learner.progress``, which is exact at every
    yield, so a checkpoint written there resumes bit for bit. With ``stage.patience`` the stage ends after that many
    cycles in a row without a new lowest validation loss, and its best weights are restored. A head keeps its initial
    weights if no cycle improved on them; deeper stages keep their best cycle's, which are compared with the head's
    later (`unfreeze.models.recipe.run.SelectModel`). See `close_cycle`.

    Raises
    ------
    DivergedError
        If a batch's loss or the validation loss is not finite; names the step. Checked at the epoch's end, because
        reading every loss would stall the accelerator.
    """
    progress = learner.progress
    per_epoch = steps_per_epoch(len(train), train.batch_size)
    schedule = choose(SCHEDULES, stage.schedule, "schedule")(stage.cycle_len * per_epoch, stage.cycle_mult)
    if stage.patience is not None and progress.best_loss == float("inf"):
        progress.best_loss = _validated(learner, stage, valid)["loss"]
        if stage.train == "head":
            keep_weights(learner, progress.best_loss)
    while not progress.finished:
        cycle, end = cycle_at(progress.epoch, stage.cycle_len, stage.cycle_mult)
        batches = cycle_ends(max(cycle, stage.cycles), stage.cycle_len, stage.cycle_mult)[-1] * per_epoch
        # The last batch's lrs, for an epoch interrupted after it; otherwise every batch sets its own.
        lrs: dict[str, float] = learner.set_lrs(schedule((progress.epoch + 1) * per_epoch - 1))
        for loss, lrs in train_epoch(learner, train, schedule, progress.epoch * per_epoch):
            done = progress.epoch * per_epoch + progress.batch
            yield Event("batch", progress.step, progress.epoch, cycle, lrs, loss, done, batches)
        losses = progress.losses
        if not losses.isfinite().all():
            bad = progress.step - len(losses) + int((~losses.isfinite()).nonzero()[0]) + 1
            raise _diverged(learner, stage, f"the loss is not finite at step {bad}")
        progress.epoch += 1
        at_cycle_end = progress.epoch == end
        with learner.averaged():
            metrics = _validated(learner, stage, valid)
            if at_cycle_end:
                close_cycle(learner, stage, cycle, metrics["loss"])
        for kind in ("epoch", "cycle") if at_cycle_end else ("epoch",):
            done = progress.epoch * per_epoch
            mean = losses.mean()
            yield Event(kind, progress.step, progress.epoch, cycle, lrs, mean, done, batches, metrics, at_cycle_end)
    if progress.best is not None:
        learner.network.load_state_dict(progress.best)
        progress.best = None


def _validated(learner: Learner, stage: Stage, valid: Batches) -> dict[str, float]:
    metrics = learner.validate(valid)
    if not math.isfinite(metrics["loss"]):
        raise _diverged(learner, stage, f"the validation loss is not finite after step {learner.progress.step}")
    return metrics


def _diverged(learner: Learner, stage: Stage, what: str) -> DivergedError:
    lr = learner.base_lrs[-1]
    setting = f"recipe.{stage.name}.lrs" if stage.lrs else f"recipe.{stage.name}.lr {lr / 10:.1g}"
    return DivergedError(
        f"stage {stage.name!r}: {what}, at lr {lr:.2g}; start again with a lower learning rate, such as --{setting}"
    )


def close_cycle(learner: Learner, stage: Stage, cycle: int, valid_loss: float) -> None:
    """Decide at a cycle's end whether the stage continues; ``learner.progress.stopped`` gives the reason to stop."""
    progress, before = learner.progress, learner.progress.best_loss
    over = cycle >= stage.cycles
    if stage.patience is not None:
        if valid_loss < progress.kept_loss:
            keep_weights(learner, valid_loss)
        if valid_loss < before:
            progress.best_loss, progress.cycles_since_best = valid_loss, 0
        else:
            progress.cycles_since_best += 1
        continues = valid_loss < before * (1 - WORTHWHILE) and progress.epoch < MOST_PROLONGED * stage.epochs
        over = over and not continues
        if progress.cycles_since_best >= stage.patience:
            progress.stopped = f"no lower validation loss than {before:.4g} in {_cycles(stage.patience)}"
    if over and not progress.stopped:
        progress.stopped = f"{_cycles(cycle)} trained"
    progress.finished = bool(progress.stopped)
    if progress.finished and progress.best is None and learner.average is not None:
        keep_weights(learner, valid_loss)


def keep_weights(learner: Learner, valid_loss: float) -> None:
    """Keep the weights as the best so far."""
    state = learner.network.state_dict()
    learner.progress.best = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
    learner.progress.kept_loss = valid_loss


def _cycles(number: int) -> str:
    return "1 cycle" if number == 1 else f"{number} cycles"
