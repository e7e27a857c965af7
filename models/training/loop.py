"""The training loop, for every stage of every recipe and for the learning-rate finder."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch

from unfreeze.models.errors import choose
from unfreeze.models.specs import Stage
from unfreeze.models.training.batches import Batches, split_into_batches
from unfreeze.models.training.learner import Learner
from unfreeze.models.training.schedules import SCHEDULES, Schedule, cycle_ends


class DivergedError(RuntimeError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Step:
    """What just ended: a batch, an epoch or a cycle."""

    kind: Literal["batch", "epoch", "cycle"]
    step: int
    """Batches since the training began."""
    epoch: int
    """Epochs of this stage that are done."""
    cycle: int
    """The cycle that the batch or epoch belongs to, from 1."""
    lrs: dict[str, float]
    """Learning rate of every trained layer group, at the last batch."""
    loss: torch.Tensor
    """Batch: its loss, a scalar on the training device. Epoch and cycle: the mean over the epoch."""
    batch: int
    """Batches of this stage that are done."""
    batches: int
    """Batches of this stage, if it is not ended early."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Epoch and cycle: validation loss and metrics."""


def train_epoch(
    learner: Learner, train: Batches, schedule: Schedule, first: int
) -> Iterator[tuple[torch.Tensor, dict[str, float]]]:
    """Train one epoch, or what is left of it; yields each batch's loss and lrs.

    Parameters
    ----------
    learner
        Prepared for a stage. Its progress holds the epoch's row order (drawn here if there is none) and the losses of
        the batches that are done, so an interrupted epoch continues with the very next batch.
    train
        Training rows.
    schedule
        Factor of the base lrs by batch number.
    first
        Number of the epoch's first batch in the schedule.
    """
    progress = learner.progress
    if progress.order is None:
        progress.order, progress.losses = torch.randperm(len(train), generator=learner.generator), []
    batches = split_into_batches(progress.order, train.batch_size)
    learner.train_mode()
    for number in range(len(progress.losses), len(batches)):
        lrs = learner.set_lrs(schedule(first + number))
        inputs, targets = train.gather(batches[number], learner.generator)
        loss = learner.train_batch(inputs, targets, train)
        progress.losses.append(loss)
        progress.step += 1
        yield loss, lrs
    progress.order = None


def fit(learner: Learner, stage: Stage, train: Batches, valid: Batches) -> Iterator[Step]:
    """Train one stage; yields after each batch, epoch and cycle, and the caller logs, saves, prunes or stops.

    The learner must be prepared for the stage. It continues from ``learner.progress``, which at every yield is exactly
    what has been done: a checkpoint written there resumes bit for bit. With
    ``stage.early_stop_tolerance`` the stage ends at the first cycle end whose validation loss is worse than the best by
    that share, and the best weights are restored.

    Raises
    ------
    DivergedError
        If a batch's loss is not finite; says at which step. It is noticed at the epoch's end, because looking at
        every loss would make the accelerator wait.
    """
    progress = learner.progress
    per_epoch = len(split_into_batches(torch.arange(len(train)), train.batch_size))
    schedule = choose(SCHEDULES, stage.schedule, "schedule")(stage.cycle_len * per_epoch, stage.cycle_mult)
    batches = stage.epochs * per_epoch
    ends = cycle_ends(stage.cycles, stage.cycle_len, stage.cycle_mult)
    while not progress.finished:
        cycle = sum(end <= progress.epoch for end in ends) + 1
        # Those of the last batch, for an epoch that was interrupted after it: each batch sets its own.
        lrs: dict[str, float] = learner.set_lrs(schedule((progress.epoch + 1) * per_epoch - 1))
        for loss, lrs in train_epoch(learner, train, schedule, progress.epoch * per_epoch):
            done = progress.epoch * per_epoch + len(progress.losses)
            yield Step("batch", progress.step, progress.epoch, cycle, lrs, loss, done, batches)
        losses = torch.stack(progress.losses)
        if not losses.isfinite().all():
            bad = progress.step - len(losses) + int((~losses.isfinite()).nonzero()[0]) + 1
            raise DivergedError(f"stage {stage.name!r}: the loss is not finite at step {bad}; lower the learning rate")
        metrics = learner.validate(valid)
        progress.epoch += 1
        at_cycle_end = progress.epoch in ends
        if at_cycle_end:
            close_cycle(learner, stage, metrics["loss"])
        progress.finished = progress.finished or progress.epoch == ends[-1]
        for kind in ("epoch", "cycle") if at_cycle_end else ("epoch",):
            done = progress.epoch * per_epoch
            yield Step(kind, progress.step, progress.epoch, cycle, lrs, losses.mean(), done, batches, metrics)
    if progress.best is not None:
        learner.network.load_state_dict(progress.best)
        progress.best = None


def close_cycle(learner: Learner, stage: Stage, valid_loss: float) -> None:
    """Remember the best cycle, and finish a stage that over-fits by more than its early_stop_tolerance."""
    progress = learner.progress
    if stage.early_stop_tolerance is None:
        return
    if valid_loss < progress.best_loss:
        progress.best_loss = valid_loss
        progress.best = {name: tensor.detach().cpu().clone() for name, tensor in learner.network.state_dict().items()}
    elif valid_loss > progress.best_loss * (1 + stage.early_stop_tolerance):
        progress.finished = True
