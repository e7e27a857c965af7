"""A run's life: started or reopened, held by one process, given tags and metrics, closed.

A run belongs to its flow by id. Everything is logged through `MlflowClient` with that id, never through MLflow's active
run, which is one per thread and opens a new run when there is none.
"""

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Self

import numpy as np
from filelock import FileLock, Timeout
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from unfreeze.models.errors import UserError
from unfreeze.tasks.machine.environment import make_home
from unfreeze.tasks.machine.processes import is_gone, this_process
from unfreeze.tasks.tracking.files import log_spec
from unfreeze.tasks.tracking.server import client, experiment_id, get_run

FINGERPRINT = "data.fingerprint"
"""Tag: hash of the images with their labels, or of the tables, whatever their split."""
TRAINED_UNTIL = "data.trained_until"
"""Tag of a run on a table with dates: the last date among the training rows."""
FLOW_RUN, PARENT = "prefect.flow_run_id", "prefect.parent_flow_run_id"
"""Tags: the Prefect flow run that trains the run, and the one that this is part of, such as a retraining."""
SILENT_SECONDS = 120
"""A run on another machine that logged no metric for this long is taken for dead."""
BUFFERED_METRICS = 500
"""Metrics are sent in batches of at most this many: one call costs 20 ms, a thousand in one call 120 ms."""
MAX_PARAMS = 100  # MLflow's limit for one call

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
"""How a run ended."""


