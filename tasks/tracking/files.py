"""Artifacts of a run: its spec, texts, tables, images and checkpoints."""

import json
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pandas as pd

from unfreeze.models.errors import UserError
from unfreeze.models.sealed_files import flush_to_disk
from unfreeze.tasks.tracking.server import client, get_run

CHECKPOINTS = "checkpoints"
"""Artifact folder of a run's checkpoints."""
LATEST_CHECKPOINT = "unfreeze.checkpoint"
"""Tag of a run: the artifact that is its latest checkpoint."""
SPEC = "spec.json"


def log_spec(run_id: str, spec: Mapping[str, Any]) -> None:
    """Store the whole spec that a run is started with."""
    client().log_dict(run_id, dict(spec), SPEC)


def spec_of(run_id: str) -> dict[str, Any]:
    """The spec that a run was started with."""
    get_run(run_id)
    path = fetch(run_id, SPEC)
    if path is None:
        raise UserError(f"run {run_id} has no {SPEC}: unfreeze did not start it")
    spec: dict[str, Any] = json.loads(path.read_text())
    return spec


def log_text(run_id: str, text: str, name: str) -> None:
    """Store a text; `name`, as in all of these functions, is its path below the run's artifacts."""
    client().log_text(run_id, text, name)


def log_png(run_id: str, png: bytes, name: str) -> None:
    """Store a rendered image."""
    _log_written(run_id, name, lambda path: path.write_bytes(png))


def log_frame(run_id: str, frame: pd.DataFrame, name: str) -> None:
    """Store a table as a feather file."""
    _log_written(run_id, name, frame.to_feather)


def _log_written(run_id: str, name: str, write: Callable[[Path], object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(name).name
        write(path)
        log_file(run_id, path, _folder_of(name))


def _folder_of(name: str) -> str | None:
    return name.rpartition("/")[0] or None


def log_file(run_id: str, path: Path, folder: str | None = None) -> None:
    """Copy a file into a folder of the run's artifacts."""
    client().log_artifact(run_id, str(path), folder)


def artifacts(run_id: str, folder: str | None = None) -> list[str]:
    """Paths of the run's artifacts in a folder."""
    return [item.path for item in client().list_artifacts(run_id, folder)]


def fetch(run_id: str, name: str) -> Path | None:
    """A local copy of an artifact (the file itself where artifacts are local); None if there is none."""
    if name not in artifacts(run_id, _folder_of(name)):
        return None
    if (local := _local(run_id, name)) is not None:
        return local
    # MLflow's own choice would be a folder that nobody removes.
    return Path(client().download_artifacts(run_id, name, tempfile.mkdtemp(dir=_downloads().name)))


def _local(run_id: str, name: str) -> Path | None:
    """The file of an artifact where artifacts are files of this machine."""
    place = urlsplit(get_run(run_id).info.artifact_uri)
    return Path(url2pathname(place.path)) / name if place.scheme in ("", "file") else None


@cache
def _downloads() -> "tempfile.TemporaryDirectory[str]":
    """A folder for downloads, removed as the process ends."""
    return tempfile.TemporaryDirectory(prefix="unfreeze-")


def save_checkpoint(run_id: str, path: Path) -> None:
    """Upload a checkpoint and then point the run's tag at it, so that the tag never names a half-uploaded file."""
    log_file(run_id, path, CHECKPOINTS)
    name = f"{CHECKPOINTS}/{path.name}"
    if (local := _local(run_id, name)) is not None:
        flush_to_disk(local)
    client().set_tag(run_id, LATEST_CHECKPOINT, name)


def latest_checkpoint(run_id: str) -> Path | None:
    """A local copy of the run's latest checkpoint; None before the first."""
    name = get_run(run_id).data.tags.get(LATEST_CHECKPOINT)
    return fetch(run_id, name) if name else None
