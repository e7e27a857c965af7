"""Contents of a run's report, collected from MLflow."""

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.drift import SHIFTS
from unfreeze.models.evaluation.results import Chart
from unfreeze.models.evaluation.verdict import Headline, Suspicion, TrainingSummary, headlines, suspicions, verdict
from unfreeze.models.recipe.modality import modality_from, training_from
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.environment import tracking_store
from unfreeze.tasks.report.findings import Part, parts_of
from unfreeze.tasks.tracking import registry
from unfreeze.tasks.tracking.entries import history, splits_of
from unfreeze.tasks.tracking.registry import version_of_run
from unfreeze.tasks.tracking.server import local_file, page
from unfreeze.tasks.tracking.training_run import REFITTED, stages_of, starts_of

LABEL_ERRORS = "label-errors"
"""Key of the table of likely label errors, which a text of the same part lists for `data.exclude`."""


Command = tuple[str, Sequence[str]]
"""A purpose, and lines for a shell."""


@dataclass
class Report:
    """Everything that a report shows; see `unfreeze.tasks.report`."""

    run_id: str
    name: str
    status: str
    began: str
    minutes: float
    source: str
    rows: str
    splits: dict[str, int]
    model: dict[str, str] | None
    address: str | None
    headlines: list[Headline]
    verdict: list[str]
    suspicions: list[Suspicion]
    gains: dict[str, list[dict[str, Any]]]
    """By metric."""
    stages: list[dict[str, Any]]
    curves: list[Chart]
    finders: list[str]
    parts: dict[str, Part]
    label_errors: dict[str, tuple[int, list[dict[str, Any]]]]
    leave_out: list[str] | None
    """Commands that train without the likely label errors among the validation images."""
    settings: list[dict[str, str]]
    """``setting``, ``value``, and ``default`` if different, those first."""
    starts: list[dict[str, str]]
    commands: list[Command]
    metrics: dict[str, float]


def collect(run_id: str) -> Report:
    """Collect everything that the report of a run shows.

    Raises
    ------
    UserError
        If the run is unknown or was not started by unfreeze.
    """
    run, spec, parts = tracking.get_run(run_id), tracking.spec_of(run_id), parts_of(run_id)
    run_id = str(run.info.run_id)  # by which MLflow finds versions
    if not parts:
        raise UserError(f"run {run_id} has no findings to report: it stopped before it had any, or is not a training")
    rows, splits = modality_from(spec, f"run {run_id}").rows, splits_of(run_id)
    stages, errors = stages_of(run.data.tags), _label_errors(parts)
    training = TrainingSummary(
        metrics=run.data.metrics,
        splits=splits,
        stages=stages,
        gains=[
            gain._replace(split="test" if name == "test" else "valid")
            for name, part in parts.items()
            for gain in part.gains
        ],
        kept=run.data.tags.get("unfreeze.kept", ""),
        refitted=run.data.tags.get(REFITTED, ""),
        notices=[notice for part in parts.values() for notice in part.notices],
        label_errors=errors["valid"][0] if "valid" in errors else 0,
        drift=_rows(parts, "drift"),
        shift={split: _rows(parts, key) for split, key in SHIFTS.items()},
    )
    model = None
    if (version := version_of_run(run_id)) is not None:
        model = {name: str(getattr(version, name) or "") for name in ("name", "version", "description")}
        model["aliases"] = ", ".join(version.aliases)
    gains: dict[str, list[dict[str, Any]]] = {}
    for gain in training.gains:
        row = gain._asdict()
        gains.setdefault(row.pop("metric"), []).append(row)
    ended = run.info.end_time or time.time() * 1000
    return Report(
        run_id=run_id,
        name=str(run.info.run_name),
        status=str(run.info.status),
        began=time.strftime("%Y-%m-%d %H:%M", time.localtime(run.info.start_time / 1000)),
        minutes=(ended - run.info.start_time) / 60_000,
        source=str(spec["data"]["source"]),
        rows=rows,
        splits=splits,
        model=model,
        address=page(run_id),
        headlines=headlines(run.data.metrics),
        verdict=[*verdict(training), *parts.get("search", Part()).lines],
        suspicions=suspicions(training) if headlines(run.data.metrics) else [],
        gains=gains,
        stages=stages,
        curves=_curves(run, stages),
        finders=[path for path in tracking.artifacts(run_id, "learning_rate") if path.endswith(".png")],
        parts=parts,
        label_errors=errors,
        leave_out=_train_again(run, "valid/label_errors.txt") if "valid" in errors else None,
        settings=_settings(spec),
        starts=starts_of(run_id),
        commands=_commands(run, spec, model),
        metrics=dict(sorted(run.data.metrics.items())),
    )


def _rows(parts: Mapping[str, Part], wanted: str) -> list[dict[str, Any]]:
    """Rows of the table with that key, from all parts."""
    return [row for part in parts.values() for key, _, rows, _ in part.tables if key == wanted for row in rows]