def start_run(experiment: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    """Start a run in an experiment (by name) and log the whole spec, also as params; returns the run's id."""
    number = experiment_id(experiment)
    close_stale_runs(number)
    run_id = create_run(number, name, params, tags)
    log_spec(run_id, params)
    return run_id


def create_run(experiment: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    """Create a running run of this process in an experiment (by id) and log its params; returns the run's id."""
    mlflow_client = client()
    run_id = str(mlflow_client.create_run(experiment, run_name=name, tags={**tags, **this_process()}).info.run_id)
    flat = [Param(key, "" if value is None else str(value)) for key, value in flatten(params).items()]
    for start in range(0, len(flat), MAX_PARAMS):
        mlflow_client.log_batch(run_id, params=flat[start : start + MAX_PARAMS])
    return run_id


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name; lists of settings by position, other lists as JSON."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            value = {str(position): item for position, item in enumerate(value)}
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = json.dumps(value) if isinstance(value, list) else value
    return flat


@contextmanager
def held_run(run_id: str) -> Iterator[None]:
    """Hold the run: `UserError` if another process of this machine and data folder does."""
    folder = make_home() / "locks"
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / f"{run_id}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise _already_trained(run_id, tags_of(run_id)) from None
    try:
        yield
    finally:
        lock.release()


def reopen_run(run_id: str, tags: Mapping[str, str], finished: bool = False) -> None:
    """Set a stopped run, or with `finished` any run, to running again, in this process.

    With `finished` the run may have several processes at a time, as a sweep has.

    Raises
    ------
    UserError
        If there is no such run, it is finished and may not be, or its process lives.
    """
    run = get_run(run_id)
    if run.info.status == "FINISHED" and not finished:
        raise UserError(f"run {run_id} is finished; there is nothing to resume")
    if run.info.status == "RUNNING" and not finished:
        _refuse_live_run(run, tags)
    close_stale_runs(run.info.experiment_id)
    client().update_run(run_id, status="RUNNING")
    log_tags(run_id, {**tags, **this_process()})


def _refuse_live_run(run: Any, own_tags: Mapping[str, str]) -> None:
    """Refuse a run whose process lives: on this machine by its process id, elsewhere by what it logged last.

    An earlier attempt of the same Prefect flow run on another machine has ended, however lately it logged: Prefect
    starts the next only then.
    """
    tags, run_id = run.data.tags, run.info.run_id
    process, host = _process_id(tags), tags.get("unfreeze.host", "another machine")
    if host == socket.gethostname():
        if process != str(os.getpid()) and not is_gone(tags):
            raise _already_trained(run_id, tags)
        return
    if any(name in own_tags and tags.get(name) == own_tags[name] for name in (FLOW_RUN, PARENT)):
        return
    silent = time.time() - _last_logged(run) / 1000
    if silent < SILENT_SECONDS:
        raise UserError(
            f"run {run_id} is being trained by process {process} on {host}, which logged a metric {silent:.0f} s ago; "
            f"stop it there. A run that logged nothing for {SILENT_SECONDS} s is taken for dead"
        )


def _already_trained(run_id: str, tags: Mapping[str, str]) -> UserError:
    process = _process_id(tags)
    return UserError(f"run {run_id} is being trained by process {process} of this machine; stop that one first")


def _process_id(tags: Mapping[str, str]) -> str:
    return tags.get("unfreeze.process", "").partition(":")[0]


def _last_logged(run: Any) -> int:
    """When the run logged its last metric, or began: milliseconds since 1970."""
    names = ("train/loss", "valid/loss", "system/cpu_utilization_percentage")
    histories = (client().get_metric_history(run.info.run_id, name) for name in names if name in run.data.metrics)
    return max([int(run.info.start_time), *(metric.timestamp for history in histories for metric in history[-1:])])


def close_run(run_id: str, status: RunStatus) -> None:
    """End a run."""
    client().set_terminated(run_id, status)


@contextmanager
def closing_run(run_id: str, resume_command: str) -> Iterator[None]:
    """End a run as the block ends: FINISHED, FAILED after an error, KILLED after a signal, Ctrl-C or a cancellation.

    `resume_command` is noted on the exception that stopped the block.
    """
    try:
        yield
    except Exception:
        close_run(run_id, "FAILED")
        raise
    except BaseException as stopped:
        close_run(run_id, "KILLED")
        stopped.add_note(f"continue with: {resume_command}")
        raise
    close_run(run_id, "FINISHED")


def close_stale_runs(experiment: str) -> None:
    """Mark runs whose process on this machine is gone as KILLED: a killed process cannot do so itself."""
    mlflow_client = client()
    query = f"attributes.status = 'RUNNING' and tags.`unfreeze.host` = '{socket.gethostname()}'"
    for run in mlflow_client.search_runs([experiment], query):
        if is_gone(run.data.tags):
            mlflow_client.set_terminated(run.info.run_id, "KILLED")


def run_with_tag(experiment: str, name: str, value: str) -> str | None:
    """The experiment's latest run with this value of a tag; None if there is none."""
    found = client().search_runs([experiment_id(experiment)], f"tags.`{name}` = '{value}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def log_tags(run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run."""
    client().log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def tags_of(run_id: str) -> dict[str, str]:
    """Tags of a run."""
    return dict(get_run(run_id).data.tags)


def kind_of_run(run_id: str) -> str:
    """What started the run: ``train-images``, ``train-tables``, ``find-lr``, ``sweep`` or ``trial``."""
    return tags_of(run_id).get("unfreeze.kind", "")


class MetricLog:
    """Buffers a run's metrics and sends them in batches; use it as a context manager."""

    def __init__(self, run_id: str) -> None:
        self.run_id, self._client, self._buffer, self._sent = run_id, client(), list[Metric](), time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log values at a step; they are sent when the buffer is full, every few seconds, and at the end."""
        now = int(time.time() * 1000)
        self._buffer += [Metric(key, float(value), now, step) for key, value in values.items()]
        if len(self._buffer) >= BUFFERED_METRICS or time.monotonic() - self._sent > 5:
            self.flush()

    def flush(self) -> None:
        """Send what is buffered."""
        for start in range(0, len(self._buffer), BUFFERED_METRICS):
            self._client.log_batch(self.run_id, metrics=self._buffer[start : start + BUFFERED_METRICS])
        self._buffer, self._sent = [], time.monotonic()


def as_float(values: Mapping[str, Any]) -> dict[str, float]:
    """The finite values: an undefined metric (an AUC without one class) is left out, not logged as NaN."""
    return {key: float(value) for key, value in values.items() if np.isfinite(value)}


@contextmanager
def system_metrics(run_id: str, wanted: bool) -> Iterator[None]:
    """Log CPU, memory, disk, network and GPU use under ``system/`` while the block runs."""
    if not wanted:
        yield
        return
    monitor = SystemMetricsMonitor(run_id, sampling_interval=5, resume_logging=True)
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


def log_data_set(run_id: str, name: str, digest: str, source: str, profile: Mapping[str, Any]) -> None:
    """Log the data set as the run's input; `digest` identifies images, labels and split."""
    data_set = Dataset(name, digest[:8], "local", json.dumps({"uri": source}), profile=json.dumps(dict(profile)))
    client().log_inputs(run_id, [DatasetInput(data_set, [InputTag("mlflow.data.context", "training")])])
