"""Forecast a training's time and memory from a few timed steps per stage; shorten it to a time budget."""

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import psutil
import torch
from torch import nn

from unfreeze.models.recipe.training_data import TrainingData
from unfreeze.models.settings import Stage, Training
from unfreeze.models.training.batches import Batches, split_inputs
from unfreeze.models.training.finder import SWEEPS, steps_of_trials, sweep_lengths
from unfreeze.models.training.learner import Learner
from unfreeze.models.training.schedules import steps_per_epoch

WARM_UP, MEASURED = 2, 6
"""Untimed steps per stage (libraries pick their algorithms in them) and timed ones."""
CANDIDATES = 2
"""Final models that predict the validation rows with the whole network: as trained, and averaged."""
TrainingType = TypeVar("TrainingType", bound=Training)


@dataclass(frozen=True)
class StageForecast:
    """Forecast of a stage that trains all of its cycles.

    Attributes
    ----------
    steps
        Optimizer steps.
    lrs
        Layer group -> base lr; relative to the head's if `found`.
    found
        Whether the finder will suggest the head's lr.
    step_seconds, epoch_seconds
        Time per step, and per epoch with its validation.
    before_seconds
        Time for precomputed activations and the finder.
    """

    name: str
    cycles: int
    epochs: int
    steps: int
    lrs: dict[str, float]
    found: bool
    step_seconds: float
    epoch_seconds: float
    before_seconds: float

    @property
    def seconds(self) -> float:
        """Time for the whole stage."""
        return self.before_seconds + self.epochs * self.epoch_seconds


@dataclass(frozen=True)
class Forecast:
    """Forecast of a training.

    Attributes
    ----------
    evaluation_seconds
        Time for the final evaluations and the head-only one, with test-time augmentation; models other than the
        network are not counted.
    memory
        Peak bytes while steps were timed: of the process, or on an accelerator of its tensors.
    """

    stages: Sequence[StageForecast]
    evaluation_seconds: float
    memory: int

    @property
    def seconds(self) -> float:
        """Time for all stages and evaluations."""
        return sum(stage.seconds for stage in self.stages) + self.evaluation_seconds


def forecast(data: TrainingData) -> Forecast:
    """Time a few steps of every stage on real rows with a separate learner; the data are not changed."""
    learner, stages, row_seconds = data.learner(), [], 0.0
    if data.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(data.device)
    memory = _memory(data.device)
    for position, stage in enumerate(data.params.recipe):
        found, row_seconds = _stage(data, learner, stage, position)
        stages.append(found)
        memory = max(memory, _memory(data.device))
    valid, test = len(data.rows["valid"]), len(data.rows["test"])
    return Forecast(stages, row_seconds * ((valid + test) * _views(data) + CANDIDATES * valid), memory)


def _views(data: TrainingData) -> int:
    """Views per evaluated row."""
    return 1 + getattr(getattr(data.params, "tta", None), "n_aug", 0)


def _stage(data: TrainingData, learner: Learner, stage: Stage, position: int) -> tuple[StageForecast, float]:
    """Forecast a stage, with the seconds per row through the whole network."""
    train, valid = (data.batches(position, split, {}) for split in ("train", "valid"))
    learner.prepare(stage, position, stage.lr or 1e-5)
    is_found = stage.lr is None and stage.lrs is None and not stage.regression
    unit = learner.base_lrs[-1] if is_found else 1.0
    trained = () if stage.regression else zip(learner.groups, learner.base_lrs, strict=True)
    row_seconds = _row_seconds(learner, learner.network, valid)
    rows, before, validation = len(data.rows["train"]), 0.0, row_seconds * len(valid)
    batch = torch.arange(min(len(train), train.batch_size))
    features = None
    if stage.precomputes:
        judged = len(data.rows["valid"]) + len(data.rows["test"])
        views = rows * (stage.precompute + (stage.views or 0)) + judged * _views(data)
        before += views * _row_seconds(learner, data.frozen_body(learner, position), valid)
        inputs, targets = train.gather(batch, None)
        with torch.no_grad():
            features = torch.cat([learner.network.body(part) for part in split_inputs(inputs, train.forward_size)])
        train, validation = copy.copy(train), 0.0
        train.precomputed = True
    learner.train_mode()

    def step() -> None:
        given = train.gather(batch, learner.generator) if features is None else (features, targets)
        learner.train_batch(*given, train)

    seconds, per_epoch = _median(step, learner.device), steps_per_epoch(rows, train.batch_size)
    if stage.find_lr:
        trains_body = stage.train != "head"
        steps, batch_size = sweep_lengths(data.params.finder, train.batch_size, per_epoch * stage.epochs, trains_body)
        before += seconds * SWEEPS * steps * batch_size / train.batch_size
        if train.precomputed and data.params.finder.trials:
            before += seconds * steps_of_trials(stage, rows, train.batch_size)
    found = StageForecast(
        stage.name,
        stage.cycles,
        stage.epochs,
        per_epoch * stage.epochs,
        {group.name: lr / unit for group, lr in trained},
        is_found,
        seconds,
        per_epoch * seconds + validation,
        before,
    )
    return found, row_seconds


def _row_seconds(learner: Learner, network: nn.Module, batches: Batches) -> float:
    """Seconds per row for a forward pass without gradients."""
    rows = torch.arange(min(len(batches), batches.forward_size))

    def run() -> None:
        with torch.no_grad(), learner.precision.autocast(training=False):
            network(batches.gather(rows, None)[0])

    network.eval()
    return _median(run, learner.device) / len(rows)


def _median(run: Callable[[], None], device: torch.device) -> float:
    times = []
    for _ in range(WARM_UP + MEASURED):
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[WARM_UP:])


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


def within(params: TrainingType, expected: Forecast, seconds: float) -> tuple[TrainingType, Forecast, list[str]]:
    """Shorten a training to a time budget, with a line for every stage that was cut.

    The longest stage loses its last cycle, repeatedly; a stage with a single cycle loses epochs instead. Work before
    and after stages is kept.

    Parameters
    ----------
    params
        With planned stages, see `unfreeze.models.training.schedules.planned`.
    expected
        Its forecast.
    seconds
        The budget.
    """
    recipe, stages = list(params.recipe), list(expected.stages)
    while Forecast(stages, expected.evaluation_seconds, 0).seconds > seconds:
        shrinkable = [place for place, stage in enumerate(recipe) if stage.epochs > 1]
        if not shrinkable:
            break
        place = max(shrinkable, key=lambda each: stages[each].epochs * stages[each].epoch_seconds)
        shorter, before = _shorter(recipe[place]), stages[place]
        steps = shorter.epochs * before.steps // before.epochs
        recipe[place], stages[place] = (
            shorter,
            replace(before, cycles=shorter.cycles, epochs=shorter.epochs, steps=steps),
        )
    cuts = [
        f"{before.name}: {after.epochs} of {before.epochs} epochs, {after.cycles} of {before.cycles} cycles"
        for before, after in zip(params.recipe, recipe, strict=True)
        if before.epochs != after.epochs
    ]
    shortened = params.model_copy(update={"recipe": recipe})
    return shortened, replace(expected, stages=stages), cuts


def _shorter(stage: Stage) -> Stage:
    if stage.cycles > 1:
        return stage.model_copy(update={"cycles": stage.cycles - 1})
    length = max(1, int(stage.cycle_len * 0.9))
    return stage.model_copy(update={"cycle_len": min(length, stage.cycle_len - 1), "cycle_steps": None})
