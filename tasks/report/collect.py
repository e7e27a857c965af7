"""A run as its report shows it, from what MLflow holds of it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.drift import SHIFTS
from unfreeze.models.evaluation.results import Chart, Gain
from unfreeze.models.evaluation.verdict import Headline, Suspicion, Training, headlines, suspicions, verdict
from unfreeze.models.recipe.modality import modality_from, training_from
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.notices import log_notice
from unfreeze.tasks.report.commands import Command, next_commands, without_label_errors
from unfreeze.tasks.report.parts import Part, parts_of
from unfreeze.tasks.tracking.history import history, splits_of, version_of_run
from unfreeze.tasks.tracking.origin import starts_of
from unfreeze.tasks.tracking.training_run import REFITTED, stages_of

LABEL_ERRORS = "label-errors"
"""Key of the table of likely label errors; a text of the same part lists them for `data.exclude`."""


class Setting(NamedTuple):
    """A setting by its dotted name, and its default where that is another."""

    name: str
    value: str
    default: str | None


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
    gains: dict[str, list[Gain]]
    stages: list[dict[str, Any]]
    curves: list[Chart]
    parts: dict[str, Part]
    label_errors: dict[str, tuple[int, list[dict[str, Any]]]]
    leave_out: Command | None
    settings: list[Setting]
    starts: list[dict[str, str]]
    commands: list[Command]
    metrics: dict[str, float] = field(default_factory=dict)


def collect(run_id: str) -> Report:
    """Look a run up.

    Raises
    ------
    UserError
        If there is no such run, or unfreeze did not start it.
    """
    run, spec, parts = tracking.get_run(run_id), tracking.spec_of(run_id), parts_of(run_id)
    if not parts:
        raise UserError(f"run {run_id} has no findings to report: it stopped before it had any, or is not a training")
    rows, splits = modality_from(spec, f"run {run_id}").rows, splits_of(run_id)
    stages, errors = stages_of(run.data.tags), _label_errors(parts)
    training = Training(
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
    version = version_of_run(run_id)
    model = None
    if version is not None:
        aliases = ", ".join(version.aliases)
        model = {"name": str(version.name), "version": str(version.version), "aliases": aliases}
        model["description"] = str(version.description or "")
    listed = "valid/label_errors.txt"
    gains: dict[str, list[Gain]] = {}
    for gain in training.gains:
        gains.setdefault(gain.metric, []).append(gain)
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
        address=tracking.page(run_id),
        headlines=headlines(run.data.metrics),
        verdict=[*verdict(training), *parts.get("search", Part()).lines],
        suspicions=suspicions(training) if headlines(run.data.metrics) else [],
        gains=gains,
        stages=stages,
        curves=_curves(run, stages),
        parts=parts,
        label_errors=errors,
        leave_out=without_label_errors(run, spec, listed) if "valid" in errors else None,
        settings=_settings(spec),
        starts=starts_of(run_id),
        commands=next_commands(run, spec, model),
        metrics=dict(sorted(run.data.metrics.items())),
    )


def _rows(parts: Mapping[str, Part], wanted: str) -> list[dict[str, Any]]:
    """Rows of the table of that key, in whichever part it is."""
    return [row for part in parts.values() for key, _, rows, _ in part.tables if key == wanted for row in rows]


def _label_errors(parts: Mapping[str, Part]) -> dict[str, tuple[int, list[dict[str, Any]]]]:
    """Split -> number of rows that seem labelled wrong, and the first of them."""
    return {
        name: (count, rows)
        for name in ("valid", "test")
        for key, _, rows, count in parts.get(name, Part()).tables
        if key == LABEL_ERRORS
    }


def _curves(run: Any, stages: list[dict[str, Any]]) -> list[Chart]:
    """Losses, the first metric and lrs over the steps, and the finder's curves."""
    run_id, logged = run.info.run_id, run.data.metrics
    starts, step = {}, 0
    for stage in stages:
        if stage["epochs"]:
            starts[stage["name"]], step = float(step), stage["steps"]
    lines = {}
    if "train/loss" in logged:
        steps, losses = history(run_id, "train/loss")
        lines["training"] = (steps, _smoothed(losses))
    if "valid/loss" in logged:
        lines["validation"] = _without_evaluation(history(run_id, "valid/loss"), step)
    found = [Chart("Loss", "step", "", lines, marks=starts)] if lines else []
    names = list(dict.fromkeys(name for stage in stages for name in stage["metrics"] if name != "loss"))
    for name in names[:1]:
        if f"valid/{name}" in logged:
            curve = _without_evaluation(history(run_id, f"valid/{name}"), step)
            found.append(Chart(f"Validation {name}", "step", "", {name: curve}, marks=starts))
    groups = [name for name in logged if name.startswith("lr/")]
    if groups:
        lrs = {name.removeprefix("lr/"): history(run_id, name) for name in groups}
        found.append(Chart("Learning rates by layer group", "step", "", lrs, log="y", marks=starts))
    for path in tracking.artifacts(run_id, "learning_rate"):
        if path.endswith(".feather"):
            try:
                sweep = tracking.read_frame(run_id, path)
            except UserError as error:
                log_notice(f"warning: {error}; the report lacks it")
                continue
            if sweep is not None:
                found.append(_finder(sweep, path.rpartition("/")[2].removesuffix(".feather"), stages))
    return found


def _smoothed(losses: list[float]) -> list[float]:
    """Losses of batches as their mean over a twentieth of the training around each."""
    series = pd.Series(losses, dtype=np.float64)
    return list(series.rolling(max(1, len(series) // 20), center=True, min_periods=1).mean())


def _without_evaluation(curve: tuple[list[float], list[float]], last: int) -> tuple[list[float], list[float]]:
    """Up to the last epoch's step: the model that is kept is evaluated at the step after it."""
    steps, values = curve
    shown = sum(step <= last for step in steps)
    return steps[:shown], values[:shown]


def _finder(curve: pd.DataFrame, stage: str, stages: list[dict[str, Any]]) -> Chart:
    """The finder's curve up to twice the loss that it began with, and the lr that was taken."""
    shown = curve[curve["smoothed"] <= 2 * float(np.median(curve["smoothed"].iloc[:5]))]
    lrs = shown["lr"].tolist()
    lines = {"batch": (lrs, shown["loss"].tolist()), "average": (lrs, shown["smoothed"].tolist())}
    taken = {f"{each['lr']:.2g}": float(each["lr"]) for each in stages if each["name"] == stage}
    return Chart(f"Learning-rate finder, {stage}", "learning rate", "", lines, log="x", marks=taken)


def _settings(spec: Mapping[str, Any]) -> list[Setting]:
    """Every setting, those first that are not at their default."""
    training = {name: value for name, value in spec.items() if name != "sweep"}
    defaults = tracking.flatten(_default_of(training).model_dump(mode="json"))
    found = [
        Setting(name, _shown(value), None if value == defaults.get(name) else _shown(defaults.get(name)))
        for name, value in tracking.flatten(spec).items()
    ]
    return sorted(found, key=lambda each: each.default is None)


def _default_of(training: Mapping[str, Any]) -> Any:
    """The spec with every setting at its default, of the same modality."""
    kind: Any = type(training_from(training, "spec.json"))
    return kind()


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
