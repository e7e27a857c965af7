"""What is done to a run in MLflow, by name: each operation may be repeated, and its effect is that of doing it once.

An operation whose answer was lost is sent again, so every one is made idempotent:

- **Metrics** keep the time at which they were logged. MLflow's stores hold one row for each run, name, step, time and
  value, and skip what they have.
- **Tags, files and the end of a run** replace what is there. A checkpoint is uploaded under the name that the run does
  not point at, and the run is pointed at it afterwards.
- **A model** of a run is logged and registered once, and a run that is part of another created once: one that is there
  already is looked for first.
- **A decision** moves an alias only from the version that was compared.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, RunTag
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from unfreeze.models.store.sealed_files import flush_to_disk
from unfreeze.tasks.machine.notices import log_info
from unfreeze.tasks.tracking.children import child_id, drop_doubles, find_child, make_child
from unfreeze.tasks.tracking.decisions import apply_decision
from unfreeze.tasks.tracking.logged_models import log_model_folder
from unfreeze.tasks.tracking.registry import answering, register_model
from unfreeze.tasks.tracking.server import client, local_file
from unfreeze.tasks.tracking.spool import CHILD

CHECKPOINTS = "checkpoints"
"""Artifact folder of a run's checkpoints."""
LATEST_CHECKPOINT = "unfreeze.checkpoint"
"""Tag of a run: the artifact that is its latest checkpoint."""
SLOTS = ("last-a.safetensors", "last-b.safetensors")
"""Checkpoints without a name take turns, so that the one the run points at is never overwritten."""
BEGIN, DROP_CHECKPOINTS = "begin", "drop checkpoints"
"""Kinds of operations: create a run that is part of another; remove the checkpoints of one."""
METRICS_PER_CALL = 500
"""One call costs 20 ms, a thousand metrics in one call 120 ms; MLflow takes at most a thousand."""


def perform(run_id: str, kind: str, body: Mapping[str, Any]) -> dict[str, str]:
    """Do an operation, on the run or on one that is part of it; returns what it led to, if it makes something."""
    if CHILD in body and kind not in (BEGIN, DROP_CHECKPOINTS):
        run_id = child_id(body[CHILD])
    return OPERATIONS[kind](run_id, body) or {}


def _tags(run_id: str, body: Mapping[str, Any]) -> None:
    client().log_batch(run_id, tags=[RunTag(key, value) for key, value in body["tags"].items()])


def _metrics(run_id: str, body: Mapping[str, Any]) -> None:
    rows, mlflow_client = body["rows"], client()
    for start in range(0, len(rows), METRICS_PER_CALL):
        metrics = [Metric(*row) for row in rows[start : start + METRICS_PER_CALL]]
        mlflow_client.log_batch(run_id, metrics=metrics)


def _file(run_id: str, body: Mapping[str, Any]) -> None:
    client().log_artifact(run_id, body["path"], body["folder"])


def _checkpoint(run_id: str, body: Mapping[str, Any]) -> None:
    mlflow_client, path, name = client(), Path(body["path"]), body["name"]
    if name is None:
        current = mlflow_client.get_run(run_id).data.tags.get(LATEST_CHECKPOINT, "")
        name = SLOTS[1] if current.endswith(SLOTS[0]) else SLOTS[0]
    link = path.with_name(name)
    if link != path and not link.exists():
        os.link(path, link)  # an artifact has the name of its file
    mlflow_client.log_artifact(run_id, str(link), CHECKPOINTS)
    if (local := local_file(run_id, f"{CHECKPOINTS}/{name}")) is not None:
        flush_to_disk(local)
    mlflow_client.set_tag(run_id, LATEST_CHECKPOINT, f"{CHECKPOINTS}/{name}")


def _data_set(run_id: str, body: Mapping[str, Any]) -> None:
    client().log_inputs(run_id, [DatasetInput(Dataset(**body), [InputTag("mlflow.data.context", "training")])])


def _drop_checkpoints(run_id: str, body: Mapping[str, Any]) -> None:
    """Remove the checkpoints of a run that is part of this one, if it is there: another process may still have it."""
    part = find_child(body[CHILD])
    if part is not None:
        remove_checkpoints(part, [each.path for each in client().list_artifacts(part, CHECKPOINTS)])


def remove_checkpoints(run_id: str, names: Sequence[str]) -> None:
    """Remove checkpoints by their artifacts' names.

    A store that does not let us is no reason for a finished run to fail: what stays can be removed later.
    """
    mlflow_client = client()
    run = mlflow_client.get_run(run_id)
    if run.data.tags.get(LATEST_CHECKPOINT) in names:
        mlflow_client.delete_tag(run_id, LATEST_CHECKPOINT)
    try:
        store = get_artifact_repository(run.info.artifact_uri)
        for name in names:
            store.delete_artifacts(name)
    except Exception as error:
        log_info(f"checkpoints of run {run_id} could not be removed ({error}); `unfreeze clean` removes them")


def _end(run_id: str, body: Mapping[str, Any]) -> None:
    """End a run, unless another process has taken it up since."""
    tags = client().get_run(run_id).data.tags
    if all(tags.get(name) == body[name] for name in ("unfreeze.host", "unfreeze.process")):
        client().set_terminated(run_id, body["status"], body["time"])
    if CHILD in body:
        drop_doubles(body[CHILD], run_id)


def _model(run_id: str, body: Mapping[str, Any]) -> dict[str, str]:
    uri, model_id = log_model_folder(run_id, Path(body["path"]))
    number, alias = register_model(body["name"], run_id, uri, model_id, body["description"])
    made = {"model_uri": uri, "name": body["name"], "version": number, "alias": alias}
    return {**made, "line": answering(body["name"], number, run_id)}


OPERATIONS: Mapping[str, Callable[[str, Mapping[str, Any]], dict[str, str] | None]] = {
    BEGIN: make_child,
    "tags": _tags,
    "metrics": _metrics,
    "file": _file,
    "checkpoint": _checkpoint,
    "data set": _data_set,
    DROP_CHECKPOINTS: _drop_checkpoints,
    "end": _end,
    "model": _model,
    "decision": apply_decision,
}
