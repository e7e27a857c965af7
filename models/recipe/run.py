"""The recipe as a generator of steps; flow, command, notebook and sweep trial all drive `run_recipe`.

Each step is yielded before it runs: the driver decides where (in a Prefect task, in a cell) and what to keep.
``for step in run_recipe(data, workspace): step.run()`` is a whole training.
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
from unfreeze.models.recipe.selection import Compared, criterion_of, select_model
from unfreeze.models.recipe.state import Record, TrainingState
from unfreeze.models.recipe.training_data import Candidate, TrainingData
from unfreeze.models.settings import Stage
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.targets.temperature import calibrate
from unfreeze.models.training import loop, ranks
from unfreeze.models.training.checkpoints import restore
from unfreeze.models.training.finder import find_lr, try_lrs
from unfreeze.models.training.learner import Progress
from unfreeze.models.training.network import State
from unfreeze.models.training.schedules import cycle_at, cycle_ends, steps_per_epoch
from unfreeze.models.training.suggestions import LrCurve

LOWER = "start again with a lower learning rate"


@dataclass
class Step:
    """Step of a training, carried out by `run`."""

    state: TrainingState
    position: int
    title: ClassVar[str]
    """Name, with ``{}`` for the stage's."""

    @property
    def stage(self) -> Stage:
        """The step's stage."""
        stage: Stage = self.state.params.recipe[self.position]
        return stage

    @property
    def name(self) -> str:
        """Such as ``train head``."""
        return self.title.format(self.stage.name)

    def run(self) -> Any:
        """Carry out the step."""
        raise NotImplementedError


class Precompute(Step):
    """Precompute activations of the frozen body for every view that the stage reads."""

    title = "precompute activations for {}"

    def run(self) -> Mapping[tuple[str, int], Path]:
        """Return the files, see `unfreeze.models.recipe.training_data.Activations`."""
        return self.state.activations(self.position)


class Unfreeze(Step):
    """Make the body's layers trainable, with one lr per layer group."""

    title = "unfreeze for {}"

    def run(self) -> list[dict[str, Any]]:
        """Return a row per layer group: ``layer group``, ``trainable parameters``, ``lr relative to the head``."""
        self.state.begin()
        learner = self.state.learner
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
    """Run the learning-rate finder on the stage, then restore the weights."""

    title = "find lr for {}"

    def run(self) -> LrCurve:
        """Return the curve; its suggestions are kept in the record."""
        state, position = self.state, self.position
        train = state.data.batches(position, "train", state.activations(position))
        state.begin()
        state.learner.prepare(self.stage, position, 1.0)
        steps = self.stage.epochs * steps_per_epoch(len(train), train.batch_size)
        prior = state.data.lr_prior(self.stage)
        curve = find_lr(state.learner, train, state.params.finder, steps, prior)
        if train.precomputed and state.params.finder.trials:
            curve = replace(curve, trials=try_lrs(state.learner, train, self.stage, curve.read()[0]))
        curve = ranks.agree(curve)
        state.record.suggestions[position] = curve.suggestions()
        return curve


class Train(Step):
    """Run the training loop on the stage.

    Attributes
    ----------
    result
        Set by `run`: ``name``, ``lr``, ``epochs``, ``kept_epochs`` (up to the kept weights), ``steps``,
        ``train_loss``, validation ``metrics``, ``seconds``, and why it ``stopped``.
    """

    title = "train {}"
    result: dict[str, Any]

    @property
    def lr(self) -> float | None:
        """The head's lr; None if it is fitted by regression."""
        return None if self.stage.regression else self.state.record.lr(self.state.params, self.position)

    def run(self) -> Iterator[loop.Event]:
        """Train, yielding after every batch, epoch and cycle, see `unfreeze.models.training.loop.fit`."""
        began = time.monotonic()
        state, stage, learner = self.state, self.stage, self.state.learner
        if why := state.skips(self.position):
            before = state.record.results[self.position - 1]
            none = {"lr": self.lr, "epochs": 0, "kept_epochs": 0, "train_loss": None, "seconds": 0.0}
            self.result = {**before, **none, "steps": learner.progress.step, "name": stage.name, "stopped": why}
            state.record.results[self.position] = self.result
            return
        activations = state.activations(self.position)
        train, valid = (state.data.batches(self.position, split, activations) for split in ("train", "valid"))
        state.begin()
        learner.prepare(stage, self.position, self.lr or 0.0)
        if stage.regression:
            learner.network.head.load_state_dict(state.data.regressed_head(activations))
            learner.progress.stopped = "fitted by logistic regression"
        checkpoint, state.record.checkpoint = state.record.checkpoint, None
        if checkpoint is not None and checkpoint.stage == self.position:
            restore(learner, checkpoint)
        last: loop.Event | None = None
        for step in () if stage.regression else loop.fit(learner, stage, train, valid):
            last = step if step.kind == "epoch" else last
            yield step
        state.end()
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
        state.record.results[self.position] = self.result


