"""How long a training is: batch size and cycles that follow from the number of training rows.

On few rows an epoch is a handful of optimizer steps, so epochs are no measure of how much is trained: stages state
their first cycle in steps (`Stage.cycle_steps`), and the batch shrinks with the data.
"""

import math
from typing import TypeVar

from unfreeze.models.settings import Stage, Training
from unfreeze.models.training.schedules import cycle_ends

SHARE = 20
"""A batch is about the training rows over this."""
MOST_PROLONGED = 3
"""A stage with patience begins no cycle beyond its own once this many times its epochs are done."""
TrainingType = TypeVar("TrainingType", bound=Training)


def batch_size_for(rows: int, smallest: int, largest: int) -> int:
    """The power of two next to a 20th of the rows, within bounds.

    >>> [batch_size_for(rows, 8, 64) for rows in (42, 400, 900, 100_000)]
    [8, 16, 32, 64]
    """
    power = round(math.log2(max(rows / SHARE, 1)))
    return min(max(1 << power, smallest), largest)


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Batches of an epoch, see `unfreeze.models.training.batches.split_into_batches`."""
    return -(-rows // batch_size)


def planned(params: TrainingType, rows: int, smallest: int, largest: int) -> TrainingType:
    """The training with every batch size and cycle length filled in.

    Parameters
    ----------
    params
        The spec as it was given.
    rows
        Training rows.
    smallest, largest
        Bounds of a batch size that the spec leaves open.
    """
    batch_size = params.optimizer.batch_size or batch_size_for(rows, smallest, largest)
    steps = steps_per_epoch(rows, batch_size)
    stages = [_lengthened(stage, steps) for stage in params.recipe]
    optimizer = params.optimizer.model_copy(update={"batch_size": batch_size})
    return params.model_copy(update={"optimizer": optimizer, "recipe": stages})


def plan(params: Training, rows: int) -> list[str]:
    """A line per stage of a planned training, with its cycles in epochs and steps."""
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
    """Why a stage may take fewer or more epochs than its own, and how many."""
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
    """The stage with a first cycle of at least its steps."""
    epochs = -(-(stage.cycle_steps or 0) // steps)
    return stage.model_copy(update={"cycle_len": max(stage.cycle_len, epochs)})
