"""What a training will take, measured by a few steps of every stage; and what of it a budget allows."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import psutil
import torch
from torch import nn

from unfreeze.models.recipe.training_data import TrainingData
from unfreeze.models.settings import Stage, Training
from unfreeze.models.training.batches import Batches, Inputs, split_inputs
from unfreeze.models.training.finder import FEWEST_STEPS, SHARE, SMALLER, SWEEPS
from unfreeze.models.training.learner import Learner
from unfreeze.models.training.lengths import steps_per_epoch
from unfreeze.models.training.trials import steps_of_trials

WARM_UP, MEASURED = 2, 6
"""Steps of a stage that are not timed (libraries choose their ways meanwhile), and those that are."""
JUDGED = 2
"""Candidates at the end whose whole network sees the validation rows: the network as trained, and its mean."""
TrainingType = TypeVar("TrainingType", bound=Training)


@dataclass(frozen=True)
class StageForecast:
    """What a stage will take if it trains all of its cycles.

    Attributes
    ----------
    steps
        Of the optimizer.
    lrs
        Layer group -> base lr; relative to the head's if `found`.
    found
        Whether the finder will suggest the head's lr.
    step_seconds, epoch_seconds
        Of a step; of an epoch with its validation.
    before_seconds
        Of what comes first: precomputed activations and the finder.
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
        """Of the whole stage."""
        return self.before_seconds + self.epochs * self.epoch_seconds


@dataclass(frozen=True)
class Forecast:
    """What a training will take.

    Attributes
    ----------
    evaluation_seconds
        Of the evaluations at its end and of the head alone, with test-time augmentation, and of fitting the models
        that the network is compared with.
    memory
        Most bytes that the process, or on an accelerator its tensors, took while the steps were measured.
    """

    stages: Sequence[StageForecast]
    evaluation_seconds: float
    memory: int

    @property
    def seconds(self) -> float:
        """Of all stages and evaluations."""
        return sum(stage.seconds for stage in self.stages) + self.evaluation_seconds


@dataclass
class _Held:
    """Batches of the head's inputs, held in memory: as precomputed activations, for the time of a step."""

    inputs: torch.Tensor
    targets: torch.Tensor
    batch_size: int
    forward_size: int
    precomputed: bool = field(default=True, init=False)
    epoch: int = field(default=0, init=False)

    def __len__(self) -> int:
        return len(self.inputs)

    def gather(self, rows: torch.Tensor, generator: torch.Generator | None) -> tuple[Inputs, torch.Tensor]:
        return self.inputs[rows], self.targets[rows]


def forecast(data: TrainingData) -> Forecast:
    """Measure a few steps of every stage on real rows; nothing of it is kept, and the data are as before."""
    learner, stages, passes = data.learner(), [], 0.0
    if data.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(data.device)
    memory = _memory(data.device)
    for position, stage in enumerate(data.params.recipe):
        found, passes = _stage(data, learner, stage, position)
        stages.append(found)
        memory = max(memory, _memory(data.device))
    views = 1 + getattr(getattr(data.params, "tta", None), "n_aug", 0)
    judged = len(data.rows["valid"]) + len(data.rows["test"])
    evaluation = (judged * views + JUDGED * len(data.rows["valid"])) * passes
    return Forecast(stages, evaluation + data.other_models_seconds(), memory)


def _stage(data: TrainingData, learner: Learner, stage: Stage, position: int) -> tuple[StageForecast, float]:
    """A stage's forecast, and seconds that a row takes through the whole network."""
    rows, splits = len(data.rows["train"]), ("train", "valid", "test")
    train, valid = (data.batches(position, split, {}) for split in splits[:2])
    learner.prepare(stage, position, stage.lr or 1e-5)
    is_found = stage.lr is None and stage.lrs is None and not stage.regression
    trained = zip(learner.groups, learner.base_lrs, strict=True) if not stage.regression else ()
    lrs = {group.name: lr for group, lr in trained}
    if is_found:
        lrs = {name: lr / learner.base_lrs[-1] for name, lr in lrs.items()}
    per_row = _pass_seconds(learner, learner.network, valid)
    steps, before, validation = steps_per_epoch(rows, train.batch_size), 0.0, per_row * len(valid)
    if stage.precomputes:
        body = _pass_seconds(learner, data.frozen_body(learner, position), valid)
        views = 1 + getattr(getattr(data.params, "tta", None), "n_aug", 0)
        judged = sum(len(data.rows[split]) for split in splits[1:])
        before += body * (rows * (stage.precompute + (stage.views or 0)) + judged * views)
        train, validation = _precomputed(learner, train), 0.0
    seconds = _step_seconds(learner, train)
    if stage.find_lr:
        before += seconds * _finder_steps(data.params.finder.steps, stage, steps)
        if train.precomputed and data.params.finder.trials:
            before += seconds * steps_of_trials(stage, rows, train.batch_size)
    per_epoch = steps * seconds + validation
    found = StageForecast(
        stage.name, stage.cycles, stage.epochs, steps * stage.epochs, lrs, is_found, seconds, per_epoch, before
    )
    return found, per_row


