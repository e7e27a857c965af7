"""Lengths and learning-rate schedules of stages.

A schedule is a pure function from a batch number to a factor on the base lrs. On few rows an epoch is a handful of
optimizer steps, so stages give their first cycle in steps (`Stage.cycle_steps`), and the batch shrinks with the data.
"""

import math
from collections.abc import Callable
from itertools import accumulate
from typing import TypeVar

from unfreeze.models.settings import Stage, Training

SHARE = 20
"""Training rows per row of a batch, about."""
MOST_PROLONGED = 3
"""Multiple of its epochs after which a stage with patience begins no extra cycle."""
TrainingType = TypeVar("TrainingType", bound=Training)
Schedule = Callable[[int], float]
"""Batch number, counted from 0 over the whole stage -> factor of every group's base lr."""


def cycle_ends(cycles: int, cycle_len: int, cycle_mult: int) -> list[int]:
    """Completed epochs at the end of each cycle.

    Parameters
    ----------
    cycles, cycle_len, cycle_mult
        Number of cycles, epochs of the first, and ratio of each length to the previous.

    Returns
    -------
    list of int
        One number per cycle: ``cycle_ends(3, 1, 2) == [1, 3, 7]``.
    """
    return list(accumulate(cycle_len * cycle_mult**number for number in range(cycles)))


def cycle_at(epoch: int, cycle_len: int, cycle_mult: int) -> tuple[int, int]:
    """Cycle of an epoch, from 1, and completed epochs at its end.

    >>> [cycle_at(epoch, 1, 2) for epoch in range(4)]
    [(1, 1), (2, 3), (2, 3), (3, 7)]
    """
    cycle, length, end = 1, cycle_len, cycle_len
    while epoch >= end:
        cycle, length = cycle + 1, length * cycle_mult
        end += length
    return cycle, end


def cosine_restarts(cycle_batches: int, cycle_mult: int = 1) -> Schedule:
    """SGDR: a half cosine from the base lr towards zero in every cycle, then a restart.

    Within a cycle of n batches, batch i runs at ``(1 + cos(pi i / n)) / 2``; the first n/20 batches of the first cycle
    run at 1/100 to let a fresh optimizer settle.

    Parameters
    ----------
    cycle_batches
        Batches of the first cycle.
    cycle_mult
        Ratio of each cycle's length to the previous.

    References
    ----------
    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2016; start at 1/100 from
    fastai 0.7 (``sgdr.CosAnneal``).
    """

    def factor(batch: int) -> float:
        if batch < cycle_batches / 20:
            return 0.01
        start, length = _cycle_of(batch, cycle_batches, cycle_mult)
        return (1 + math.cos(math.pi * (batch - start) / length)) / 2

    return factor


def one_cycle(cycle_batches: int, cycle_mult: int = 1) -> Schedule:
    """One-cycle: per cycle, a half cosine from 1/25 up to the base lr over a quarter, then one down to 1/100,000.

    References
    ----------
    Smith, "A disciplined approach to neural network hyper-parameters: Part 1", 2018; shares and divisors from
    fastai 2 (``callback.schedule.fit_one_cycle``).
    """

    def factor(batch: int) -> float:
        start, length = _cycle_of(batch, cycle_batches, cycle_mult)
        share = (batch - start) / length
        low, position = (1 / 25, share / 0.25) if share < 0.25 else (1e-5, (1 - share) / 0.75)
        return low + (1 - low) * (1 - math.cos(math.pi * position)) / 2

    return factor


def _cycle_of(batch: int, cycle_batches: int, cycle_mult: int) -> tuple[int, int]:
    """First batch and length of a batch's cycle."""
    cycle, end = cycle_at(batch, cycle_batches, cycle_mult)
    length = cycle_batches * cycle_mult ** (cycle - 1)
    return end - length, length