def _kept_epochs(stage: Stage, progress: Progress) -> int:
    """Epochs up to the kept weights of a finished stage; with patience, to the end of its best cycle."""
    if stage.patience is None:
        return progress.epoch
    cycle, _ = cycle_at(progress.epoch - 1, stage.cycle_len, stage.cycle_mult)
    best = max(cycle - progress.cycles_since_best, 1)
    return cycle_ends(best, stage.cycle_len, stage.cycle_mult)[-1]


class SelectModel(Step):
    """Select the model to keep among the candidates, see `unfreeze.models.recipe.selection`.

    Attributes
    ----------
    kept
        Set by `run`: the model, with its predictions of the validation rows.
    """

    title = "choose the model to keep"
    kept: Compared

    def run(self, snapshots: Sequence[State] = (), report: Callable[[Compared], None] = lambda _: None) -> Findings:
        """Compare all candidates on the validation rows, each with its own temperature.

        Parameters
        ----------
        snapshots
            Weights at the ends of earlier cycles.
        report
            Called with each candidate as soon as its loss is known.
        """
        state, found = self.state, Findings()
        state.begin()
        data, learner, snapshots = state.data, state.learner, ranks.agree(snapshots)
        actual = data.actual("valid")
        compared: list[Compared] = []
        criterion = criterion_of(data.target, state.params.select)
        most = None if state.params.keep == "best" else 1
        last = learner.progress.stage  # before `self.position` if the last stages were skipped
        for candidate in islice(data.candidates(learner, last, state.activations, snapshots), most):
            predictions = data.predictions(learner, candidate, state.activations(candidate.position), "valid")
            fitted = calibrate(data.target, predictions, actual, data.blocks("valid"))
            candidate, predictions = replace(candidate, fitted=fitted), fitted.predictions
            compared.append(Compared(candidate, data.target.loss_of(predictions, actual), predictions))
            report(compared[-1])
            if candidate.ablated:
                trained = compared[0].predictions
                found.gains += gains(
                    candidate.ablated, data.comparison_metrics(), predictions, trained, actual, data.blocks("valid")
                )
        state.begin()
        found.add(data.cross_validation(state.activations, state.workspace))
        selection = select_model(compared, criterion, actual, data.blocks("valid"))
        if selection is None:
            raise loop.DivergedError("no model that the training could end with has a finite validation loss; " + LOWER)
        self.kept, state.chosen = selection.kept, selection.kept.candidate
        rows = []
        for each in compared:
            values = {"validation loss": each.loss, criterion.name: criterion.metric(each.predictions, actual)}
            shown = {name: f"{value:.4g}" for name, value in values.items() if name != "loss"}
            kept = "yes" if each is selection.kept else ""
            rows.append({"model": each.candidate.name, **shown, "kept": kept})
        title = f"Models by their {criterion.name} on {len(actual):,} validation rows: {selection.verdict}"
        found.table("choice", title, rows)
        for each in compared:
            slug = re.sub(r"[^a-z0-9]+", "_", each.candidate.name.lower()).strip("_")
            found.metrics[f"choice/{slug}"] = each.loss
        found.lines.append(selection.verdict)
        return found