def _label_errors(parts: Mapping[str, Part]) -> dict[str, tuple[int, list[dict[str, Any]]]]:
    """Split -> number of likely label errors, and the first of them."""
    return {
        name: (count, rows)
        for name in ("valid", "test")
        for key, _, rows, count in parts.get(name, Part()).tables
        if key == LABEL_ERRORS
    }


def _curves(run: Any, stages: list[dict[str, Any]]) -> list[Chart]:
    """Losses, the first metric and lrs over the steps."""
    run_id, logged = run.info.run_id, run.data.metrics
    starts, last = {}, 0
    for stage in stages:
        if stage["epochs"]:
            starts[stage["name"]], last = float(last), stage["steps"]
    if not starts:  # a head fitted by regression takes no steps
        return []

    def curve(name: str) -> tuple[list[float], list[float]]:
        """Up to the last epoch's step; the final model is evaluated at the next one."""
        steps, values = history(run_id, name)
        shown = sum(step <= last for step in steps)
        return steps[:shown], values[:shown]

    lines = {}
    if "train/loss" in logged:
        steps, losses = history(run_id, "train/loss")
        around = pd.Series(losses, dtype=np.float64).rolling(max(1, len(losses) // 20), center=True, min_periods=1)
        lines["training"] = (steps, list(around.mean()))
    if "valid/loss" in logged:
        lines["validation"] = curve("valid/loss")
    found = [Chart("Loss", "step", "", lines, marks=starts)] if lines else []
    names = list(dict.fromkeys(name for stage in stages for name in stage["metrics"] if name != "loss"))
    if names and f"valid/{names[0]}" in logged:
        found.append(Chart(f"Validation {names[0]}", "step", "", {names[0]: curve(f"valid/{names[0]}")}, marks=starts))
    if lrs := {name.removeprefix("lr/"): history(run_id, name) for name in logged if name.startswith("lr/")}:
        found.append(Chart("Learning rates by layer group", "step", "", lrs, log="y", marks=starts))
    return found


def _settings(spec: Mapping[str, Any]) -> list[dict[str, str]]:
    kind: Any = type(training_from({name: value for name, value in spec.items() if name != "sweep"}, "spec.json"))
    defaults = tracking.flatten(kind().model_dump(mode="json"))
    found = []
    for name, value in tracking.flatten(spec).items():
        default = defaults.get(name)
        values = {"value": value} if value == default else {"value": value, "default": default}
        found.append({"setting": name, **{key: "none" if each is None else str(each) for key, each in values.items()}})
    return sorted(found, key=lambda each: "default" not in each)


def _commands(run: Any, spec: Mapping[str, Any], model: Mapping[str, str] | None) -> list[Command]:
    """Next commands; `model` has ``name``, ``version`` and ``aliases`` of the registered model, if any."""
    run_id, kind = run.info.run_id, run.data.tags.get("unfreeze.kind", "")
    found: list[Command] = []
    if model is None and kind.startswith("train"):
        found.append(("Resume the training", [f"unfreeze resume {run_id}"]))
    if "unfreeze.study" in run.data.tags:
        study = shlex.quote(run.data.tags["unfreeze.study"])
        found.append(("Register the best trial", [f"unfreeze sweep --study {study} --best --register"]))
    if model is not None:
        name, version = model["name"], model["version"]
        new = "new_images/" if spec.get("modality") == "images" else "new_rows.csv"
        serve = [
            f"export MLFLOW_TRACKING_URI={shlex.quote(tracking_store())}",
            f"mlflow models serve -m {shlex.quote(f'models:/{name}/{version}')} --env-manager local --port 5001",
        ]
        found += [
            ("Predict", [f"unfreeze predict {shlex.quote(f'{name}/{version}')} {new}"]),
            ("Serve", serve),
            ("Train again when there are new data", [f"unfreeze retrain {shlex.quote(name)}"]),
        ]
        if registry.CHAMPION not in model["aliases"].split(", "):
            found.append(("Make it the champion", [f"unfreeze promote {shlex.quote(name)} {version}"]))
    if kind.startswith("train") and "modality" in spec:
        found.append(("Train again with these settings", _train_again(run)))
    return [*found, ("Make this report again", [f"unfreeze report {run_id}"])]


def _train_again(run: Any, exclude: str | None = None) -> list[str]:
    """Commands that train with the same settings, but without the images in a list among the run's artifacts."""
    places, fetches = [], []
    for path in ("spec.json", exclude):
        local = path and local_file(run.info.run_id, path)
        if path and not local:
            fetch = f"mlflow artifacts download --run-id {run.info.run_id} --artifact-path {path} --dst-path ."
            fetches.append(fetch)
        places.append(shlex.quote(str(local or str(path).rpartition("/")[2])))
    without = f" --data.exclude {places[1]}" if exclude else ""
    return [*fetches, f"unfreeze train --config {places[0]}{without}"]
