"""The recipe as a generator of steps; flow, command, notebook and sweep trial all drive `run_recipe`.

Steps are yielded before they are done, so that the driver decides where each one runs (in a Prefect task, in a cell)
and what is kept of it: ``for step in run_recipe(data, workspace): step.run()`` is a whole training.
"""

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from unfreeze.models.evaluation.intervals import gains
from unfreeze.models.evaluation.results import Findings
from unfreeze.models.recipe.selection import Compared, choose_model, judge_of
from unfreeze.models.recipe.state import Course, Record
from unfreeze.models.recipe.training_data import Candidate, TrainingData
from unfreeze.models.settings import Stage
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.targets.temperature import calibrate
from unfreeze.models.training import loop
from unfreeze.models.training.checkpoints import (
    restore,
)
from unfreeze.models.training.finder import find_lr
from unfreeze.models.training.learner import Progress
from unfreeze.models.training.lengths import steps_per_epoch
from unfreeze.models.training.network import State
from unfreeze.models.training.schedules import cycle_at, cycle_ends
from unfreeze.models.training.suggestions import LrCurve
from unfreeze.models.training.trials import try_lrs

LOWER = "start again with a lower learning rate"


@dataclass
class Step:
    """A step that is to be done; `run` does it."""

    course: Course
    position: int
    verb: ClassVar[str]

    @property
    def stage(self) -> Stage:
        """The stage that the step is part of."""
        stage: Stage = self.course.params.recipe[self.position]
        return stage

    @property
    def name(self) -> str:
        """Such as ``train head``."""
        return f"{self.verb} {self.stage.name}"

    def run(self) -> Any:
        """Do it."""
        raise NotImplementedError


class Precompute(Step):
    """Activations of the frozen body, once for every view that the stage reads."""

    verb = "precompute activations for"

    def run(self) -> Mapping[tuple[str, int], Path]:
        """The files, see `unfreeze.models.recipe.modality.Activations`."""
        return self.course.activations(self.position)


class Unfreeze(Step):
    """Layers of the body become trainable, each layer group with an lr of its own."""

    verb = "unfreeze for"

    def run(self) -> list[dict[str, Any]]:
        """A row per layer group: ``layer group``, ``trainable parameters``, ``lr relative to the head``."""
        self.course.begin()
        learner = self.course.learner
        learner.prepare(self.stage, self.position, 1.0)
        parameters = dict(learner.network.named_parameters())
        return [
            {
                "layer group": group.name,
                "trainable parameters": sum(
                    parameters[name].numel() for name in group.parameters if parameters[name].requires_grad
                ),
                "lr relative to the head": f"{lr / learner.base_lrs[-1]:.3g}",
            }
            for group, lr in zip(learner.groups, learner.base_lrs, strict=True)
        ]


class FindLr(Step):
    """The learning-rate finder on the stage, weights put back afterwards."""

    verb = "find lr for"

    def run(self) -> LrCurve:
        """The curve; its suggestions are kept in the record."""
        course, position = self.course, self.position
        train = course.data.batches(position, "train", course.activations(position))
        course.begin()
        course.learner.prepare(self.stage, position, 1.0)
        steps = self.stage.epochs * steps_per_epoch(len(train), train.batch_size)
        prior = course.data.lr_prior(self.stage)
        curve = find_lr(course.learner, train, course.params.finder, steps, prior)
        if train.precomputed and course.params.finder.trials:
            curve = replace(curve, trials=try_lrs(course.learner, train, self.stage, curve.read()[0]))
        course.record.suggestions[position] = curve.suggestions()
        return curve


