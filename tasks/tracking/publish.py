"""Idempotent publication of a run's folder to MLflow, at any time and by any process.

A response may be lost, so every request may be repeated. MLflow's stores hold one row per run, name, step, time and
value of a metric; tags and files are replaced; a run is looked up by its key, and a model by its run, before either is
created; an alias moves only from the version that was compared. Metrics go before the checkpoint that follows them:
another machine that resumes from the previous checkpoint logs them again and skips those already there.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from unfreeze.models.store.sealed_files import flush_to_disk
from unfreeze.tasks.machine.locks import holding
from unfreeze.tasks.machine.notices import log_notice
from unfreeze.tasks.tracking.folder import (
    CHECKPOINTS,
    MODEL,
    OWNER,
    RunFolder,
    end_if_gone,
    is_unnamed,
    owner_of,
)
from unfreeze.tasks.tracking.registry import apply_decision, log_model_folder, register_model
from unfreeze.tasks.tracking.server import client, experiment_id, find_by_key, local_file, reason_of

LATEST_CHECKPOINT = "unfreeze.checkpoint"
"""Tag of a run: the artifact that is its latest checkpoint."""
SLOTS = ("last-a.safetensors", "last-b.safetensors")
"""Unnamed checkpoints alternate between these in MLflow, so the one the run points at is never overwritten."""
KEY, WHOLE = "unfreeze.key", "mlflow.parentRunId"
"""Tags of a run: its key in the data folder; of a child run, its parent's id."""
ALIVE = "unfreeze.alive"
"""Tag of a run: its process's last sign of life, in milliseconds since 1970."""
ROWS_PER_CALL, PARAMS_PER_CALL = 500, 100
"""MLflow accepts at most 1000 and 100; a thousand metrics take 120 ms, and one call 20 ms."""
FINAL = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}
"""MLflow's errors that retries cannot fix."""

SECONDS_TO_TAKE_OVER = 60.0
"""How long to wait for another process or an earlier thread that publishes: longer than SQLite waits for a lock."""

_settled: dict[Path, int] = {}
"""Folder of an ended and published child run -> bytes of its log: a sweep may have thousands."""


class TakenOver(Exception):
    """Another process has resumed the run, so this folder's unpublished rest is outdated."""


def publish(folder: RunFolder, progress: Callable[[float], None] = lambda size: None) -> None:
    """Make MLflow equal to a run's folder and those of its child runs.

    Parameters
    ----------
    folder
        Of a top-level run.
    progress
        Called before each request with its megabytes.

    Raises
    ------
    TakenOver
        If another process has resumed the run.
    MlflowException, OSError, ...
        If MLflow does not answer, or another process is still publishing the run after a minute.
    """
    with holding(folder.path / "publishing", SECONDS_TO_TAKE_OVER) as is_ours:
        if not is_ours:
            raise TimeoutError(f"run {folder.shown_id} is being published by another process")
        whole = _Publication(folder, None, progress)
        whole.run()
        for part in folder.parts():
            if part.state == "RUNNING":
                end_if_gone(part)
            if pending(part):
                _Publication(part, whole.id, progress).run()


def pending(folder: RunFolder) -> int:
    """Number of commits and files of a run and its child runs that MLflow lacks."""
    if _settled.get(folder.path) == folder.refresh().size:
        return 0
    shown = folder.published()
    commits = len(list(folder.commits(shown.get("offset", 0))))
    files = sum(shown.get("files", {}).get(name) != file_state(path) for name, path in folder.files().items())
    count: int = commits + files + sum(pending(part) for part in folder.parts())
    if not count and folder.state != "RUNNING" and folder.whole != folder.path:
        _settled[folder.path] = folder.size
    return count


def refused(folder: RunFolder) -> list[str]:
    """Items of a run and its child runs that MLflow refused, each with the reason."""
    own = [f"{what}: {why}" for what, why in folder.published().get("refused", {}).items()]
    return [*own, *(line for part in folder.parts() for line in refused(part))]


