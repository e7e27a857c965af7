"""Learning-rate finder: sweeps raise the lr batch by batch, trials train the stage; everything is restored.

A sweep shows how fast the loss falls within a few batches, but not whether the head over-fits by the stage's end. So
where steps are cheap, five lrs around the sweep's each train the stage on most of its training rows, scored on the
held-out rest.
"""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from unfreeze.models.errors import choose
from unfreeze.models.settings import FinderSpec, Stage
from unfreeze.models.training.batches import WHOLE, Batches, Inputs
from unfreeze.models.training.checkpoints import capture, restore
from unfreeze.models.training.learner import Learner, Progress
from unfreeze.models.training.loop import DivergedError, train_epoch
from unfreeze.models.training.schedules import SCHEDULES, cycle_ends, exponential, steps_per_epoch
from unfreeze.models.training.suggestions import LrCurve, LrPrior, LrTrials, mean_curve

BETA = 0.98
"""Weight of the past in the smoothed loss."""
DIVERGED = 4.0
"""The sweep stops where the smoothed loss exceeds this multiple of its lowest value."""
SWEEPS = 3
LRS = (1e-5, 10.0)
"""First and last learning rate of a sweep."""
FEWEST_STEPS = 12
"""Minimum steps of a sweep."""
SHARE = 0.1
"""Maximum share of a stage's rows for all its sweeps, if the body is trained."""
SMALLER = 8
"""Divisor of their batch size: a sweep needs steps, not rows."""
TRIED = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""Decades from the sweep's suggestion."""
FOLDS = 3
"""Trials per lr, each with different held-out rows."""
HELD_OUT, FEWEST_HELD_OUT = 0.1, 30
"""Share of the training rows held out, and their minimum number; at most a third of the rows for the minimum."""
FEWEST_ROWS = 30
"""Minimum training rows for trials."""
MOST_STEPS = 150
"""Maximum optimizer steps of a trial; longer stages are shortened."""


@contextmanager
def _restoring(learner: Learner, seed: int | None) -> Iterator[None]:
    """Seed the learner's random numbers, and restore everything bit for bit afterwards, also in mid-training."""
    before, progress = capture(learner), learner.progress  # which may belong to a loop suspended in mid-epoch
    lrs = [parameters["lr"] for parameters in learner.optimizer.param_groups]
    learner.progress = Progress()
    if seed is not None:
        learner.generator.manual_seed(seed)
        torch.manual_seed(seed)
    try:
        yield
    finally:
        restore(learner, before)
        learner.progress = progress
        for parameters, lr in zip(learner.optimizer.param_groups, lrs, strict=True):
            parameters["lr"] = lr


