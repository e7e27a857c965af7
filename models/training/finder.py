"""Learning-rate finder: raise the lr batch by batch, record the loss, restore everything."""

import copy
import math

import numpy as np
import torch

from unfreeze.models.settings import FinderSpec
from unfreeze.models.training.batches import Batches
from unfreeze.models.training.checkpoints import capture, random_states, restore, set_random_states
from unfreeze.models.training.learner import Learner, Progress
from unfreeze.models.training.loop import DivergedError, train_epoch
from unfreeze.models.training.schedules import exponential
from unfreeze.models.training.suggestions import LrCurve, LrPrior, mean_curve

BETA = 0.98
"""Weight of the past in the smoothed loss."""
DIVERGED = 4.0
"""The sweep stops where the smoothed loss exceeds this multiple of its lowest value."""
SWEEPS = 3
FEWEST_STEPS = 12
"""Minimum steps of a sweep."""
SHARE = 0.1
"""Maximum share of a stage's rows for all its sweeps, if the body is trained."""
SMALLER = 8
"""Divisor of their batch size: a sweep needs steps, not rows."""


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
    states = random_states(learner)
    sweeps = []
    for number in range(SWEEPS):
        learner.generator.manual_seed(number)
        torch.manual_seed(number)
        sweeps.append(find_lr_curve(learner, train, settings))
    set_random_states(learner, states)
    return mean_curve(tuple(sweeps), prior)


def find_lr_curve(learner: Learner, train: Batches, settings: FinderSpec) -> LrCurve:
    """Sweep the learning rate from ``settings.start`` to ``settings.end``.

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
    before, base_lrs, progress = capture(learner), learner.base_lrs, learner.progress
    set_lrs = [parameters["lr"] for parameters in learner.optimizer.param_groups]
    learner.base_lrs = [lr / base_lrs[-1] for lr in base_lrs]
    learner.progress = Progress()  # the original may belong to a loop suspended in mid-epoch
    schedule = exponential(settings.start, settings.end, settings.steps)
    lrs: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    average = 0.0
    try:
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
    finally:
        restore(learner, before)
        learner.progress = progress
        for parameters, lr in zip(learner.optimizer.param_groups, set_lrs, strict=True):
            parameters["lr"] = lr


def _finite(*columns: list[float]) -> tuple[np.ndarray, ...]:
    """Convert the columns to arrays, up to the first loss that is not finite."""
    arrays = [np.array(column) for column in columns]
    bad = ~np.isfinite(arrays[1])
    end = int(bad.argmax()) if bad.any() else len(bad)
    return tuple(array[:end] for array in arrays)
