"""MLflow: the only file that imports it.

A run belongs to its flow by id. Everything is logged through `MlflowClient` with that id, never through the fluent
active run, which is one per thread and opens a new run when there is none.
"""

import json
import os
import shutil
import socket
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import mlflow
import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature, infer_signature
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.types.schema import Array, ColSpec, DataType, Schema

import unfreeze.models
from unfreeze.models.errors import UserError
from unfreeze.models.names import folder_name
from unfreeze.tasks.machine.environment import home, make_home, tracking_store
from unfreeze.tasks.machine.processes import is_gone, this_process
from unfreeze.tasks.tracking.columns import TAG, WORKFLOW, view

CHECKPOINTS = "checkpoints"
"""Artifact folder of a run's checkpoints."""
FINGERPRINT = "data.fingerprint"
"""Tag of a run: which images with which labels, or which tables, whatever their split."""
TRAINED_UNTIL = "data.trained_until"
"""Tag of a run on a table with dates: the last date among the training rows."""
BUFFERED_METRICS = 500
"""Metrics are sent in batches of at most this many: one call costs 20 ms, a thousand in one call 120 ms."""


FLOW_RUN, PARENT = "prefect.flow_run_id", "prefect.parent_flow_run_id"
"""Tags of a run: the Prefect flow run that trains it, and the one that this is part of, such as a retraining."""
SILENT_SECONDS = 120
"""A run on another machine that logged no metric for so long is taken for dead."""


RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
"""How a run ended."""


def client() -> MlflowClient:
    """A client of the tracking server in ``MLFLOW_TRACKING_URI``; a fresh SQLite store is set up once."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    mlflow.set_tracking_uri(uri)
    if not uri.startswith("sqlite"):
        return MlflowClient(uri)
    make_home()
    # Processes that create one SQLite store at the same moment fail, so they go one by one.
    with FileLock(home() / "mlflow.lock"):
        return MlflowClient(uri)


def experiment_id(name: str) -> str:
    """Id of the experiment, which is created if need be; a deleted one is an error that says so."""
    mlflow_client = client()
    experiment = mlflow_client.get_experiment_by_name(name)
    if experiment is None:
        local = os.environ["MLFLOW_TRACKING_URI"].startswith("sqlite")
        location = (home() / "mlflow-artifacts" / folder_name(name)).as_uri() if local else None
        try:
            number = mlflow_client.create_experiment(name, artifact_location=location, tags={TAG: view()})
            return str(number)
        except MlflowException:  # created by another process meanwhile
            experiment = mlflow_client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        raise UserError(f"tracking.experiment: {name!r} was deleted in MLflow; restore it there or choose another name")
    return str(experiment.experiment_id)


def experiments() -> dict[str, str]:
    """Name -> id of every experiment that is not deleted."""
    return {each.name: str(each.experiment_id) for each in client().search_experiments(max_results=1000)}


def start_run(experiment: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    """Start a run and log the whole spec as its params, one per dotted field; returns the run's id."""
    number = experiment_id(experiment)
    close_stale_runs(number)
    run_id = create_run(number, name, params, tags)
    log_spec(run_id, params)
    return run_id


def log_spec(run_id: str, spec: Mapping[str, Any]) -> None:
    """Keep the whole spec with the run: what `spec_of` reads."""
    client().log_dict(run_id, dict(spec), "spec.json")


