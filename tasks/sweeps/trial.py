"""One trial of a sweep: train its own stages, prune it, track it as a child run."""

import gc
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from optuna import TrialPruned
from optuna.trial import Trial

from unfreeze.models.reading.sampling import sample_rows
from unfreeze.models.recipe.modality import bind, modality_of
from unfreeze.models.recipe.run import SelectModel, Train, run_recipe
from unfreeze.models.recipe.shared_stages import SharedStages
from unfreeze.models.recipe.training_data import Prepared, TrainingData
from unfreeze.models.settings import Training
from unfreeze.models.settings.search import SweepSpec, Value, shared_stages, trial_spec
from unfreeze.models.store.workspace import key_of
from unfreeze.models.training.checkpoints import save_checkpoint
from unfreeze.models.training.loop import DivergedError
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.notices import log_info
from unfreeze.tasks.steps.workspace import FlowWorkspace, as_task
from unfreeze.tasks.sweeps.study import KEPT, LOSSES, is_among_best, suggest

RUN, HAS_WEIGHTS = "mlflow_run", "has_weights"
"""Attributes of a trial: the key of its MLflow run; whether its weights were stored."""
MOST_LOSSES = 1000


class TrialRunner:
    """Run the trials of one sweep in this process.

    Parameters
    ----------
    search, training
        The search space, and the training to vary.
    parent
        Key of the sweep's run.
    """

    def __init__(self, search: SweepSpec, training: Training, parent: str) -> None:
        self.search, self.training, self.parent = search, training, parent
        self.shared = shared_stages(search, training)
        self._known: dict[str, Prepared] = {}
        gc.freeze()  # keeps a million objects of imported modules out of the collection after each trial

    def objective(self, trial: Trial) -> tuple[float, ...]:
        """Run a trial in a Prefect task with a readable name; returns its objective values."""
        values = suggest(trial, self.search, self.training)
        results = as_task(f"trial {trial.number}: {in_words(values)}", lambda: self.run(trial, values))
        if results is None:
            raise TrialPruned
        return tuple(results)

    def run(self, trial: Trial, values: dict[str, Value]) -> list[float] | None:
        """Train with `values`; returns the objectives' means over the repeats, None if pruned.

        The MLflow child run ends FINISHED, KILLED (pruned or stopped) or FAILED.
        """
        spec = trial_spec(self.training, values)
        tags = {"unfreeze.kind": "trial", "unfreeze.trial": str(trial.number)}
        if rule := trial.user_attrs.get("rule"):
            tags["unfreeze.rule"] = rule
        with tracking.part_of_run(self.parent, f"trial {trial.number}", values, tags) as key:
            for name, value in {RUN: key, "prefix_builds": 0}.items():  # replaces those of a dead attempt
                trial.set_user_attr(name, value)
            tracking.log_spec(key, spec.model_dump(mode="json"))
            status: tracking.RunStatus = "KILLED"
            try:
                results = self._repeat(trial, spec, key)
                status = "FINISHED" if results is not None else "KILLED"
                return results
            except DivergedError as error:  # pruned, so that the sampler avoids such values
                log_info(str(error))
                return None
            except Exception:
                status = "FAILED"
                raise
            finally:
                gc.collect()  # the network and its optimizer refer to each other
                tracking.log_metrics(key, {"memory_mb": psutil.Process().memory_info().rss / 2**20}, 0)
                tracking.close_run(key, status)

    def _repeat(self, trial: Trial, spec: Any, run_id: str) -> list[float] | None:
        results: list[list[float]] = []
        with tempfile.TemporaryDirectory() as folder, tracking.MetricLog(run_id) as log:
            checkpoint = Path(folder) / "last.safetensors"
            for repeat in range(self.search.repeats):
                seeded = spec.model_copy(update={"seed": spec.seed + repeat})
                metrics = self._train(trial, seeded, log, repeat, None if repeat else checkpoint)
                if metrics is None:
                    return None
                results.append([metrics[objective] for objective in self.search.objectives])
                if self.search.repeats > 1:
                    trial.set_user_attr("repeats", [each[0] for each in results])
                    if self._hopeless(trial, results[-1][0], repeat) and repeat + 1 < self.search.repeats:
                        return None
            means = [float(mean) for mean in np.mean(results, axis=0)]
            log.log(dict(zip([f"mean/{name}" for name in self.search.objectives], means, strict=True)), 0)
            if is_among_best(trial.study, tuple(means)):
                tracking.save_checkpoint(run_id, lambda path: shutil.copyfile(checkpoint, path))
                trial.set_user_attr(HAS_WEIGHTS, True)
        return means

    def _train(
        self, trial: Trial, spec: Any, log: tracking.MetricLog, repeat: int, checkpoint: Path | None
    ) -> dict[str, float] | None:
        """Loss, metrics and ``seconds`` of one training; None if the pruner stopped it."""
        workspace = FlowWorkspace()
        data = bind(spec, self._prepared(spec, workspace))
        settings = spec.model_dump(include={"model", "augment", "optimizer", "seed"})
        section = f"seed-{spec.seed}/" if repeat else ""
        epochs, seconds, metrics = 0, 0.0, dict[str, float]()
        prunes = self.search.repeats == 1 and not data.judged_as_kept
        for step in run_recipe(data, workspace, done_by=SharedStages(self.shared, settings).handles):
            if isinstance(step, SelectModel) and data.judged_as_kept:
                began = time.monotonic()
                metrics = self._judge(trial, step, data)
                seconds += time.monotonic() - began
                log.log(_named(f"{section}kept", metrics), step.state.learner.progress.step + 1)
            if not isinstance(step, Train):
                break  # evaluations, which come last
            for event in step.run():
                log.log_event(event, section)
                if event.kind == "epoch":
                    epochs += 1
                    value = event.metrics.get(self.search.objectives[0])
                    if prunes and self._hopeless(trial, value, epochs):
                        _count_prefix(trial, step.state.built)
                        return None
            metrics, seconds = step.result["metrics"], seconds + step.result["seconds"]
            if step.stage.patience is not None:  # the best weights have been restored
                log.log(_named(f"{section}valid", metrics), step.state.learner.progress.step + 1)
            if checkpoint is not None:
                save_checkpoint(step.state.learner, checkpoint)
        _count_prefix(trial, step.state.built)
        return {**metrics, "seconds": seconds}

    def _judge(self, trial: Trial, step: SelectModel, data: TrainingData) -> dict[str, float]:
        """Loss and metrics of the model that the training would keep; stores its name and losses with the trial."""
        step.run()
        kept, actual = step.kept, data.actual("valid")
        trial.set_user_attr(KEPT, kept.candidate.name)
        if self.search.repeats == 1:
            trial.set_user_attr(LOSSES, _losses(data, kept.predictions, actual))
        metrics = {name: metric(kept.predictions, actual) for name, metric in step.state.learner.metrics.items()}
        return {**metrics, "loss": kept.loss}

    def _prepared(self, spec: Training, workspace: FlowWorkspace) -> Prepared:
        """The trial's data, listed and hashed once per worker, since a sweep uses one state of the data."""
        network = [getattr(spec.model, name, None) for name in ("backbone", "weights")]
        key = key_of(spec.data.model_dump(mode="json"), [stage.size for stage in spec.recipe], network)
        if key not in self._known:
            self._known[key] = modality_of(spec).prepare(spec, workspace)
        return self._known[key]

    def _hopeless(self, trial: Trial, value: float | None, step: int) -> bool:
        if len(self.search.objectives) > 1 or value is None:
            return False
        trial.report(value, step)
        # Rules of thumb always run to completion, because the others are compared with them.
        return "rule" not in trial.user_attrs and trial.should_prune()


