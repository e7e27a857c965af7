"""What is done to a run in MLflow, by name: each operation may be repeated, and its effect is that of doing it once.

An operation whose answer was lost is sent again, so every one is made idempotent:

- **Metrics** keep the time at which they were logged. MLflow's stores hold one row for each run, name, step, time and
  value, and skip what they have.
- **Tags, files and the end of a run** replace what is there. A checkpoint is uploaded under the name that the run does
  not point at, and the run is pointed at it afterwards.
- **A model** of a run is logged and registered once: one that is there already is looked for first.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, RunTag

from unfreeze.models.sealed_files import flush_to_disk
from unfreeze.tasks.tracking.logged_models import log_model_folder
from unfreeze.tasks.tracking.registry import register_model
from unfreeze.tasks.tracking.server import client, local_file

CHECKPOINTS = "checkpoints"
"""Artifact folder of a run's checkpoints."""
LATEST_CHECKPOINT = "unfreeze.checkpoint"
"""Tag of a run: the artifact that is its latest checkpoint."""
SLOTS = ("last-a.safetensors", "last-b.safetensors")
"""Checkpoints without a name take turns, so that the one the run points at is never overwritten."""
METRICS_PER_CALL = 500
"""One call costs 20 ms, a thousand metrics in one call 120 ms; MLflow takes at most a thousand."""


def perform(run_id: str, kind: str, body: Mapping[str, Any]) -> dict[str, str]:
    """Do an operation; returns what it led to, for one that makes something."""
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


def _end(run_id: str, body: Mapping[str, Any]) -> None:
    client().set_terminated(run_id, body["status"], body["time"])


def _model(run_id: str, body: Mapping[str, Any]) -> dict[str, str]:
    uri, model_id = log_model_folder(run_id, Path(body["path"]))
    number, alias = register_model(body["name"], run_id, uri, model_id, body["description"])
    return {"model_uri": uri, "name": body["name"], "version": number, "alias": alias}


OPERATIONS: Mapping[str, Callable[[str, Mapping[str, Any]], dict[str, str] | None]] = {
    "tags": _tags,
    "metrics": _metrics,
    "file": _file,
    "checkpoint": _checkpoint,
    "data set": _data_set,
    "end": _end,
    "model": _model,
}
