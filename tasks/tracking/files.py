"""Artifacts of a run: its spec, texts, tables, images and checkpoints."""

import base64
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from unfreeze.models.errors import UserError
from unfreeze.models.settings.names import BACKBONE
from unfreeze.models.store.sealed_files import checksum, has_checksum
from unfreeze.tasks.machine.notices import in_run, log_notice, rendered
from unfreeze.tasks.tracking.entries import folder_here, log_tags, tags_of
from unfreeze.tasks.tracking.folder import ARTIFACTS, CHECKPOINTS, MODEL, RunFolder, folder_of
from unfreeze.tasks.tracking.metrics import MetricLog
from unfreeze.tasks.tracking.publish import LATEST_CHECKPOINT, publish_model
from unfreeze.tasks.tracking.publisher import commit, publish_now, wait_until_published
from unfreeze.tasks.tracking.server import client, get_run, local_file

if TYPE_CHECKING:  # takes half a second, and most commands draw nothing
    from matplotlib.figure import Figure

SPEC = "spec.json"
SPEC_COPY = "code/spec.json"
"""Backup used if `SPEC` is damaged: without a spec no run can be resumed, retrained or compared."""
DECIDING = ("*spec.json", "data/*.arrow", "data/*.json", "data/reference.feather", "*/predictions.feather")
"""Artifacts on which later decisions depend."""
CHECKSUM = "unfreeze.xxh3/"
"""Prefix of a run's tags with the hashes of such artifacts, by name."""


def log_spec(run_id: str, spec: Mapping[str, Any]) -> None:
    """Store the complete spec of a run."""
    text = json.dumps(dict(spec), indent=2, default=str)
    log_text(run_id, text, SPEC)
    log_text(run_id, text, SPEC_COPY)


def spec_of(run_id: str) -> dict[str, Any]:
    """The spec that a run was started with, with the backbone filled in if its data decided that."""
    if folder_of(run_id) is None:
        get_run(run_id)
    damaged: list[UserError] = []
    for name in (SPEC, SPEC_COPY):
        try:
            if (path := fetch(run_id, name)) is None:
                continue
            spec: dict[str, Any] = json.loads(path.read_text())
        except UserError as error:
            damaged.append(error)
        except ValueError as error:  # in a run whose artifacts have no checksums
            damaged.append(_damaged(run_id, name, str(error)))
        else:
            for problem in damaged:
                log_notice(f"warning: {problem}; its copy {name} is used")
            if (backbone := tags_of(run_id).get(BACKBONE)) is not None:
                spec["model"]["backbone"] = backbone
            return spec
    if damaged:
        raise UserError(f"{damaged[0]}, and so is its copy: the run cannot be continued; start a new one")
    raise UserError(f"run {run_id} has no {SPEC}: unfreeze did not start it")


def log_text(run_id: str, text: str, name: str) -> None:
    """Store a text; here and below, `name` is the path below the run's artifacts."""
    _log_written(run_id, name, lambda path: path.write_text(text, encoding="utf-8", errors="backslashreplace"))


def log_png(run_id: str, png: bytes, name: str) -> None:
    """Store a rendered image."""
    _log_written(run_id, name, lambda path: path.write_bytes(png))


def log_figure(run_id: str, draw: Callable[[], "Figure"], name: str, title: str) -> None:
    """Render an image once for the run's artifacts (as `name`) and the Prefect page.

    The page's artifact embeds the image, so it needs no file server.
    """
    png = rendered(draw, name, format="png", dpi=100)
    if png is None:
        return
    log_png(run_id, png, name)
    if in_run():
        from prefect.artifacts import create_markdown_artifact

        from unfreeze.tasks.machine.page import artifact_key, as_markdown, show

        encoded, shown = base64.b64encode(png).decode(), as_markdown(title)
        markdown = f"## {shown}\n\n![{shown}](data:image/png;base64,{encoded})"
        key = artifact_key(name.removesuffix(".png"))
        show(lambda: create_markdown_artifact(markdown, key=key, description=shown))


def log_frame(run_id: str, frame: pd.DataFrame, name: str) -> None:
    """Store a table as a feather file."""
    _log_written(run_id, name, frame.to_feather)


def log_file(run_id: str, path: Path, folder: str | None = None) -> None:
    """Copy a file into a folder of the run's artifacts."""
    _log_written(run_id, f"{folder}/{path.name}" if folder else path.name, lambda copy: _link(path, copy))


def _log_written(run_id: str, name: str, write: Callable[[Path], object]) -> None:
    """Store a file written by `write`; a run under way whose disk is full continues without it."""
    folder = folder_of(run_id)
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / Path(name).name
            write(path)
            client().log_artifact(get_run(run_id).info.run_id, str(path), name.rpartition("/")[0] or None)
            if _decides(name):
                log_tags(run_id, {f"{CHECKSUM}{name}": checksum(path)})
        return
    try:
        with folder.writing(f"{ARTIFACTS}/{name}") as path:
            write(path)
            hashed = {f"{CHECKSUM}{name}": checksum(path)} if _decides(name) else {}
        if hashed:
            folder.commit(tags=hashed)
    except OSError as error:
        if not folder.keeps_unwritten:
            raise
        log_notice(f"warning: {name} cannot be written ({error}); the run continues without it")
    publish_now(folder)


