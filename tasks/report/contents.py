"""Contents of a training's report, made from its findings, metrics and settings; knows neither MLflow nor Prefect."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pandas as pd

from unfreeze.models.evaluation.drift import SHIFTS
from unfreeze.models.evaluation.results import Chart, Displayed, Findings
from unfreeze.models.evaluation.verdict import Headline, Suspicion, TrainingSummary, headlines, suspicions, verdict
from unfreeze.models.recipe.modality import modality_from, training_from
from unfreeze.models.settings.fields import flatten

LABEL_ERRORS = "label-errors"
"""Key of the table of likely label errors, which a text of the same part lists for `data.exclude`."""
MOST_ROWS = 200
"""Maximum rows of a table in a part; frames among the artifacts have all."""

Command = tuple[str, Sequence[str]]
"""A purpose, and lines for a shell."""
History = Callable[[str], tuple[Sequence[float], Sequence[float]]]
"""Metric -> its steps and values, ordered by step."""


@dataclass
class Part(Displayed):
    """The part of a report about one step; see `Findings`.

    Attributes
    ----------
    figures
        Path of a PNG file below the run's artifacts -> title.
    tables
        (key, title, rows, number of all rows).
    """

    figures: dict[str, str] = field(default_factory=dict)
    tables: list[tuple[str, str, list[dict[str, Any]], int]] = field(default_factory=list)


def part_of(found: Findings) -> Part:
    """The part of a report about a step's findings."""
    return Part(
        **{each.name: getattr(found, each.name) for each in fields(Displayed)},
        figures={path: title for path, (title, _) in found.figures.items()},
        tables=[(key, title, rows[:MOST_ROWS], len(rows)) for key, title, rows in found.tables],
    )


@dataclass
class Report:
    """Everything that a report shows; see `unfreeze.tasks.report`."""

    run_id: str
    """Empty for an untracked training."""
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
    figure: Callable[[str], bytes | None]
    """Path of a figure -> PNG; None if it is missing."""


def report_of(
    parts: dict[str, Part],
    metrics: Mapping[str, float],
    stages: list[dict[str, Any]],
    spec: Mapping[str, Any],
    splits: dict[str, int],
    history: History,
    logged: Collection[str],
    kept: str = "",
    refitted: str = "",
    leave_out: Callable[[], list[str] | None] = lambda: None,
    **about: Any,
) -> Report:
    """Make a report.

    Parameters
    ----------
    parts
        By name.
    metrics
        ``SECTION/NAME`` -> value.
    stages
        See `unfreeze.models.recipe.run.Train.result`.
    spec
        Settings as plain data.
    splits
        Number of rows in ``train``, ``valid`` and ``test``.
    history, logged
        Metrics by step, and their names.
    kept, refitted
        See `TrainingSummary`.
    leave_out
        Returns `Report.leave_out`; called if there are likely label errors.
    **about
        The other fields of `Report`.
    """
    errors = _label_errors(parts)
    training = TrainingSummary(
        metrics=metrics,
        splits=splits,
        stages=stages,
        gains=[
            gain._replace(split="test" if name == "test" else "valid")
            for name, part in parts.items()
            for gain in part.gains
        ],
        kept=kept,
        refitted=refitted,
        notices=[notice for part in parts.values() for notice in part.notices],
        label_errors=errors["valid"][0] if "valid" in errors else 0,
        drift=_rows(parts, "drift"),
        shift={split: _rows(parts, key) for split, key in SHIFTS.items()},
    )
    gains: dict[str, list[dict[str, Any]]] = {}
    for gain in training.gains:
        row = gain._asdict()
        gains.setdefault(row.pop("metric"), []).append(row)
    found = headlines(metrics)
    return Report(
        source=str(spec["data"]["source"]),
        rows=modality_from(spec, "the settings").rows,
        splits=splits,
        headlines=found,
        verdict=[*verdict(training), *parts.get("search", Part()).lines],
        suspicions=suspicions(training) if found else [],
        gains=gains,
        stages=stages,
        curves=_curves(history, logged, stages),
        parts=parts,
        label_errors=errors,
        leave_out=leave_out() if "valid" in errors else None,
        settings=_settings(spec),
        metrics=dict(sorted(metrics.items())),
        **about,
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


def _curves(history: History, logged: Collection[str], stages: list[dict[str, Any]]) -> list[Chart]:
    """Losses, the first metric and lrs over the steps."""
    starts, last = {}, 0
    for stage in stages:
        if stage["epochs"]:
            starts[stage["name"]], last = float(last), stage["steps"]
    if not starts:  # a head fitted by regression takes no steps
        return []

    def curve(name: str) -> tuple[Sequence[float], Sequence[float]]:
        """Up to the last epoch's step; the final model is evaluated at the next one."""
        steps, values = history(name)
        shown = sum(step <= last for step in steps)
        return steps[:shown], values[:shown]

    lines = dict[str, tuple[Sequence[float], Sequence[float]]]()
    if "train/loss" in logged:
        steps, losses = history("train/loss")
        around = pd.Series(losses, dtype=np.float64).rolling(max(1, len(losses) // 20), center=True, min_periods=1)
        lines["training"] = (steps, list(around.mean()))
    if "valid/loss" in logged:
        lines["validation"] = curve("valid/loss")
    found = [Chart("Loss", "step", "", lines, marks=starts)] if lines else []
    names = list(dict.fromkeys(name for stage in stages for name in stage["metrics"] if name != "loss"))
    if names and f"valid/{names[0]}" in logged:
        found.append(Chart(f"Validation {names[0]}", "step", "", {names[0]: curve(f"valid/{names[0]}")}, marks=starts))
    if lrs := {name.removeprefix("lr/"): history(name) for name in logged if name.startswith("lr/")}:
        found.append(Chart("Learning rates by layer group", "step", "", lrs, log="y", marks=starts))
    return found


def _settings(spec: Mapping[str, Any]) -> list[dict[str, str]]:
    kind: Any = type(training_from({name: value for name, value in spec.items() if name != "sweep"}, "spec.json"))
    defaults = flatten(kind().model_dump(mode="json"))
    found = []
    for name, value in flatten(spec).items():
        default = defaults.get(name)
        values = {"value": value} if value == default else {"value": value, "default": default}
        found.append({"setting": name, **{key: "none" if each is None else str(each) for key, each in values.items()}})
    return sorted(found, key=lambda each: "default" not in each)