class Train(Step):
    """The training loop on the stage.

    Attributes
    ----------
    result
        Once it is over: ``name``, ``lr``, ``epochs``, ``kept_epochs`` (until the weights that it ended with),
        ``steps``, ``train_loss``, validation ``metrics``, ``seconds``, and why it ``stopped``.
    """

    verb = "train"
    result: dict[str, Any]

    @property
    def lr(self) -> float | None:
        """Of the head; None of one that is fitted by regression."""
        return None if self.stage.regression else self.course.record.lr(self.course.params, self.position)

    def run(self) -> Iterator[loop.Step]:
        """Train; yields after every batch, epoch and cycle, see `unfreeze.models.training.loop.fit`."""
        began = time.monotonic()
        course, stage, learner = self.course, self.stage, self.course.learner
        if why := course.skips(self.position):
            before = course.record.results[self.position - 1]
            none = {
                "lr": self.lr,
                "epochs": 0,
                "kept_epochs": 0,
                "steps": learner.progress.step,
                "train_loss": None,
                "seconds": 0.0,
            }
            self.result = {**before, **none, "name": stage.name, "stopped": why}
            course.record.results[self.position] = self.result
            return
        activations = course.activations(self.position)
        train, valid = (course.data.batches(self.position, split, activations) for split in ("train", "valid"))
        course.begin()
        learner.prepare(stage, self.position, self.lr or 0.0)
        if stage.regression:
            learner.network.head.load_state_dict(course.data.regressed_head(activations))
            learner.progress.stopped = "fitted by logistic regression"
        checkpoint, course.record.checkpoint = course.record.checkpoint, None
        if checkpoint is not None and checkpoint.stage == self.position:
            restore(learner, checkpoint)
        last: loop.Step | None = None
        for step in () if stage.regression else loop.fit(learner, stage, train, valid):
            last = step if step.kind == "epoch" else last
            yield step
        course.end()
        restored = last is None or stage.patience is not None
        self.result = {
            "name": stage.name,
            "lr": self.lr,
            "epochs": learner.progress.epoch,
            "kept_epochs": _kept_epochs(stage, learner.progress),
            "steps": learner.progress.step,
            "train_loss": float(last.loss) if last else None,
            "metrics": learner.validate(valid) if restored or last is None else last.metrics,
            "seconds": round(time.monotonic() - began, 2),
            "stopped": learner.progress.stopped,
        }
        course.record.results[self.position] = self.result


def _kept_epochs(stage: Stage, progress: Progress) -> int:
    """Epochs of a stage that is over until the weights that it ended with: with patience those of its best cycle."""
    if stage.patience is None:
        return progress.epoch
    cycle, _ = cycle_at(progress.epoch - 1, stage.cycle_len, stage.cycle_mult)
    best = max(cycle - progress.cycles_since_best, 1)
    return cycle_ends(best, stage.cycle_len, stage.cycle_mult)[-1]


class Choose(Step):
    """Which of the models that the training can end with is kept: see `unfreeze.models.recipe.selection`.

    Attributes
    ----------
    kept
        Once it is over: the model, with its predictions of the validation rows.
    """

    verb = "choose"
    kept: Compared

    @property
    def name(self) -> str:
        """For people."""
        return "choose the model to keep"

    def run(self, snapshots: Sequence[State] = (), report: Callable[[Compared], None] = lambda _: None) -> Findings:
        """Compare all candidates on the validation rows, each after its own temperature.

        Parameters
        ----------
        snapshots
            Weights at the ends of earlier cycles.
        report
            Called with each candidate as soon as its loss is known.
        """
        course, found = self.course, Findings()
        course.begin()
        data, learner = course.data, course.learner
        actual = data.actual("valid")
        compared: list[Compared] = []
        judge = judge_of(data.target, course.params.select)
        most = None if course.params.keep == "best" else 1
        last = learner.progress.stage  # not that of this step where the last stages were skipped
        for candidate in islice(data.candidates(learner, last, course.activations, snapshots), most):
            predictions = data.predictions(learner, candidate, course.activations(candidate.position), "valid")
            fitted = calibrate(data.target, predictions, actual, data.blocks("valid"))
            candidate, predictions = replace(candidate, fitted=fitted), fitted.predictions
            compared.append(Compared(candidate, data.target.loss_of(predictions, actual), predictions))
            report(compared[-1])
            if candidate.lacks:
                trained = compared[0].predictions
                found.gains += gains(candidate.lacks, data.judges(), predictions, trained, actual, data.blocks("valid"))
        course.begin()
        found.add(data.cross_validation(course.activations, course.workspace))
        choice = choose_model(compared, judge, actual, data.blocks("valid"))
        if choice is None:
            raise loop.DivergedError("no model that the training could end with has a finite validation loss; " + LOWER)
        self.kept, course.chosen = choice.kept, choice.kept.candidate
        rows = [
            {
                "model": each.candidate.name,
                "validation loss": f"{each.loss:.4g}",
                **({} if judge.name == "loss" else {judge.name: f"{judge.metric(each.predictions, actual):.4g}"}),
                "kept": "yes" if each is choice.kept else "",
            }
            for each in compared
        ]
        title = f"Models by their {judge.name} on {len(actual):,} validation rows: {choice.verdict}"
        found.table("choice", title, rows)
        found.metrics |= {f"choice/{_slug(each.candidate.name)}": each.loss for each in compared}
        found.lines.append(choice.verdict)
        return found


