"""Runs of other data folders, fetched from MLflow to be resumed here unless they are trained elsewhere."""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unfreeze.models.errors import UserError
from unfreeze.tasks.machine.notices import log_notice
from unfreeze.tasks.machine.processes import process_of
from unfreeze.tasks.tracking.folder import (
    ARTIFACTS,
    CHECKPOINTS,
    OWNER,
    RunFolder,
    end_if_gone,
    is_unnamed,
    new_folder,
    owner_of,
    runs_folder,
    set_aside,
)
from unfreeze.tasks.tracking.publish import ALIVE, KEY, LATEST_CHECKPOINT, file_state
from unfreeze.tasks.tracking.server import client, get_run, require_answer

FLOW_RUN, PARENT = "prefect.flow_run_id", "prefect.parent_flow_run_id"
"""Tags: the Prefect flow run that trains the run, and that one's parent, such as a retraining."""
SILENT_SECONDS = 120
"""A run on another machine without a sign of life for this long is considered dead."""


def unless_outdated(folder: RunFolder) -> RunFolder | None:
    """The folder, or None after setting it aside if the run was resumed elsewhere; MLflow may be unavailable."""
    if folder.about.get("shared") or "id" not in folder.published() or not end_if_gone(folder):
        return folder
    try:
        require_answer(0)
        tags = get_run(folder.key).data.tags
    except UserError:
        return folder
    if owner_of(tags) in folder.owners:
        return folder
    log_notice(f"run {folder.shown_id} was resumed elsewhere since; the folder is kept as {set_aside(folder)}")
    return None


def fetched(run_id: str, own_tags: Mapping[str, str]) -> RunFolder:
    """Fetch a run from MLflow into a folder that this process holds: tags, latest metrics and artifacts."""
    run = get_run(run_id)
    run_id, tags, is_sweep = str(run.info.run_id), dict(run.data.tags), run.data.tags.get("unfreeze.kind") == "sweep"
    if run.info.status == "RUNNING" and not is_sweep:
        _refuse_live_run(run, own_tags)
    path = runs_folder() / tags.get(KEY, run_id)
    files = path / ARTIFACTS
    for folder in (files, path / CHECKPOINTS):
        folder.mkdir(parents=True, exist_ok=True)
    if client().list_artifacts(run_id):  # MLflow cannot download an empty folder
        client().download_artifacts(run_id, "", str(files))
    latest, shown = Path(tags.pop(LATEST_CHECKPOINT, "")).name, {}
    checkpoints = sorted((files / CHECKPOINTS).glob("*"), key=lambda each: (each.name == latest, each))
    for number, each in enumerate(checkpoints, 1):
        own = f"last-{number}.safetensors" if is_unnamed(each.name) else each.name
        os.replace(each, path / CHECKPOINTS / own)
        shown[own] = each.name
    about = {
        "experiment": client().get_experiment(run.info.experiment_id).name,
        "name": run.info.run_name,
        "params": [],
        "time": run.info.start_time,
        "shared": is_sweep,
    }
    rows = [[each.key, each.value, each.timestamp, each.step] for each in run.data._metric_objs]
    ended = {"state": run.info.status, "time": run.info.end_time or 0}
    commits = [*({"checkpoint": name} for name in shown), {"tags": tags, "rows": rows, **ended}]
    made = new_folder(about, {}, path, commits)
    states = {name: file_state(each) for name, each in made.files().items()}
    ids = {"id": run_id, "experiment": run.info.experiment_id}
    made.keep_published({**ids, "offset": made.size, "files": states, "checkpoints": shown})
    return made


def _refuse_live_run(run: Any, own_tags: Mapping[str, str]) -> None:
    """Refuse a run whose process lives, here in another data folder or, by its last sign of life, elsewhere.

    An earlier attempt of the same Prefect flow run on another machine has ended however recent its last sign, because
    Prefect starts the next attempt only then.
    """
    tags, run_id = run.data.tags, run.info.run_id
    host, mark = (tags.get(name, "") for name in OWNER)
    number = mark.partition(":")[0]
    if host == socket.gethostname():
        if number != str(os.getpid()) and process_of(mark) is not None:
            raise UserError(f"run {run_id} is being trained by process {number} of this machine; stop that one first")
        return
    if any(name in own_tags and tags.get(name) == own_tags[name] for name in (FLOW_RUN, PARENT)):
        return
    silent = time.time() - max(int(run.info.start_time), int(tags.get(ALIVE, 0))) / 1000
    if silent < SILENT_SECONDS:
        raise UserError(
            f"run {run_id} is being trained by process {number} on {host or 'another machine'}, which was heard of "
            f"{silent:.0f} s ago; stop it there. A run of which nothing is heard for {SILENT_SECONDS} s is taken for "
            "dead"
        )
