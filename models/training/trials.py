"""Trials of learning rates on the stage itself, if its steps are cheap.

A sweep shows how fast the loss falls within a few batches, but not whether the head over-fits by the stage's end. So
five lrs around the sweep's each train the stage on most of its training rows, scored on the held-out rest.
"""

import numpy as np
import torch

from unfreeze.models.errors import choose
from unfreeze.models.settings import Stage
from unfreeze.models.training.batches import Batches, Inputs
from unfreeze.models.training.checkpoints import Checkpoint, capture, random_states, restore, set_random_states
from unfreeze.models.training.learner import Learner, Progress
from unfreeze.models.training.lengths import steps_per_epoch
from unfreeze.models.training.loop import train_epoch
from unfreeze.models.training.schedules import SCHEDULES, cycle_ends
from unfreeze.models.training.suggestions import LrTrials

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


class _Part:
    """Subset of another `Batches`' rows."""

    def __init__(self, whole: Batches, rows: torch.Tensor) -> None:
        self.whole, self.rows = whole, rows
        self.batch_size, self.forward_size, self.precomputed = whole.batch_size, whole.forward_size, whole.precomputed

    @property
    def epoch(self) -> int:
        return self.whole.epoch

    @epoch.setter
    def epoch(self, number: int) -> None:
        self.whole.epoch = number

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, rows: torch.Tensor, generator: torch.Generator | None) -> tuple[Inputs, torch.Tensor]:
        return self.whole.gather(self.rows[rows], generator)


def try_lrs(learner: Learner, train: Batches, stage: Stage, centre: float) -> LrTrials | None:
    """Train the stage at five lrs within a decade of `centre`, from the learner's weights, which are restored.

    Parameters
    ----------
    learner
        Prepared for the stage.
    train
        The stage's training rows; validation rows are not used.
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
    states, before, progress, epoch = random_states(learner), capture(learner), learner.progress, train.epoch
    ratios = [lr / learner.base_lrs[-1] for lr in learner.base_lrs]
    lrs = centre * 10.0 ** np.array(TRIED)
    held_out = _held_out(len(train))
    losses = np.empty((FOLDS, len(lrs)))
    try:
        for fold in range(FOLDS):
            order = torch.randperm(len(train), generator=torch.Generator().manual_seed(fold))
            kept, held = (_Part(train, rows.sort().values) for rows in (order[held_out:], order[:held_out]))
            for place, lr in enumerate(lrs):
                learner.generator.manual_seed(fold)
                torch.manual_seed(fold)
                learner.base_lrs = [float(lr) * ratio for ratio in ratios]
                losses[fold, place] = _trained(learner, kept, held, stage)
                _put_back(learner, before, progress)
    finally:
        _put_back(learner, before, progress)
        set_random_states(learner, states)
        train.epoch = epoch
    return LrTrials(lrs, losses)


def _put_back(learner: Learner, before: Checkpoint, progress: Progress) -> None:
    restore(learner, before)
    learner.progress = progress


def steps_of_trials(stage: Stage, rows: int, batch_size: int) -> int:
    """Total optimizer steps of a stage's trials for a number of training rows."""
    if rows < FEWEST_ROWS:
        return 0
    return FOLDS * len(TRIED) * _cycles(stage, rows - _held_out(rows), batch_size)[1]


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
    learner.progress, done = Progress(), 0
    while done < steps:
        for _ in train_epoch(learner, train, schedule, first=done):
            if learner.progress.batch + done == steps:
                break
        done += learner.progress.batch
        learner.progress.epoch += 1
    with learner.averaged():
        loss = _loss(learner, held_out)
    return loss if np.isfinite(loss) else float("inf")


def _loss(learner: Learner, rows: Batches) -> float:
    return float(learner.target.score(*learner.predict(rows)))
