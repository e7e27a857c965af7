"""Time, memory and network of a planned training, by stage and by layer."""

import shlex
from typing import Any

import psutil
import torch

from unfreeze.models.errors import UserError
from unfreeze.models.recipe.forecast import Forecast, StageForecast, forecast, within
from unfreeze.models.recipe.summary import summarise_layers
from unfreeze.models.recipe.training_data import TrainingData
from unfreeze.models.settings import Stage, Training
from unfreeze.models.training.schedules import possible_epochs
from unfreeze.tasks.machine.notices import log_notice
from unfreeze.tasks.steps.prepare import check_training, prepare


def within_budget(params: Training, hours: float) -> Training:
    """Shorten the training to a budget; a line reports the cuts.

    Raises
    ------
    UserError
        If the budget is too small even for the shortest training.
    """
    _, shortened, expected, cuts = _planned(params, hours)
    log_notice(
        f"about {expected.seconds / 60:.0f} minutes, {_most_seconds(shortened, expected) / 60:.0f} if every stage is "
        f"prolonged while it helps; {'; '.join(cuts) or 'nothing had to be cut'}"
    )
    return shortened


def plan(params: Training, hours: float | None) -> dict[str, Any]:
    """Prepare the data, measure a few steps of each stage, and with `hours` shorten the training to that budget.

    Returns
    -------
    dict
        ``decided`` (lines on settings chosen by the data), ``stages`` (see `StageForecast`, with ``trains``,
        ``fewest_epochs`` and ``most_epochs``), ``seconds`` and at most ``most_seconds`` of the
        whole training, ``memory`` and ``memory_there`` in bytes, ``batch_size``; with a budget ``cuts`` and the
        ``flags`` that make them.

    Raises
    ------
    UserError
        If the data cannot be used, or the budget is too small even for the shortest training.
    """
    data, planned, expected, cuts = _planned(params, hours)
    flags = shlex.join(_flags(data.params.recipe, planned.recipe))
    return {
        "decided": data.decided(),
        "stages": [_shown(*each) for each in zip(planned.recipe, expected.stages, strict=True)],
        "seconds": expected.seconds,
        "most_seconds": _most_seconds(planned, expected),
        "batch_size": data.batch_size,
        "memory": expected.memory,
        "memory_there": int(psutil.virtual_memory().total),
        **({} if hours is None else {"cuts": cuts, "flags": flags}),
    }


def summarise(params: Training, stage: str | None) -> dict[str, Any]:
    """Summarise the layers as a stage of the recipe (by default the last) trains them.

    Returns
    -------
    dict
        ``stage``; ``layers``, see `summarise_layers`; total ``parameters`` and ``trainable`` ones.

    Raises
    ------
    UserError
        If the stage is unknown, or the data cannot be used.
    """
    check_training(params)
    names = [each.name for each in params.recipe]
    if stage is not None and stage not in names:
        raise UserError(f"--stage: {stage!r} is not one of the recipe's: {', '.join(names)}")
    position = names.index(stage) if stage else len(names) - 1
    data = prepare(params)
    inputs, _ = data.batches(position, "train", {}).gather(torch.arange(2), None)
    chosen = data.params.recipe[position]
    layers = summarise_layers(data.learner(), chosen, position, chosen.lr, inputs)
    total = sum(row["parameters"] for row in layers)
    trainable = sum(row["parameters"] for row in layers if row["trains"] == "yes")
    return {"stage": names[position], "layers": layers, "parameters": total, "trainable": trainable}


def _most_seconds(params: Training, expected: Forecast) -> float:
    """Seconds of a training with all stages prolonged to their maximum."""
    stages = zip(params.recipe, expected.stages, strict=True)
    more = sum((possible_epochs(stage)[1] - stage.epochs) * each.epoch_seconds for stage, each in stages)
    return expected.seconds + more


def _planned(params: Training, hours: float | None) -> tuple[TrainingData, Training, Forecast, list[str]]:
    """Prepared data, the training that fits the budget, its forecast, and the cuts."""
    check_training(params)
    data = prepare(params)
    expected = forecast(data)
    if hours is None:
        return data, data.params, expected, []
    shortened, expected, cuts = within(data.params, expected, 3600 * hours)
    if expected.seconds > 3600 * hours:
        raise UserError(
            f"hours: even one epoch of every stage takes {expected.seconds / 3600:.2g} hours; give more, fewer stages, "
            "smaller images or fewer rows"
        )
    return data, shortened, expected, cuts


def _flags(before: list[Stage], after: list[Stage]) -> list[str]:
    """Flags that make the cuts."""
    flags = []
    for one, other in zip(before, after, strict=True):
        for name, value in (("cycles", other.cycles), ("cycle_len", other.cycle_len), ("cycle_steps", "none")):
            # A length in epochs applies only without a length in steps.
            if one.epochs != other.epochs and (name == "cycles" or one.cycle_len != other.cycle_len):
                flags += [f"--recipe.{one.name}.{name}", str(value)]
    return flags


def _shown(stage: Stage, expected: StageForecast) -> dict[str, Any]:
    fewest, most = possible_epochs(stage)
    found = {"fewest_epochs": fewest, "most_epochs": most, "trains": stage.train, "seconds": expected.seconds}
    return {**vars(expected), **found}
