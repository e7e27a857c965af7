"""Time, memory and network of a planned training, by stage and by layer."""

import shlex
from typing import Any, TypeVar, cast

import psutil
import torch

from unfreeze.models.errors import UserError
from unfreeze.models.recipe.forecast import Forecast, forecast, within
from unfreeze.models.recipe.summary import summarise_layers
from unfreeze.models.recipe.training_data import TrainingData
from unfreeze.models.settings import Training
from unfreeze.models.training.schedules import possible_epochs
from unfreeze.tasks.machine.notices import log_notice
from unfreeze.tasks.steps.prepare import check_training, prepare

AnyTraining = TypeVar("AnyTraining", bound=Training)


def within_budget(params: AnyTraining, hours: float) -> AnyTraining:
    """Shorten the training to a budget; a line reports the cuts.

    Raises
    ------
    UserError
        If the budget is too small even for the shortest training.
    """
    data, expected, flags = _forecast(params, hours)
    log_notice(
        f"about {expected.seconds / 60:.0f} minutes, {expected.most_seconds / 60:.0f} if every stage is "
        f"prolonged while it helps; {f'cut by {flags}' if flags else 'nothing had to be cut'}"
    )
    shortened = data.params.model_copy(update={"recipe": [each.stage for each in expected.stages]})
    return cast(AnyTraining, shortened)


def plan(params: Training, hours: float | None) -> dict[str, Any]:
    """Prepare the data, measure a few steps of each stage, and with `hours` shorten the training to that budget.

    Returns
    -------
    dict
        ``decided`` (lines on settings chosen by the data), ``stages`` (see `StageForecast`), ``seconds`` and at most
        ``most_seconds`` of the whole training, ``memory`` and ``memory_there`` in bytes, ``batch_size``, and
        the ``flags`` that shorten it (empty without a budget).

    Raises
    ------
    UserError
        If the data cannot be used, or the budget is too small even for the shortest training.
    """
    data, expected, flags = _forecast(params, hours)
    stages = []
    for each in expected.stages:
        fewest, most = possible_epochs(each.stage)
        lengths = {"steps": each.per_epoch * each.stage.epochs, "fewest_epochs": fewest, "most_epochs": most}
        settings = {name: getattr(each.stage, name) for name in ("name", "train", "cycles", "cycle_len", "epochs")}
        stages.append({**vars(each), "stage": settings, **lengths, "seconds": each.seconds})
    return {
        "decided": data.decided(),
        "stages": stages,
        "seconds": expected.seconds,
        "most_seconds": expected.most_seconds,
        "batch_size": data.batch_size,
        "memory": expected.memory,
        "memory_there": int(psutil.virtual_memory().total),
        "flags": flags,
    }


def _forecast(params: Training, hours: float | None) -> tuple[TrainingData, Forecast, str]:
    """Prepare and measure a training, with `hours` shortened; also the flags that shorten it."""
    check_training(params)
    data = prepare(params)
    whole = forecast(data)
    if hours is None:
        return data, whole, ""
    shortened = within(whole, 3600 * hours)
    if shortened.seconds > 3600 * hours:
        raise UserError(
            f"hours: even one epoch of every stage takes {shortened.seconds / 3600:.2g} hours; give more, fewer "
            "stages, smaller images or fewer rows"
        )
    flags = []
    for before, after in zip(whole.stages, shortened.stages, strict=True):
        stage = after.stage
        if before.stage.epochs != stage.epochs:
            lengths = {"cycles": stage.cycles, "cycle_len": stage.cycle_len, "cycle_steps": "none"}
            flags += [text for name, value in lengths.items() for text in (f"--recipe.{stage.name}.{name}", str(value))]
    return data, shortened, shlex.join(flags)


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
