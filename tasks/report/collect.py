"""Contents of a run's report, collected from MLflow."""

import shlex
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from unfreeze.models.errors import UserError
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.environment import tracking_store
from unfreeze.tasks.report.contents import Command, Report, report_of
from unfreeze.tasks.report.findings import parts_of
from unfreeze.tasks.tracking import registry
from unfreeze.tasks.tracking.entries import history, splits_of
from unfreeze.tasks.tracking.registry import version_of_run
from unfreeze.tasks.tracking.server import local_file, page
from unfreeze.tasks.tracking.training_run import REFITTED, stages_of, starts_of


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
    model = None
    if (version := version_of_run(run_id)) is not None:
        model = {name: str(getattr(version, name) or "") for name in ("name", "version", "description")}
        model["aliases"] = ", ".join(version.aliases)
    ended = run.info.end_time or time.time() * 1000
    return report_of(
        parts,
        run.data.metrics,
        stages_of(run.data.tags),
        spec,
        splits_of(run_id),
        partial(history, run_id),
        run.data.metrics,
        kept=run.data.tags.get("unfreeze.kept", ""),
        refitted=run.data.tags.get(REFITTED, ""),
        run_id=run_id,
        name=str(run.info.run_name),
        status=str(run.info.status),
        began=time.strftime("%Y-%m-%d %H:%M", time.localtime(run.info.start_time / 1000)),
        minutes=(ended - run.info.start_time) / 60_000,
        model=model,
        address=page(run_id),
        finders=[path for path in tracking.artifacts(run_id, "learning_rate") if path.endswith(".png")],
        leave_out=partial(_train_again, run, "valid/label_errors.txt"),
        starts=starts_of(run_id),
        commands=_commands(run, spec, model),
        figure=partial(_figure, run_id),
    )


def _figure(run_id: str, path: str) -> bytes | None:
    local = tracking.fetch(run_id, path)
    return None if local is None else local.read_bytes()


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
