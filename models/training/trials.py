"""Learning rates tried on the stage itself, where its steps are cheap.

A sweep shows how fast a loss falls within some batches. Whether a head over-fits at that lr shows only at the stage's
end, so five lrs around the sweep's train the stage on most of its training rows, and are scored on the held-out rest.
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
"""Times that every lr is tried, with other rows held out."""
HELD_OUT, FEWEST_HELD_OUT = 0.1, 30
"""Share of the training rows that is held out, and its least number; at most a third of them."""
FEWEST_ROWS = 30
"""With fewer training rows nothing is tried."""
MOST_STEPS = 150
"""Optimizer steps of a trial, at most: a longer stage is tried shortened."""


class _Part:
    """Some rows of others, as `Batches`."""

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
    """Train the stage at five lrs, a decade around `centre`, from the learner's weights, which are put back.

    Parameters
    ----------
    learner
        Prepared for the stage.
    train
        The stage's training rows; validation rows take no part.
    stage
        Its cycles, as far as they fit `MOST_STEPS`.
    centre
        Lr of the head.

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
    """Optimizer steps of all trials of a stage on so many training rows."""
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
    """Loss of the rows held out after the stage's cycles."""
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