def _link(path: Path, copy: Path) -> None:
    """Copy a file, without using space where the file system allows; logged files are never rewritten."""
    try:
        os.link(path.resolve(), copy)
    except OSError:
        shutil.copyfile(path, copy)


def register(run_id: str, write: Callable[[Path], object], name: str, description: str) -> dict[str, str]:
    """Store a run's final model and have it registered.

    Parameters
    ----------
    run_id
        The run.
    write
        Writes it to a path in MLflow's format, see `save_mlflow_model`.
    name, description
        In the model registry.

    Returns
    -------
    dict
        ``model_uri``, ``name``, ``version``, ``alias`` and a ``line``; empty if MLflow does not answer, in which case
        publishing the run registers the model.
    """
    folder, about = folder_of(run_id), {"name": name, "description": description}
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            write(place := Path(temporary) / MODEL)
            return publish_model(get_run(run_id).info.run_id, place, about)
    with folder.writing(MODEL) as place:
        write(place)
    return _carried_out(folder, "model", about)


def decide(run_id: str, about: Mapping[str, Any]) -> dict[str, str]:
    """Carry out a retraining's decision, see `registry.apply_decision`; empty if MLflow does not answer."""
    return _carried_out(folder_here(run_id), "decision", {**about, "time": int(time.time())})


def _carried_out(folder: RunFolder, what: str, about: Mapping[str, Any]) -> dict[str, str]:
    """Commit a model or a decision and wait until MLflow has it; returns the outcome, else empty."""
    commit(folder, **{what: dict(about)})
    wait_until_published(folder.key)
    outcome: dict[str, str] = folder.published().get(what, {})
    return outcome


def kept_model(run_id: str) -> Path:
    """The folder of the final model of a run under way, whether published or not."""
    return next((folder_here(run_id).path / MODEL / "data").iterdir())


def artifacts(run_id: str, folder: str | None = None) -> list[str]:
    """Paths of the run's artifacts in a folder."""
    local = folder_of(run_id)
    if local is None:
        return sorted(item.path for item in client().list_artifacts(get_run(run_id).info.run_id, folder))
    roots = (local.path, local.path / ARTIFACTS) if folder == CHECKPOINTS else (local.path / ARTIFACTS,)
    return sorted(path.relative_to(root).as_posix() for root in roots for path in (root / (folder or "")).glob("*"))


def fetch(run_id: str, name: str) -> Path | None:
    """A local copy of an artifact (the file itself where artifacts are local); None if missing.

    Raises
    ------
    UserError
        If its content differs from its stored checksum, where it has one.
    """
    path = _found(run_id, name)
    if path is not None and _decides(name):
        wanted = tags_of(run_id).get(f"{CHECKSUM}{name}")
        if wanted is not None and not has_checksum(path, wanted):
            raise _damaged(run_id, name, "its content is not what was logged")
    return path


def read_frame(run_id: str, name: str) -> pd.DataFrame | None:
    """A table among the run's artifacts; None if missing.

    Raises
    ------
    UserError
        If it is damaged.
    """
    path = fetch(run_id, name)
    try:
        return None if path is None else pd.read_feather(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise _damaged(run_id, name, str(error)) from error


def _decides(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in DECIDING)


def _damaged(run_id: str, name: str, why: str) -> UserError:
    return UserError(f"{name} of run {run_id} is damaged ({why})")


def _found(run_id: str, name: str) -> Path | None:
    folder = folder_of(run_id)
    if folder is not None:
        return next((path for path in (folder.path / ARTIFACTS / name, folder.path / name) if path.is_file()), None)
    if name not in artifacts(run_id, name.rpartition("/")[0] or None):
        return None
    if (local := local_file(run_id, name)) is not None:
        return local
    # MLflow's default would be a folder that nothing removes.
    run_id = get_run(run_id).info.run_id
    return Path(client().download_artifacts(run_id, name, tempfile.mkdtemp(dir=_downloads().name)))


@cache
def _downloads() -> "tempfile.TemporaryDirectory[str]":
    """A folder for downloads, removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="unfreeze-")


def save_checkpoint(
    run_id: str, write: Callable[[Path], object], name: str | None = None, log: MetricLog | None = None
) -> None:
    """Save a checkpoint of a run under way.

    Parameters
    ----------
    run_id
        The run.
    write
        Writes it to a path.
    name
        Of a permanent checkpoint; without one it replaces the checkpoint before the last.
    log
        Its metrics so far are committed atomically with the checkpoint.
    """
    folder = folder_here(run_id)
    file = name or folder.next_checkpoint()
    with folder.writing(f"{CHECKPOINTS}/{file}") as path:
        write(path)
    commit(folder, checkpoint=file, rows=log.take() if log else [])


def checkpoints_of(run_id: str) -> list[str]:
    """Artifacts of a run's checkpoints, the latest last."""
    folder = folder_of(run_id)
    if folder is not None:
        return [f"{CHECKPOINTS}/{name}" for name in folder.checkpoints]
    latest = get_run(run_id).data.tags.get(LATEST_CHECKPOINT)
    return [] if latest is None else sorted({*artifacts(run_id, CHECKPOINTS), latest}, key=lambda name: name == latest)