def exponential(start: float, end: float, steps: int) -> Schedule:
    """Grow exponentially from `start` at batch 0 to `end` at batch ``steps - 1``.

    References
    ----------
    Smith, "Cyclical Learning Rates for Training Neural Networks", 2015; fastai 0.7 (``sgdr.LR_Finder``).
    """
    growth = (end / start) ** (1 / (steps - 1))
    return lambda batch: start * growth**batch


SCHEDULES: dict[str, Callable[[int, int], Schedule]] = {"cosine": cosine_restarts, "one_cycle": one_cycle}
"""Name in a stage's `schedule` -> factory from the first cycle's batches and `cycle_mult`."""


def batch_size_for(rows: int, smallest: int, largest: int) -> int:
    """Round a 20th of the rows to a power of two, within bounds.

    >>> [batch_size_for(rows, 8, 64) for rows in (42, 400, 900, 100_000)]
    [8, 16, 32, 64]
    """
    power = round(math.log2(max(rows / SHARE, 1)))
    return min(max(1 << power, smallest), largest)


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Number of batches per epoch, see `unfreeze.models.training.batches.split_into_batches`."""
    return -(-rows // batch_size)


def planned(params: TrainingType, rows: int, smallest: int, largest: int) -> TrainingType:
    """Fill in the training's batch size and cycle lengths.

    Parameters
    ----------
    params
        The user's spec.
    rows
        Training rows.
    smallest, largest
        Bounds of the batch size if the spec does not set it.
    """
    batch_size = params.optimizer.batch_size or batch_size_for(rows, smallest, largest)
    steps = steps_per_epoch(rows, batch_size)
    stages = [_lengthened(stage, steps) for stage in params.recipe]
    optimizer = params.optimizer.model_copy(update={"batch_size": batch_size})
    return params.model_copy(update={"optimizer": optimizer, "recipe": stages})


def plan(params: Training, rows: int) -> list[str]:
    """Describe a planned training: a line per stage with its cycles in epochs and steps."""
    batch_size = params.optimizer.batch_size or 1
    steps = steps_per_epoch(rows, batch_size)
    return [f"plan: {stage.name}: {_shown(stage, steps, batch_size)}" for stage in params.recipe]


def _shown(stage: Stage, steps: int, batch_size: int) -> str:
    if stage.regression:
        return "logistic regression on the activations"
    varies = f"; {_as_it_goes(stage)}" if len(set(possible_epochs(stage))) > 1 else ""
    rows = f"{stage.epochs:,} epochs of {steps:,} steps of {batch_size:,} rows"
    return f"{rows}, {stage.cycles} cycle{'s' * (stage.cycles > 1)}{varies}"


def _as_it_goes(stage: Stage) -> str:
    """Describe how many epochs a stage may take, and why they vary."""
    fewest, most = possible_epochs(stage)
    why = [] if stage.fewest_errors is None else [f"skipped where fewer than {stage.fewest_errors} rows are wrong"]
    if stage.patience is not None:
        why += ["goes on while each cycle helps", f"ends after {stage.patience} without a lower validation loss"]
    return f"{fewest:,} to {most:,} epochs as it goes: {', '.join(why)}"


def possible_epochs(stage: Stage) -> tuple[int, int]:
    """Fewest and most epochs that a stage may take; see `unfreeze.models.training.loop.close_cycle`."""
    if stage.patience is None or stage.regression:
        return 0 if stage.fewest_errors is not None else stage.epochs, stage.epochs
    fewest = cycle_ends(min(stage.patience, stage.cycles), stage.cycle_len, stage.cycle_mult)[-1]
    cycles, most = stage.cycles, stage.epochs
    while most < MOST_PROLONGED * stage.epochs:
        cycles += 1
        most = cycle_ends(cycles, stage.cycle_len, stage.cycle_mult)[-1]
    return 0 if stage.fewest_errors is not None else fewest, most


def _lengthened(stage: Stage, steps: int) -> Stage:
    """Lengthen the first cycle to at least `cycle_steps`."""
    epochs = -(-(stage.cycle_steps or 0) // steps)
    return stage.model_copy(update={"cycle_len": max(stage.cycle_len, epochs)})