def in_words(values: Mapping[str, Any]) -> str:
    """Format values by name, floats to four digits."""
    texts = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in values.items()}
    return ", ".join(f"{name} {text}" for name, text in texts.items())


def _losses(data: TrainingData, predictions: np.ndarray, actual: np.ndarray) -> list[float]:
    """Losses of at most `MOST_LOSSES` validation rows, or their block means; the same rows in every trial."""
    rows = sample_rows(np.arange(len(actual)), MOST_LOSSES)
    losses = pd.Series([data.target.loss_of(predictions[[row]], actual[[row]]) for row in rows])
    if (weights := data.target.class_weights) is not None:
        losses *= weights[actual[rows]] / weights[actual[rows]].mean()
    blocks = data.blocks("valid")
    if blocks is not None:
        losses = losses.groupby(blocks[rows]).mean()
    return [float(f"{loss:.6g}") for loss in losses]


def _count_prefix(trial: Trial, builds: int) -> None:
    """Count a shared prefix once, regardless of its number of files."""
    if builds:
        trial.set_user_attr("prefix_builds", int(trial.user_attrs.get("prefix_builds", 0)) + 1)


def _named(section: str, values: dict[str, float]) -> dict[str, float]:
    return tracking.as_float({f"{section}/{name}": value for name, value in values.items()})