def _finder_steps(wanted: int, stage: Stage, per_epoch: int) -> float:
    """What the finder's steps come to in steps of the stage: where the body is trained its batches are smaller."""
    if stage.train == "head":
        return wanted
    least = SWEEPS * FEWEST_STEPS
    return max(least, min(wanted, SMALLER * SHARE * per_epoch * stage.epochs)) / SMALLER


def _pass_seconds(learner: Learner, network: nn.Module, batches: Batches) -> float:
    """Seconds of a row through a network, without gradients."""
    rows = torch.arange(min(len(batches), batches.forward_size))

    def run() -> None:
        with torch.no_grad(), learner.precision.autocast(training=False):
            network(batches.gather(rows, None)[0])

    network.eval()
    return _median(run, learner.device) / len(rows)


def _precomputed(learner: Learner, train: Batches) -> _Held:
    rows = torch.arange(min(len(train), train.batch_size))
    inputs, targets = train.gather(rows, None)
    learner.network.eval()
    with torch.no_grad():
        features = torch.cat([learner.network.body(part) for part in split_inputs(inputs, train.forward_size)])
    return _Held(features, targets, train.batch_size, train.forward_size)


def _step_seconds(learner: Learner, train: Batches) -> float:
    rows = torch.arange(min(len(train), train.batch_size))
    learner.train_mode()

    def run() -> None:
        inputs, targets = train.gather(rows, learner.generator)
        learner.train_batch(inputs, targets, train)

    return _median(run, learner.device)


def _median(run: Callable[[], None], device: torch.device) -> float:
    times = []
    for number in range(WARM_UP + MEASURED):
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number >= WARM_UP:
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


def within(params: TrainingType, expected: Forecast, seconds: float) -> tuple[TrainingType, Forecast, list[str]]:
    """The training with as many cycles and epochs taken away as a budget needs; what was cut, in words.

    The stage that takes longest loses its last cycle, again and again; of stages with one cycle each the longest loses
    epochs. What comes before stages and after them stays.

    Parameters
    ----------
    params
        With planned stages, see `unfreeze.models.training.lengths.planned`.
    expected
        Its forecast.
    seconds
        The budget.
    """
    recipe, cuts = list(params.recipe), []
    stages = list(expected.stages)
    while Forecast(stages, expected.evaluation_seconds, 0).seconds > seconds:
        shrinkable = [place for place, stage in enumerate(recipe) if stage.epochs > 1]
        if not shrinkable:
            break
        place = max(shrinkable, key=lambda each: stages[each].epochs * stages[each].epoch_seconds)
        recipe[place] = _shorter(recipe[place])
        epochs, per_epoch = recipe[place].epochs, stages[place].steps // stages[place].epochs
        changed = {"cycles": recipe[place].cycles, "epochs": epochs, "steps": epochs * per_epoch}
        stages[place] = StageForecast(**{**vars(stages[place]), **changed})
    for before, after in zip(params.recipe, recipe, strict=True):
        if before.epochs != after.epochs:
            cuts.append(
                f"{before.name}: {after.epochs} of {before.epochs} epochs, {after.cycles} of {before.cycles} cycles"
            )
    shortened = params.model_copy(update={"recipe": recipe})
    return shortened, Forecast(stages, expected.evaluation_seconds, expected.memory), cuts


def _shorter(stage: Stage) -> Stage:
    if stage.cycles > 1:
        return stage.model_copy(update={"cycles": stage.cycles - 1})
    length = max(1, int(stage.cycle_len * 0.9))
    return stage.model_copy(update={"cycle_len": min(length, stage.cycle_len - 1), "cycle_steps": None})
