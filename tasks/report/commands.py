"""What a person types after looking at a report."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from unfreeze.tasks.machine.environment import tracking_store
from unfreeze.tasks.tracking import registry
from unfreeze.tasks.tracking.server import local_file

TRAINED_BY = {"images": "train", "tables": "train-table"}
"""Modality -> the command that trains it."""


class Command(NamedTuple):
    """Lines of a shell, and what they are for."""

    purpose: str
    lines: Sequence[str]


def next_commands(run: Any, spec: Mapping[str, Any], model: Mapping[str, str] | None) -> list[Command]:
    """Ways to go on with a run.

    Parameters
    ----------
    run
        The MLflow run.
    spec
        What it was started with.
    model
        ``name``, ``version`` and ``aliases`` of what it registered, if anything.
    """
    run_id, kind = run.info.run_id, run.data.tags.get("unfreeze.kind", "")
    found = []
    if model is None and kind.startswith("train"):
        found.append(Command("Resume the training", [f"unfreeze resume {run_id}"]))
    if "unfreeze.study" in run.data.tags:
        study = shlex.quote(run.data.tags["unfreeze.study"])
        found.append(Command("Register the best trial", [f"unfreeze sweep --study {study} --best --register"]))
    if model is not None:
        name, version = model["name"], model["version"]
        new = "new_images/" if spec.get("modality") == "images" else "new_rows.csv"
        serve = [
            f"export MLFLOW_TRACKING_URI={shlex.quote(tracking_store())}",
            f"mlflow models serve -m {shlex.quote(f'models:/{name}/{version}')} --env-manager local --port 5001",
        ]
        found += [
            Command("Predict", [f"unfreeze predict {shlex.quote(f'{name}/{version}')} {new}"]),
            Command("Serve", serve),
            Command("Train again when there are new data", [f"unfreeze retrain {shlex.quote(name)}"]),
        ]
        if registry.CHAMPION not in model["aliases"].split(", "):
            found.append(Command("Make it the champion", [f"unfreeze promote {shlex.quote(name)} {version}"]))
    if kind.startswith("train") and "modality" in spec:
        again = _with_settings(run, spec)
        found.append(Command("Train again with these settings", again))
    found.append(Command("Make this report again", [f"unfreeze report {run_id}"]))
    return found


def without_label_errors(run: Any, spec: Mapping[str, Any], listed: str) -> Command:
    """Train again without the rows in a file of the run's artifacts, which `data.exclude` takes."""
    lines = _with_settings(run, spec)
    place = local_file(run.info.run_id, listed)
    lines[-1] += f" --data.exclude {shlex.quote(str(place or listed.rpartition('/')[2]))}"
    return Command("Leave them out", lines if place else [_download(run, listed), *lines])


def _with_settings(run: Any, spec: Mapping[str, Any]) -> list[str]:
    command = TRAINED_BY[spec["modality"]]
    place = local_file(run.info.run_id, "spec.json")
    lines = [f"unfreeze {command} --config {shlex.quote(str(place or 'spec.json'))}"]
    return lines if place else [_download(run, "spec.json"), *lines]


def _download(run: Any, path: str) -> str:
    return f"mlflow artifacts download --run-id {run.info.run_id} --artifact-path {path} --dst-path ."