def _slug(name: str) -> str:
    """A name as a metric's: letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


@dataclass
class Evaluate(Step):
    """Evaluation: ``baseline`` (the head alone, after its stage), ``valid`` or ``test`` (the model that is kept)."""

    section: str
    verb = "evaluate"

    @property
    def name(self) -> str:
        """Such as ``evaluate valid``."""
        return f"{self.verb} {self.section}"

    def run(self) -> Findings:
        """The findings; a `DivergedError` if the loss of the model that is kept is not finite."""
        course = self.course
        course.begin()
        alone = self.section == "baseline"
        candidate = Candidate(self.stage.name, [course.learner.state()], self.position) if alone else course.kept
        activations = course.activations(candidate.position)
        found, judged = course.data.evaluate(course.learner, candidate, activations, self.section)
        if not alone:
            _require_finite(found.metrics, f"{self.section}/loss")
        if self.section == "valid":
            course.chosen = judged
        course.record.evaluated.add(self.section)
        return found


class Refit(Step):
    """The model that is kept, fitted on training and validation rows: see `TrainingData.refitted`."""

    verb = "refit"

    @property
    def name(self) -> str:
        """For people."""
        return "refit the model on all rows"

    def run(self) -> Findings:
        """What is said of it; the model that is kept is another one afterwards."""
        course = self.course
        course.begin()
        results = [course.record.results[position] for position in range(len(course.params.recipe))]
        rows = len(course.data.rows["train"]) + len(course.data.rows["valid"])
        name = course.kept.name
        course.chosen, what = course.data.refitted(course.kept, results, course.workspace)
        line = (
            f"{name}: {what} refitted on all {rows:,} training and validation rows; metrics of validation rows are of"
        )
        return Findings(lines=[f"{line} the model before"])


def _require_finite(metrics: Mapping[str, float], prefix: str) -> None:
    for name, value in metrics.items():
        if name.startswith(prefix) and not math.isfinite(value):
            raise loop.DivergedError(f"{name} is not finite: the model is not registered; {LOWER}")


DoneBy = Callable[[Step], bool]


def run_recipe(
    data: TrainingData, workspace: Workspace, record: Record | None = None, done_by: DoneBy | None = None
) -> Iterator[Step]:
    """The steps of a training that are not done yet, in order; each must be run before the next is asked for.

    Parameters
    ----------
    data
        A spec bound to its data.
    workspace
        Where precomputed activations and shared stages are kept.
    record
        What is done already; it is updated by every step.
    done_by
        Whether a step is done by someone else, who then does it before answering: such steps are not yielded. See
        `unfreeze.models.recipe.shared_stages.SharedStages.takes`.
    """
    for step in _steps(data, workspace, record or Record()):
        if done_by is None or not done_by(step):
            yield step


def _before_training(course: Course, position: int) -> Iterator[Step]:
    stages, stage = course.params.recipe, course.params.recipe[position]
    if stage.precomputes:
        yield Precompute(course, position)
    if stage.train != "head" and (position == 0 or stages[position - 1].train != stage.train):
        yield Unfreeze(course, position)
    if stage.find_lr and position not in course.record.suggestions:
        yield FindLr(course, position)


def _steps(data: TrainingData, workspace: Workspace, record: Record) -> Iterator[Step]:
    course, stages = Course(data, workspace, record), data.params.recipe
    for position, stage in enumerate(stages):
        if position not in record.results:
            if not course.skips(position):
                yield from _before_training(course, position)
            yield Train(course, position)
        is_head = stage.train == "head" and stages[min(position + 1, len(stages) - 1)].train != "head"
        if is_head and data.evaluates_head_alone:
            course.keep_head()
            if "baseline" not in record.evaluated:
                yield Evaluate(course, position, "baseline")
    yield Choose(course, len(stages) - 1)
    last = len(stages) - 1
    if len(data.rows["valid"]) and "valid" not in record.evaluated:
        yield Evaluate(course, last, "valid")
    if data.refits(course.kept) and all("kept_epochs" in record.results[each] for each in range(len(stages))):
        yield Refit(course, last)
    if len(data.rows["test"]) and "test" not in record.evaluated:
        yield Evaluate(course, last, "test")
