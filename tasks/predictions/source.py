"""The model and the source of a prediction."""

import os
from pathlib import Path
from typing import Any

from prefect import task

from unfreeze.models.errors import UserError
from unfreeze.models.reading.remote import is_url
from unfreeze.models.recipe.modality import modality, modality_in
from unfreeze.models.settings.predict import Predict
from unfreeze.models.store.paths import given_path
from unfreeze.models.store.sealed_files import DESCRIPTION
from unfreeze.models.store.workspace import key_of
from unfreeze.tasks.machine.environment import home
from unfreeze.tasks.machine.notices import log_info
from unfreeze.tasks.steps.workspace import FlowWorkspace
from unfreeze.tasks.tracking import registry


@task(name="find-model", task_run_name="find {model}")
def find_model(model: str) -> dict[str, str]:
    """Look up a model in the registry and fetch it once.

    Parameters
    ----------
    model
        `NAME@ALIAS`, `NAME/VERSION`, or `NAME` for its champion.

    Returns
    -------
    dict
        ``name``, ``version``, ``run_id``, ``folder`` (for the predictor) and ``modality``.

    Raises
    ------
    UserError
        If the model, version or alias is unknown, or the model is not unfreeze's.
    """
    text = model.removeprefix("models:/")
    separator = "@" if "@" in text else "/"
    name, _, which = text.rpartition(separator) if separator in text else (text, "", registry.CHAMPION)
    if not name or not which:
        raise UserError(f"model {model!r}: write NAME@ALIAS, NAME/VERSION, or NAME for its champion")
    version = registry.version_of(registry.full_name(name), which)
    folder = registry.folder_of(version)
    kind = modality_in(folder)
    log_info(f"{version.name} version {version.number} predicts {kind.rows}")
    found = {"name": version.name, "version": version.number, "run_id": version.run_id}
    return {**found, "folder": str(folder), "modality": kind.name}


def find_model_or_folder(model: str) -> dict[str, str]:
    """As `find_model`, also for the model in a folder, without ``version`` and ``run_id``."""
    folder = given_path(model)
    if (folder / DESCRIPTION).is_file():
        found = {"name": folder.resolve().name, "version": "", "run_id": ""}
        return {**found, "folder": str(folder), "modality": modality_in(folder).name}
    return find_model.fn(model)


@task(name="list-source", task_run_name="list {params.source}")
def list_source(params: Predict, model: dict[str, str]) -> dict[str, Any]:
    """List the rows to predict.

    Returns
    -------
    dict
        ``path`` (of a listing of images, or of the table as a feather file), ``rows`` and ``content`` (a key that
        changes with them).

    Raises
    ------
    UserError
        If the model cannot predict this source.
    """
    kind, out = modality(model["modality"]), out_of(params)
    without = [out, *out.parent.glob(f"{out.name}.*.partial")]
    source = kind.list_source(params, model["name"], Path(model["folder"]), FlowWorkspace(), without)
    log_info(f"{params.source}: {source['rows']:,} {kind.rows}")
    return source


def out_of(params: Predict) -> Path:
    """Absolute path of the file to write; for a URL, of the local file that is uploaded."""
    if is_url(params.out):
        return home() / "predictions" / key_of(params.out) / params.out.rpartition("/")[2]
    return Path(os.path.abspath(given_path(params.out)))
