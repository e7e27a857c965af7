"""Batch size and cycle lengths derived from the number of training rows.

On few rows an epoch is a handful of optimizer steps, so stages give their first cycle in steps (`Stage.cycle_steps`),
and the batch shrinks with the data.
"""

import math
from typing import TypeVar

from unfreeze.models.settings import Stage, Training
from unfreeze.models.training.schedules import cycle_ends

SHARE = 20
"""Training rows per row of a batch, about."""
MOST_PROLONGED = 3
"""Multiple of its epochs after which a stage with patience begins no extra cycle."""
TrainingType = TypeVar("TrainingType", bound=Training)


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
