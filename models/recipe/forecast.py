"""Forecast a training's time and memory from a few timed steps per stage; shorten it to a time budget."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import psutil
import torch

from unfreeze.models.recipe.training_data import TrainingData
from unfreeze.models.settings import Stage
from unfreeze.models.training.finder import SWEEPS, sweep_lengths
from unfreeze.models.training.schedules import possible_epochs, steps_per_epoch

WARM_UP, MEASURED = 2, 6
"""Untimed runs (libraries pick their algorithms in them) and timed ones."""
CANDIDATES = 2
"""Final models that predict the validation rows with the whole network: as trained, and averaged."""


@dataclass(frozen=True)
class StageForecast:
    """Forecast of a stage that trains all of its cycles.

    Attributes
    ----------
    stage
        The stage, with its planned length.
    per_epoch
        Optimizer steps per epoch.
    lrs
        Layer group -> base lr; relative to the head's if `found`, that is if the finder will suggest the head's.
    step_seconds, epoch_seconds
        Time per step, and per epoch with its validation; 0 on precomputed activations, where a step takes milliseconds.
    before_seconds
        Time for precomputed activations and the finder.
    """

    stage: Stage
    per_epoch: int
    lrs: dict[str, float]
    found: bool
    step_seconds: float
    epoch_seconds: float
    before_seconds: float

    @property
    def seconds(self) -> float:
        """Time for the whole stage."""
        return self.before_seconds + self.stage.epochs * self.epoch_seconds


@dataclass(frozen=True)
class Forecast:
    """Forecast of a training.

    Attributes
    ----------
    evaluation_seconds
        Time for the final evaluations, with test-time augmentation; models other than the network are not counted.
    memory
        Bytes of the process, or peak bytes of an accelerator's tensors, while steps were timed.
    """

    stages: Sequence[StageForecast]
    evaluation_seconds: float
    memory: int

    @property
    def seconds(self) -> float:
        """Time for all stages and evaluations."""
        return sum(each.seconds for each in self.stages) + self.evaluation_seconds

    @property
    def most_seconds(self) -> float:
        """Time with all stages prolonged to their maximum."""
        more = ((possible_epochs(each.stage)[1] - each.stage.epochs) * each.epoch_seconds for each in self.stages)
        return self.seconds + sum(more)


def forecast(data: TrainingData) -> Forecast:
    """Time a few steps of every stage on real rows with a separate learner; the data are not changed."""
    learner, finder, counts = data.learner(), data.params.finder, {name: len(rows) for name, rows in data.rows.items()}
    views = 1 + getattr(getattr(data.params, "tta", None), "n_aug", 0)
    judged, forward, stages = (counts["valid"] + counts["test"]) * views, 0.0, list[StageForecast]()
    for position, stage in enumerate(data.params.recipe):
        train, valid = (data.batches(position, split, {}) for split in ("train", "valid"))
        learner.prepare(stage, position, stage.lr or 1e-5)
        found = stage.lr is None and stage.lrs is None and not stage.regression
        unit = learner.base_lrs[-1] if found else 1.0
        trained = () if stage.regression else zip(learner.groups, learner.base_lrs, strict=True)
        lrs = {group.name: lr / unit for group, lr in trained}
        per_epoch = steps_per_epoch(counts["train"], train.batch_size)
        network = data.frozen_body(learner, position) if stage.precomputes else learner.network.eval()
        rows, batch = (torch.arange(min(len(each), each.batch_size)) for each in (valid, train))

        @torch.no_grad()
        def predict() -> None:
            with learner.precision.autocast(training=False):
                network(valid.gather(rows, None)[0])  # noqa: B023

        def step() -> None:
            learner.train_batch(*train.gather(batch, learner.generator), train)  # noqa: B023

        forward, seconds, before = _median(predict, learner.device) / len(rows), 0.0, 0.0
        if stage.precomputes:
            before = forward * (counts["train"] * (stage.precompute + (stage.views or 0)) + judged)
        else:
            learner.train_mode()
            seconds = _median(step, learner.device)
            if stage.find_lr:
                whole = per_epoch * stage.epochs
                steps, size = sweep_lengths(finder, train.batch_size, whole, stage.train != "head")
                before = seconds * SWEEPS * steps * size / train.batch_size
        epoch = 0.0 if stage.precomputes else per_epoch * seconds + forward * counts["valid"]
        stages.append(StageForecast(stage, per_epoch, lrs, found, seconds, epoch, before))
    is_cuda = data.device.type == "cuda"
    memory = torch.cuda.max_memory_allocated(data.device) if is_cuda else psutil.Process().memory_info().rss
    return Forecast(stages, forward * (judged + CANDIDATES * counts["valid"]), int(memory))


def _median(run: Callable[[], None], device: torch.device) -> float:
    times = []
    for _ in range(WARM_UP + MEASURED):
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[WARM_UP:])


def within(expected: Forecast, seconds: float) -> Forecast:
    """Shorten a training to a time budget.

    The longest stage loses its last cycle, repeatedly; a stage with a single cycle loses epochs instead. Work before
    and after stages is kept.
    """
    stages = list(expected.stages)
    while replace(expected, stages=stages).seconds > seconds:
        shrinkable = [place for place, each in enumerate(stages) if each.stage.epochs > 1 and each.epoch_seconds]
        if not shrinkable:
            break
        place = max(shrinkable, key=lambda each: stages[each].stage.epochs * stages[each].epoch_seconds)
        stage = stages[place].stage
        length = min(max(1, int(stage.cycle_len * 0.9)), stage.cycle_len - 1)
        shorter = {"cycles": stage.cycles - 1} if stage.cycles > 1 else {"cycle_len": length, "cycle_steps": None}
        stages[place] = replace(stages[place], stage=stage.model_copy(update=shorter))
    return replace(expected, stages=stages)