def sweep_lengths(settings: FinderSpec, batch_size: int, stage_steps: int, trains_body: bool) -> tuple[int, int]:
    """Steps and batch size of one sweep.

    Training the body is slow, so its sweeps use smaller batches and together at most a tenth of the stage's rows, but
    at least 12 steps each.
    """
    steps = settings.steps // SWEEPS
    if trains_body:
        rows, batch_size = batch_size * stage_steps, max(batch_size // SMALLER, 4)
        steps = min(steps, int(SHARE * rows / batch_size) // SWEEPS)
    return max(steps, FEWEST_STEPS), batch_size


def find_lr(learner: Learner, train: Batches, settings: FinderSpec, stage_steps: int, prior: LrPrior | None) -> LrCurve:
    """Average three sweeps from the same weights with different row orders.

    The training's seed affects sweeps only through the weights. See `sweep_lengths` for their size.

    Parameters
    ----------
    learner, train
        Prepared for a stage, and its training rows.
    settings
        ``steps`` is the total over all sweeps.
    stage_steps
        Optimizer steps of the stage.
    prior
        Prior knowledge of the lr.
    """
    trains_body, train = learner.network.body_is_trainable() and not train.precomputed, copy.copy(train)
    steps, train.batch_size = sweep_lengths(settings, train.batch_size, stage_steps, trains_body)
    settings = settings.model_copy(update={"steps": steps})
    sweeps = tuple(find_lr_curve(learner, train, settings, seed) for seed in range(SWEEPS))
    return mean_curve(sweeps, prior)


def find_lr_curve(learner: Learner, train: Batches, settings: FinderSpec, seed: int | None = None) -> LrCurve:
    """Sweep the learning rate over `LRS`.

    The learner must be prepared for a stage; one multiplier raises the lrs of all its groups, which keeps their ratios.
    Model, optimizer, buffers and random states are restored bit for bit, also in mid-training. The sweep runs the
    training loop for as many epochs as needed, and stops early if the loss is not finite or the smoothed loss exceeds
    four times its lowest value.

    Raises
    ------
    DivergedError
        If the first loss is not finite.

    References
    ----------
    Smith, "Cyclical Learning Rates for Training Neural Networks", 2015; fastai 0.7 (``learner.lr_find``).
    """
    schedule = exponential(*LRS, settings.steps)
    lrs: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    average = 0.0
    with _restoring(learner, seed):
        learner.base_lrs = [lr / learner.base_lrs[-1] for lr in learner.base_lrs]
        while len(losses) < settings.steps:
            for batch_loss, group_lrs in train_epoch(learner, train, schedule, first=len(losses)):
                loss = float(batch_loss)
                average = BETA * average + (1 - BETA) * loss
                lrs.append(list(group_lrs.values())[-1])
                losses.append(loss)
                smoothed.append(average / (1 - BETA ** len(losses)))
                if len(losses) == 1 and not math.isfinite(loss):
                    raise DivergedError("the loss is not finite at the finder's first batch; check data and weights")
                if not math.isfinite(loss) or smoothed[-1] > DIVERGED * min(smoothed) or len(losses) == settings.steps:
                    finite = _finite(lrs, losses, smoothed)
                    return LrCurve(finite[0], finite[1], finite[2])
    raise AssertionError("an epoch has at least one batch")


def _finite(*columns: list[float]) -> tuple[np.ndarray, ...]:
    """Convert the columns to arrays, up to the first loss that is not finite."""
    arrays = [np.array(column) for column in columns]
    bad = ~np.isfinite(arrays[1])
    end = int(bad.argmax()) if bad.any() else len(bad)
    return tuple(array[:end] for array in arrays)


class _Part:
    """Subset of the rows of precomputed batches, whose views do not depend on the epoch."""

    epoch = 0

    def __init__(self, whole: Batches, rows: torch.Tensor) -> None:
        self.whole, self.rows = whole, rows
        self.batch_size, self.forward_size, self.precomputed = whole.batch_size, whole.forward_size, whole.precomputed

    def __len__(self) -> int:
        return len(self.rows)

    def gather(
        self, rows: torch.Tensor, generator: torch.Generator | None, share: slice = WHOLE
    ) -> tuple[Inputs, torch.Tensor]:
        return self.whole.gather(self.rows[rows], generator, share)


def try_lrs(learner: Learner, train: Batches, stage: Stage, centre: float) -> LrTrials | None:
    """Train the stage at five lrs within a decade of `centre`, from the learner's weights, which are restored.

    Parameters
    ----------
    learner
        Prepared for the stage.
    train
        The stage's precomputed training rows; validation rows are not used.
    stage
        Trained for its cycles that fit into `MOST_STEPS`.
    centre
        The head's lr.

    Returns
    -------
    LrTrials or None
        None with fewer than `FEWEST_ROWS` training rows.
    """
    if len(train) < FEWEST_ROWS:
        return None
    lrs = centre * 10.0 ** np.array(TRIED)
    held_out = _held_out(len(train))
    losses = np.empty((FOLDS, len(lrs)))
    for fold in range(FOLDS):
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(fold))
        kept, held = (_Part(train, rows.sort().values) for rows in (order[held_out:], order[:held_out]))
        for place, lr in enumerate(lrs):
            with _restoring(learner, fold):
                learner.base_lrs = [float(lr) * (each / learner.base_lrs[-1]) for each in learner.base_lrs]
                losses[fold, place] = _trained(learner, kept, held, stage)
    return LrTrials(lrs, losses)


def _held_out(rows: int) -> int:
    return max(int(HELD_OUT * rows), min(rows // 3, FEWEST_HELD_OUT))


def _cycles(stage: Stage, rows: int, batch_size: int) -> tuple[int, int]:
    """Steps of a trial's first cycle, and of all its cycles."""
    per_epoch = steps_per_epoch(rows, batch_size)
    ends = [end * per_epoch for end in cycle_ends(stage.cycles, stage.cycle_len, stage.cycle_mult)]
    return min(ends[0], MOST_STEPS), max((end for end in ends if end <= MOST_STEPS), default=MOST_STEPS)


def _trained(learner: Learner, train: Batches, held_out: Batches, stage: Stage) -> float:
    """Train the stage's cycles; return the held-out loss."""
    cycle, steps = _cycles(stage, len(train), train.batch_size)
    schedule = choose(SCHEDULES, stage.schedule, "schedule")(cycle, stage.cycle_mult)
    done = 0
    while done < steps:
        for _ in train_epoch(learner, train, schedule, first=done):
            if learner.progress.batch + done == steps:
                break
        done += learner.progress.batch
        learner.progress.epoch += 1
    with learner.averaged():
        loss = float(learner.target.score(*learner.predict(held_out)))
    return loss if np.isfinite(loss) else float("inf")
