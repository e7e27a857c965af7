"""The learning-rate finder: raise the lr batch by batch, watch the loss, put everything back."""

import math

import numpy as np

from unfreeze.models.specs import FinderSpec
from unfreeze.models.training.batches import Batches
from unfreeze.models.training.checkpoints import capture, restore
from unfreeze.models.training.learner import Learner, Progress
from unfreeze.models.training.loop import DivergedError, train_epoch
from unfreeze.models.training.schedules import exponential
from unfreeze.models.training.suggestions import LrCurve

BETA = 0.98
"""Weight of the past in the smoothed loss."""
DIVERGED = 4.0
"""The sweep stops where the smoothed loss exceeds this multiple of its lowest value."""


def find_lr_curve(learner: Learner, train: Batches, settings: FinderSpec) -> LrCurve:
    """Sweep the learning rate from ``settings.start`` to ``settings.end``.

    The learner must be prepared for a stage; one multiplier raises the lrs of all its groups, so their ratios hold.
    Model, optimizer, buffers and random numbers are afterwards bit for bit what they were, also in mid-training.
    The sweep runs the training loop, over as many epochs as it takes, and stops early at a loss that is not a number
    or exceeds four times the lowest smoothed loss.

    Raises
    ------
    DivergedError
        If the very first loss is not finite: there is no curve then.

    References
    ----------
    Smith, "Cyclical Learning Rates for Training Neural Networks", 2015; fastai 0.7 (``learner.lr_find``).
    """
    before, base_lrs, progress = capture(learner), learner.base_lrs, learner.progress
    set_lrs = [parameters["lr"] for parameters in learner.optimizer.param_groups]
    learner.base_lrs = [lr / base_lrs[-1] for lr in base_lrs]
    learner.progress = Progress()  # the training's own belongs to a loop that may be suspended in mid-epoch
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
                    return LrCurve(*_finite(lrs, losses, smoothed))
        raise AssertionError("an epoch has at least one batch")
    finally:
        restore(learner, before)
        learner.progress = progress
        for parameters, lr in zip(learner.optimizer.param_groups, set_lrs, strict=True):
            parameters["lr"] = lr


def _finite(*columns: list[float]) -> tuple[np.ndarray, ...]:
    """The columns as arrays, up to the first loss that is not a number."""
    arrays = [np.array(column) for column in columns]
    bad = ~np.isfinite(arrays[1])
    end = int(bad.argmax()) if bad.any() else len(bad)
    return tuple(array[:end] for array in arrays)