def create_run(experiment: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    """Create a running run of this process in an experiment (by id) and log its params; returns the run's id."""
    mlflow_client = client()
    run = mlflow_client.create_run(experiment, run_name=name, tags={**tags, **this_process()})
    flat = list(flatten(params).items())
    for start in range(0, len(flat), 100):
        batch = [Param(key, "" if value is None else str(value)) for key, value in flat[start : start + 100]]
        mlflow_client.log_batch(run.info.run_id, params=batch)
    return str(run.info.run_id)


@contextmanager
def held_run(run_id: str) -> Iterator[None]:
    """Be the only process of this machine and data folder that trains a run, while the block runs.

    Raises
    ------
    UserError
        If another one does.
    """
    folder = make_home() / "locks"
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / f"{run_id}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        process = get_run(run_id).data.tags.get("unfreeze.process", "").partition(":")[0]
        raise UserError(_being_trained(run_id, process)) from None
    try:
        yield
    finally:
        lock.release()


def reopen_run(run_id: str, tags: Mapping[str, str], finished: bool = False) -> None:
    """Set a stopped run, or with `finished` any run, to running again, on behalf of this process.

    With `finished` the run may have several processes at a time, as a sweep has.

    Raises
    ------
    UserError
        If there is no such run, it is finished and may not be, or its process lives.
    """
    mlflow_client = client()
    run = get_run(run_id)
    if run.info.status == "FINISHED" and not finished:
        raise UserError(f"run {run_id} is finished; there is nothing to resume")
    if run.info.status == "RUNNING" and not finished:
        _refuse_live_run(run, tags)
    close_stale_runs(run.info.experiment_id)
    mlflow_client.update_run(run_id, status="RUNNING")
    mlflow_client.log_batch(run_id, tags=[RunTag(key, value) for key, value in {**tags, **this_process()}.items()])


def _refuse_live_run(run: Any, own_tags: Mapping[str, str]) -> None:
    """Refuse a run whose process lives: on this machine by its process id, elsewhere by what it logged last.

    An earlier attempt of the same Prefect flow run on another machine has ended, however lately it logged: Prefect
    starts the next only then.
    """
    tags, run_id = run.data.tags, run.info.run_id
    process, host = tags.get("unfreeze.process", "").partition(":")[0], tags.get("unfreeze.host", "another machine")
    if host == socket.gethostname():
        if process != str(os.getpid()) and not is_gone(tags):
            raise UserError(_being_trained(run_id, process))
        return
    if any(name in own_tags and tags.get(name) == own_tags[name] for name in (FLOW_RUN, PARENT)):
        return
    silent = time.time() - _last_logged(run) / 1000
    if silent < SILENT_SECONDS:
        raise UserError(
            f"run {run_id} is being trained by process {process} on {host}, which logged a metric {silent:.0f} s ago; "
            f"stop it there. A run that logged nothing for {SILENT_SECONDS} s is taken for dead"
        )


def _being_trained(run_id: str, process: str) -> str:
    return f"run {run_id} is being trained by process {process} of this machine; stop that one first"


def _last_logged(run: Any) -> int:
    """When the run logged its last metric, or began: milliseconds since 1970."""
    names = ("train/loss", "valid/loss", "system/cpu_utilization_percentage")
    histories = (client().get_metric_history(run.info.run_id, name) for name in names if name in run.data.metrics)
    return max([run.info.start_time, *(metric.timestamp for history in histories for metric in history[-1:])])


def get_run(run_id: str) -> Any:
    """The MLflow run; an unknown id is a `UserError`."""
    try:
        return client().get_run(run_id)
    except MlflowException as error:
        raise UserError(
            f"run {run_id!r} is not in MLflow at {tracking_store()}; "
            "copy the id from the MLflow page or from the run's last lines"
        ) from error


def run_with_tag(experiment: str, name: str, value: str) -> str | None:
    """The experiment's latest run with this value of a tag; None if there is none."""
    found = client().search_runs([experiment_id(experiment)], f"tags.`{name}` = '{value}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def spec_of(run_id: str) -> dict[str, Any]:
    """The spec that a run was started with."""
    get_run(run_id)
    path = fetch(run_id, "spec.json")
    if path is None:
        raise UserError(f"run {run_id} has no spec.json: unfreeze did not start it")
    spec: dict[str, Any] = json.loads(path.read_text())
    return spec


def kind_of_run(run_id: str) -> str:
    """What the run was started by: ``train-images``, ``train-tables``, ``find-lr``, ``sweep`` or ``trial``."""
    return tags_of(run_id).get("unfreeze.kind", "")


def close_run(run_id: str, status: RunStatus) -> None:
    """End a run."""
    client().set_terminated(run_id, status)


@contextmanager
def closing_run(run_id: str, resume_command: str) -> Iterator[None]:
    """End a run as the block ends: FINISHED, FAILED after an error, KILLED after a signal, Ctrl-C or a cancellation.

    Parameters
    ----------
    resume_command
        The command that continues with it; noted on what stopped the block.
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
    """Mark runs as KILLED whose process on this machine is gone: a killed process cannot say so itself."""
    host = socket.gethostname()
    mlflow_client = client()
    query = f"attributes.status = 'RUNNING' and tags.`unfreeze.host` = '{host}'"
    for run in mlflow_client.search_runs([experiment], query):
        if is_gone(run.data.tags):
            mlflow_client.set_terminated(run.info.run_id, "KILLED")


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name; lists of settings by position, other lists as JSON."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            flat |= flatten({str(position): item for position, item in enumerate(value)}, f"{name}.")
        else:
            flat[name] = json.dumps(value) if isinstance(value, list) else value
    return flat


class MetricLog:
    """Buffers a run's metrics and sends them in batches; use it as a context manager."""

    def __init__(self, run_id: str) -> None:
        self.run_id, self._client, self._buffer, self._sent = run_id, client(), list[Metric](), time.monotonic()

    def __enter__(self) -> "MetricLog":
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


def log_tags(run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run."""
    client().log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def tags_of(run_id: str) -> dict[str, str]:
    """Tags of a run."""
    return dict(get_run(run_id).data.tags)


def log_file(run_id: str, path: Path, folder: str | None = None) -> None:
    """Copy a file into the run's artifacts."""
    client().log_artifact(run_id, str(path), folder)


def log_png(run_id: str, png: bytes, name: str) -> None:
    """Store a rendered image as an artifact."""
    _log_written(run_id, name, lambda path: path.write_bytes(png))


def log_frame(run_id: str, frame: pd.DataFrame, name: str) -> None:
    """Store a table as a feather file; `name` is its path below the run's artifacts."""
    _log_written(run_id, name, frame.to_feather)


def _log_written(run_id: str, name: str, write: Callable[[Path], object]) -> None:
    """Let `write` make a file and store it as the artifact `name`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(name).name
        write(path)
        log_file(run_id, path, str(Path(name).parent) if "/" in name else None)


def log_text(run_id: str, text: str, name: str) -> None:
    """Store a text as an artifact."""
    client().log_text(run_id, text, name)


def artifacts(run_id: str, folder: str | None = None) -> list[str]:
    """Paths of the run's artifacts in a folder."""
    return [item.path for item in client().list_artifacts(run_id, folder)]


def fetch(run_id: str, name: str) -> Path | None:
    """A local copy of one of the run's artifacts (the file itself where artifacts are local); None if missing."""
    if name not in artifacts(run_id, str(Path(name).parent) if "/" in name else None):
        return None
    return Path(client().download_artifacts(run_id, name))


IMAGES_IN = Schema([ColSpec(DataType.binary, "image")])
"""An image per row, as encoded bytes."""
CLASSES_OUT = Schema(
    [
        ColSpec(DataType.string, "class"),
        ColSpec(DataType.double, "probability"),
        ColSpec(Array(DataType.double), "probabilities"),
    ]
)
"""The class, its probability, and the probabilities of all classes in their order."""


def columns_in(frame: pd.DataFrame) -> Schema:
    """Raw columns of a table, none of them required: a column that is not there is the model's to complain about."""
    with warnings.catch_warnings():
        # About gaps in whole numbers: no column is required here, and the model says itself what it cannot do without.
        warnings.filterwarnings("ignore", message="Hint: Inferred schema contains integer")
        inferred = infer_signature(frame).inputs
    return Schema([ColSpec(column.type, column.name, required=False) for column in inferred])


def values_out(targets: Sequence[str]) -> Schema:
    """A number per target."""
    return Schema([ColSpec(DataType.double, target) for target in targets])


@contextmanager
def code_of_models() -> Iterator[Path]:
    """The package `unfreeze` with nothing but ``unfreeze.models``: what a model that is served alone imports."""
    with tempfile.TemporaryDirectory() as place:
        package = Path(place) / "unfreeze"
        package.mkdir()
        source = Path(unfreeze.models.__file__).parent
        shutil.copy(source.parent / "__init__.py", package)
        shutil.copytree(source, package / "models", ignore=shutil.ignore_patterns("__pycache__"))
        yield package


def log_model(
    run_id: str,
    folder: Path,
    loader: str,
    signature: tuple[Schema, Schema],
    example: pd.DataFrame,
    requirements: Sequence[str],
    metadata: Mapping[str, Any],
) -> tuple[str, str]:
    """Log a model whose `loader` module reads `folder`, with the code of `models`; returns its URI and id.

    Parameters
    ----------
    signature
        What it takes and gives.
    requirements
        Packages that it needs besides MLflow; pinned to the versions installed here.
    """
    pinned = [f"{package}=={version(package).split('+')[0]}" for package in requirements]
    mlflow_client = client()
    run = mlflow_client.get_run(run_id)
    # Made here, because Model.log would put it into the default experiment, whatever the run's is.
    logged = mlflow_client.create_logged_model(
        run.info.experiment_id, name="model", source_run_id=run_id, params=dict(run.data.params)
    )
    with code_of_models() as code:
        info = Model.log(
            artifact_path=None,
            flavor=mlflow.pyfunc,
            name="model",
            run_id=run_id,
            model_id=logged.model_id,
            loader_module=loader,
            data_path=str(folder),
            code_paths=[str(code)],
            signature=ModelSignature(*signature),
            input_example=example,
            pip_requirements=pinned,
            metadata=dict(metadata),
        )
    return str(info.model_uri), str(info.model_id)


def register_model(name: str, run_id: str, model_uri: str, model_id: str, description: str) -> tuple[str, str]:
    """Register a logged model under `name`.

    Returns
    -------
    tuple of str
        The new version, and the alias it got: ``champion`` if the name had none, else ``challenger``.
    """
    mlflow_client = client()
    try:
        mlflow_client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = mlflow_client.create_model_version(
        name, model_uri, run_id=run_id, model_id=model_id, description=description
    )
    champion = mlflow_client.get_registered_model(name).aliases.get("champion")
    alias = "challenger" if champion else "champion"
    mlflow_client.set_registered_model_alias(name, alias, str(version.version))
    return str(version.version), alias


def page(run_id: str) -> str | None:
    """Address of the run's page; None where the store has no server of its own.

    People may reach the server by another name than we do: ``UNFREEZE_MLFLOW_PAGE``.
    """
    uri = os.environ.get("UNFREEZE_MLFLOW_PAGE") or os.environ["MLFLOW_TRACKING_URI"]
    if not uri.startswith("http"):
        return None
    return f"{uri.rstrip('/')}/#/experiments/{get_run(run_id).info.experiment_id}/runs/{run_id}?{WORKFLOW}"


def save_checkpoint(run_id: str, path: Path) -> None:
    """Upload a checkpoint and then point the run's tag at it, so that the tag never names a half-uploaded file."""
    log_file(run_id, path, CHECKPOINTS)
    log_tags(run_id, {"unfreeze.checkpoint": f"{CHECKPOINTS}/{path.name}"})


def latest_checkpoint(run_id: str) -> Path | None:
    """A local copy of the run's latest checkpoint; None before the first."""
    name = tags_of(run_id).get("unfreeze.checkpoint")
    return fetch(run_id, name) if name else None


def as_float(values: Mapping[str, Any]) -> dict[str, float]:
    """Finite numbers only: a metric that is undefined (an AUC without one class) is rejected, not logged as NaN."""
    return {key: float(value) for key, value in values.items() if np.isfinite(value)}