def file_state(path: Path) -> list[int]:
    """A value that changes with a file's content."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


class _Publication:
    """The publication of one run."""

    def __init__(self, folder: RunFolder, whole: str | None, progress: Callable[[float], None]) -> None:
        self.folder, self.whole, self.progress = folder.refresh(), whole, progress
        self.end = folder.size
        self.shown = {"refused": {}, "files": {}, "checkpoints": {}, **folder.published()}

    @property
    def id(self) -> str:
        """MLflow's id of the run."""
        return str(self.shown["id"])

    def run(self) -> None:
        """Publish everything that was committed before this call."""
        folder, shown = self.folder, self.shown
        commits = [commit for commit, _ in folder.commits(shown.get("offset", 0), self.end)]
        new = {key: value for commit in commits for key, value in commit.items()}  # the latest of each key
        if "id" not in shown:
            self._create()
        published = client().get_run(self.id)
        if self.whole is None and not folder.about.get("shared"):
            owner = owner_of(published.data.tags)
            if owner not in folder.owners:
                raise TakenOver(f"run {self.id} was resumed by process {owner[1]} on {owner[0]}")
        tags = {name: text for commit in commits for name, text in commit.get("tags", {}).items()}
        alive = {ALIVE: str(int(time.time() * 1000))} if folder.state == "RUNNING" and self.whole is None else {}
        # First: from here on others see which process has the run.
        self._tags({**{name: tags.pop(name) for name in OWNER if name in tags}, **alive})
        if "begin" in new:
            params = [Param(*each) for each in folder.about["params"]]
            for start in range(0, len(params), PARAMS_PER_CALL):
                some = params[start : start + PARAMS_PER_CALL]
                self._send(f"params from {start}", partial(client().log_batch, self.id, params=some))
        if new.get("state") == "RUNNING":
            self._send("state", partial(client().update_run, self.id, status="RUNNING"))
        if "data" in new:
            described = [DatasetInput(Dataset(**new["data"]), [InputTag("mlflow.data.context", "training")])]
            self._send("data set", partial(client().log_inputs, self.id, described))
        self._files()
        rows = [Metric(*row) for commit in commits for row in commit.get("rows", [])]
        for start in range(0, len(rows), ROWS_PER_CALL):
            batch = rows[start : start + ROWS_PER_CALL]
            self._send("metrics", partial(client().log_batch, self.id, metrics=batch))
        if "dropped" in new:
            names = [each.path for each in client().list_artifacts(self.id, CHECKPOINTS)]
            drop_checkpoints(self.id, [each for each in names if Path(each).name not in folder.checkpoints])
        self._checkpoints(published.data.tags.get(LATEST_CHECKPOINT, ""))
        self._tags(tags)
        self._model(new.get("model"), new.get("decision"))
        if new.get("state", "RUNNING") != "RUNNING":
            self._send("end", partial(client().set_terminated, self.id, folder.state, folder.ended))
            drop_doubles(folder.key, self.id)
        shown["offset"] = self.end
        self._keep()

    def _create(self) -> None:
        """Find the run by its key, or create it together with its key tag."""
        folder, about = self.folder, self.folder.about
        experiment = experiment_id(about["experiment"])
        found = find_by_key(folder.key)
        if found is None:
            tags = {**folder.tags, KEY: folder.key, **({WHOLE: self.whole} if self.whole else {})}
            short = {name: text[:5000] for name, text in tags.items() if len(name) <= 250}
            run = client().create_run(experiment, start_time=about["time"], run_name=about["name"], tags=short)
            found = str(run.info.run_id)
        self.shown |= {"id": found, "experiment": experiment}
        self._keep()

    def _send(self, what: str, call: Callable[[], object], size: float = 0.0) -> None:
        """Make a request; a permanent refusal is recorded and does not block the others."""
        self.progress(size)
        try:
            call()
        except MlflowException as error:
            if error.error_code not in FINAL:
                raise
            if what not in self.shown["refused"]:
                log_notice(f"MLflow refuses something of run {self.id} ({what}): {reason_of(error)}")
            self.shown["refused"][what] = reason_of(error)

    def _keep(self) -> None:
        with suppress(OSError):  # on a full disk it is sent again
            self.folder.keep_published(self.shown)

    def _tags(self, tags: Mapping[str, str]) -> None:
        if not tags:
            return
        try:
            self.progress(0.0)
            client().log_batch(self.id, tags=[RunTag(*each) for each in tags.items()])
        except MlflowException as error:
            if error.error_code not in FINAL:
                raise
            for name, text in tags.items():  # all except the refused one
                self._send(f"tag {name}", partial(client().set_tag, self.id, name, text))

    def _files(self) -> None:
        kept = self.shown["files"]
        for name, path in self.folder.files().items():
            with suppress(FileNotFoundError):  # being replaced; published next time
                state = file_state(path)
                if kept.get(name) != state:
                    folder = name.rpartition("/")[0] or None
                    self._send(name, partial(client().log_artifact, self.id, str(path), folder), state[0] / 2**20)
                    kept[name] = state
                    self._keep()

    def _checkpoints(self, last: str) -> None:
        """Upload the latest checkpoint and the named ones; `last` is the artifact that MLflow points at."""
        folder, kept = self.folder, self.shown["checkpoints"]
        latest = folder.checkpoints[-1] if folder.checkpoints else None
        for name in folder.checkpoints:
            if name in kept or (is_unnamed(name) and name != latest):
                continue
            target = (SLOTS[1] if last.endswith(SLOTS[0]) else SLOTS[0]) if is_unnamed(name) else name
            with tempfile.TemporaryDirectory(dir=folder.path) as place:
                copy = Path(place) / target  # an artifact is named after its file
                try:
                    os.link(folder.path / CHECKPOINTS / name, copy)
                except FileNotFoundError:  # two newer ones were saved; the next call publishes those
                    continue
                size = copy.stat().st_size / 2**20
                self._send(name, partial(client().log_artifact, self.id, str(copy), CHECKPOINTS), size)
            if (local := local_file(self.id, f"{CHECKPOINTS}/{target}")) is not None and local.exists():
                flush_to_disk(local)
            if name == latest:
                client().set_tag(self.id, LATEST_CHECKPOINT, f"{CHECKPOINTS}/{target}")
            kept[name] = target
            self._keep()

    def _model(self, about: Mapping[str, str] | None, decision: Mapping[str, Any] | None) -> None:
        """Register the model and carry out a retraining's decision about it, each once."""
        shown, place = self.shown, self.folder.path / MODEL
        if about is not None and "model" not in shown:
            size = sum(each.stat().st_size for each in place.rglob("*")) / 2**20
            self._send("model", lambda: shown.update(model=publish_model(self.id, place, about)), size)
            self._keep()
        if decision is not None and "model" in shown and "decision" not in shown:
            self._send("decision", lambda: shown.update(decision=apply_decision(self.id, decision)))
            self._keep()


def publish_model(run_id: str, place: Path, about: Mapping[str, str]) -> dict[str, str]:
    """Log a folder written by `save_mlflow_model` as the run's model, and register it."""
    uri, model_id = log_model_folder(run_id, place)
    return {"model_uri": uri, **register_model(about["name"], run_id, uri, model_id, about["description"])}


def drop_checkpoints(run_id: str, names: Iterable[str]) -> None:
    """Remove checkpoints from MLflow, by artifact name.

    A store that forbids deletion does not fail a finished run.
    """
    run = client().get_run(run_id)
    if run.data.tags.get(LATEST_CHECKPOINT) in (names := list(names)):
        client().delete_tag(run_id, LATEST_CHECKPOINT)
    try:
        store = get_artifact_repository(run.info.artifact_uri)
        for name in names:
            store.delete_artifacts(name)
    except Exception as error:
        log_notice(f"checkpoints of run {run_id} could not be removed ({reason_of(error)})")


def drop_doubles(key: str, run_id: str) -> None:
    """Remove all other runs of a key, which a request that hung may have created later."""
    while (other := find_by_key(key, but=run_id)) is not None:
        client().delete_run(other)
