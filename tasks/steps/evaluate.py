"""Steps around the training: describe its inputs; choose, evaluate and register the model."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.results import Findings
from unfreeze.models.recipe.modality import modality_of
from unfreeze.models.recipe.run import Evaluate, Refit, SelectModel
from unfreeze.models.recipe.selection import Compared
from unfreeze.models.recipe.training_data import Candidate, TrainingData
from unfreeze.models.store.sealed_files import CHECKSUMS, checksum
from unfreeze.models.training.checkpoints import load_checkpoint
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.notices import log_info
from unfreeze.tasks.report.findings import keep_findings
from unfreeze.tasks.steps.train_stage import cycle_checkpoint
from unfreeze.tasks.steps.workspace import as_task
from unfreeze.tasks.tracking.folder import CHECKPOINTS
from unfreeze.tasks.tracking.training_run import MODEL_DIGEST, REFITTED, Run

REFERENCE = "data/reference.feather"
"""Artifact of a training: reference for the drift of later data, see `TrainingData.reference`."""


def describe(data: TrainingData, run_id: str) -> None:
    """Log the run's inputs once: data set with digest, rejected rows, model summary, drift reference.

    Raises
    ------
    UserError
        If the run is resumed and its data have changed.
    """

    def described() -> None:
        source, prepared = data.params.data.source, data.prepared
        known = tracking.tags_of(run_id).get("data.digest")
        if known == prepared.digest:
            return
        if known is not None:
            raise UserError(
                f"{source}: the data or their split changed since run {run_id} was started; put them back, or start a "
                "new run"
            )
        tracking.log_data_set(run_id, Path(source).name or source, prepared.digest, source, prepared.splits)
        tracking.log_file(run_id, data.kept_file, "data")
        keep_findings(run_id, data.describe(), "data")
        tracking.log_frame(run_id, data.reference(), REFERENCE)
        # Last: a run killed during this step repeats it.
        rows = str(sum(prepared.splits.values()))
        tags = {"data.digest": prepared.digest, tracking.FINGERPRINT: prepared.fingerprint, "data.rows": rows}
        tracking.log_tags(run_id, {**tags, **data.tags()})

    as_task("describe data and network", described)


def choose(run: Run, step: SelectModel) -> dict[str, float]:
    """Compare the training's candidate models, and keep the best on the validation rows."""

    def log_loss(compared: Compared) -> None:
        log_info(f"{compared.candidate.name}: validation loss {compared.loss:.4g}")

    def chosen() -> dict[str, float]:
        found = step.run(_snapshots(run, step.state.data), log_loss)
        return keep_findings(run.id, found, "choice", step.state.learner.progress.step)

    return as_task(step.name, chosen)


def evaluate(run: Run, step: Evaluate) -> Callable[[], object]:
    """Evaluate a model on all rows of a split and log its metrics; returns a function that logs the other findings.

    Call it after the model is registered. The metrics have the step after the training's last, whose epoch logged some
    of the same names.
    """

    def evaluated() -> Findings:
        found = step.run()
        metrics, found.metrics = tracking.as_float(found.metrics), {}
        tracking.log_metrics(run.id, metrics, step.state.learner.progress.step + 1)
        if step.section == "valid":  # these rows decided how the model predicts
            tracking.log_tags(run.id, {"unfreeze.kept": step.state.kept.title})
        run.metrics |= metrics
        return found

    found = as_task(step.name, evaluated)
    return lambda: as_task(f"show {step.section}", lambda: keep_findings(run.id, found, step.section))


def refit(run: Run, step: Refit) -> dict[str, float]:
    """Refit the selected model on training and validation rows."""

    def refitted() -> dict[str, float]:
        found = step.run()
        tracking.log_tags(run.id, {REFITTED: found.lines[0]})
        return keep_findings(run.id, found, "refit", step.state.learner.progress.step)

    return as_task(step.name, refitted)


def register(run: Run, data: TrainingData, candidate: Candidate) -> dict[str, str]:
    """Log the selected model as a self-contained one, register it, and give it an alias.

    Returns
    -------
    dict
        ``model_uri``, ``name``, ``version``, ``alias``, and a ``line`` that says which version answers; only the name
        if MLflow does not answer, in which case publishing the run registers the model.
    """

    def registered() -> dict[str, str]:
        kind = modality_of(run.params)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / kind.suffix
            data.save(folder, candidate)
            tracking.log_tags(run.id, {MODEL_DIGEST: checksum(folder / CHECKSUMS)})

            def write(place: Path) -> None:
                tracking.save_mlflow_model(place, folder, kind, data.target, data.example())

            made = tracking.register(run.id, write, run.model_name, data.summary(candidate, run.metrics))
        if made:
            log_info(f"registered {run.model_name} version {made['version']} as {made['alias']}: {made['line']}")
        return made or {"name": run.model_name}

    return as_task(f"register {run.model_name}", registered)


def _snapshots(run: Run, data: TrainingData) -> list[dict[str, torch.Tensor]]:
    """Weights and buffers at the ends of the snapshot ensemble's cycles, except the last.

    Raises
    ------
    UserError
        If a checkpoint of one of them is missing.
    """
    stage = run.params.recipe[-1]
    states = []
    for cycle in range(stage.cycles - run.params.snapshots + 1, stage.cycles):
        name = f"{CHECKPOINTS}/{cycle_checkpoint(stage.name, cycle)}"
        path = tracking.fetch(run.id, name)
        if path is None:
            raise UserError(f"snapshots: run {run.id} has no {name}: it was begun without snapshots")
        states.append(load_checkpoint(path).whole("network", data.network().state_dict()))
    return states