@dataclass
class Evaluate(Step):
    """Evaluate ``baseline`` (the head alone, after its stage), or the kept model on ``valid`` or ``test``."""

    section: str

    @property
    def name(self) -> str:
        """Such as ``evaluate valid``."""
        return f"evaluate {self.section}"

    def run(self) -> Findings:
        """Return the findings; raises `DivergedError` if the kept model's loss is not finite."""
        state = self.state
        state.begin()
        alone = self.section == "baseline"
        candidate = Candidate(self.stage.name, [state.learner.state()], self.position) if alone else state.kept
        activations = state.activations(candidate.position)
        found, judged = state.data.evaluate(state.learner, candidate, activations, self.section)
        for name, value in found.metrics.items():
            is_loss = name.startswith(f"{self.section}/loss") and not name.endswith(("_low", "_high"))
            if not alone and is_loss and not math.isfinite(value):  # the ends are NaN if every resample is the same
                raise loop.DivergedError(f"{name} is not finite: the model is not registered; {LOWER}")
        if self.section == "valid":
            state.chosen = judged
        state.record.evaluated.add(self.section)
        return found


class Refit(Step):
    """Refit the kept model on training and validation rows, see `TrainingData.refitted`."""

    title = "refit the model on all rows"

    def run(self) -> Findings:
        """Refit the model, keep it, and report."""
        state = self.state
        state.begin()
        results = [state.record.results[position] for position in range(len(state.params.recipe))]
        rows = len(state.data.rows["train"]) + len(state.data.rows["valid"])
        name = state.kept.name
        state.chosen, what = state.data.refitted(state.kept, results, state.workspace)
        line = f"{name}: {what} refitted on all {rows:,} training and validation rows"
        return Findings(lines=[f"{line}; metrics of validation rows are of the model before"])


DoneBy = Callable[[Step], bool]


def run_recipe(
    data: TrainingData, workspace: Workspace, record: Record | None = None, done_by: DoneBy | None = None
) -> Iterator[Step]:
    """Yield the remaining steps of a training in order; run each before asking for the next.

    Parameters
    ----------
    data
        A spec bound to its data.
    workspace
        Where precomputed activations and shared stages are kept.
    record
        Finished parts; every step updates it.
    done_by
        Carries out or skips a step and returns True, or returns False to have it yielded. See
        `unfreeze.models.recipe.shared_stages.SharedStages.handles`.
    """
    for step in _steps(data, workspace, record or Record()):
        if done_by is None or not done_by(step):
            yield step


def _before_training(state: TrainingState, position: int) -> Iterator[Step]:
    stages, stage = state.params.recipe, state.params.recipe[position]
    if stage.precomputes:
        yield Precompute(state, position)
    if stage.train != "head" and (position == 0 or stages[position - 1].train != stage.train):
        yield Unfreeze(state, position)
    if stage.find_lr and position not in state.record.suggestions:
        yield FindLr(state, position)


def _steps(data: TrainingData, workspace: Workspace, record: Record) -> Iterator[Step]:
    state, stages = TrainingState(data, workspace, record), data.params.recipe
    for position, stage in enumerate(stages):
        if position not in record.results:
            if not state.skips(position):
                yield from _before_training(state, position)
            yield Train(state, position)
        is_head = stage.train == "head" and stages[min(position + 1, len(stages) - 1)].train != "head"
        if is_head and data.evaluates_head_alone:
            state.keep_head()
            if "baseline" not in record.evaluated:
                yield Evaluate(state, position, "baseline")
    yield SelectModel(state, len(stages) - 1)
    last = len(stages) - 1
    if len(data.rows["valid"]) and "valid" not in record.evaluated:
        yield Evaluate(state, last, "valid")
    if data.refits(state.kept) and all("kept_epochs" in record.results[each] for each in range(len(stages))):
        yield Refit(state, last)
    if len(data.rows["test"]) and "test" not in record.evaluated:
        yield Evaluate(state, last, "test")
