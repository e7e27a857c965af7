"""Registered models: their versions, the champion among them, and what was decided about them."""

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import mlflow.artifacts
from mlflow.exceptions import MlflowException

from unfreeze.models.errors import UserError
from unfreeze.models.store.sealed_files import CHECKSUMS, DESCRIPTION, JUDGED, damaged_file
from unfreeze.models.store.workspace import Derived, Workspace, key_of
from unfreeze.tasks.machine.environment import home
from unfreeze.tasks.tracking.server import client, get_run

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
LATEST_RETRAINING = "unfreeze.retrained"
"""Tag of a registered model: JSON of the latest retraining's time, decision, data and version."""


class Version(NamedTuple):
    """One version of a registered model."""

    name: str
    number: str
    run_id: str
    uri: str


def register_model(name: str, run_id: str, model_uri: str, model_id: str, description: str) -> tuple[str, str]:
    """Register a run's logged model under `name`, unless it is registered there already.

    Returns
    -------
    tuple of str
        The version, and the alias it got: ``champion`` if the name had none, else ``challenger``.
    """
    mlflow_client = client()
    try:
        mlflow_client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = mlflow_client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    if known:
        version = str(max(int(each.version) for each in known))
    else:
        made = mlflow_client.create_model_version(
            name, model_uri, run_id=run_id, model_id=model_id, description=description
        )
        version = str(made.version)
    aliases = {alias: str(number) for alias, number in mlflow_client.get_registered_model(name).aliases.items()}
    held = [alias for alias in (CHAMPION, CHALLENGER, PREVIOUS) if aliases.get(alias) == version]
    if held:
        return version, held[0]
    alias = CHALLENGER if CHAMPION in aliases else CHAMPION
    mlflow_client.set_registered_model_alias(name, alias, version)
    return version, alias


def full_name(name: str) -> str:
    """The registered model that a person means by `name`, which may lack ``-classifier`` or ``-table``.

    Raises
    ------
    UserError
        If there is none, or more than one; lists those there are.
    """
    registered = sorted(model.name for model in _registered_models())
    matching = [each for each in (name, f"{name}-classifier", f"{name}-table") if each in registered]
    if name in matching or len(matching) == 1:
        return matching[0]
    if matching:
        raise UserError(f"model {name!r}: {' or '.join(matching)}? give the whole name")
    there = f"there are {', '.join(registered)}" if registered else "no model is registered yet"
    raise UserError(f"there is no registered model {name!r} ({there}); train it first")


def version_of(name: str, which: str) -> Version:
    """A version by number or alias; `UserError` with those there are if the model has no such one."""
    mlflow_client, is_number = client(), which.isdigit()
    find = mlflow_client.get_model_version if is_number else mlflow_client.get_model_version_by_alias
    try:
        found = find(name, which)
    except MlflowException:
        aliases = sorted(mlflow_client.get_registered_model(name).aliases.items())
        versions = sorted(int(each.version) for each in mlflow_client.search_model_versions(f"name = '{name}'"))
        known = [*(f"{alias} (version {number})" for alias, number in aliases), *map(str, versions)]
        kind = "version" if is_number else "alias"
        raise UserError(f"{name} has no {kind} {which!r}; it has {', '.join(known)}") from None
    return Version(name, str(found.version), str(found.run_id), f"models:/{name}/{found.version}")


def champion_of(name: str) -> Version | None:
    """The champion; None where the model, or its champion, does not exist."""
    try:
        return version_of(full_name(name), CHAMPION)
    except UserError:
        return None


def folder_of(version: Version) -> Path:
    """The folder of a version, a copy in the cache: what a predictor of `models` reads."""
    files = {"model": Derived("models", key_of(version.name, version.number, version.run_id), "")}

    def download(wanted: dict[str, Path]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            local = mlflow.artifacts.download_artifacts(version.uri, dst_path=folder)
            descriptions = [path for path in Path(local).rglob(DESCRIPTION) if path.parent.name != JUDGED]
            if len(descriptions) != 1:
                raise UserError(f"{version.name} version {version.number}: unfreeze did not register this model")
            damaged = damaged_file(descriptions[0].parent)
            if damaged not in (None, CHECKSUMS):  # without checksums it is another release's, which the reader reports
                raise UserError(
                    f"{version.name} version {version.number}: {damaged} is damaged in {version.uri}; use another "
                    f"version (`unfreeze promote {version.name} back` makes the one before champion), or train again"
                )
            shutil.copytree(descriptions[0].parent, wanted["model"])

    return Workspace(home()).derive("fetch model", files, download)["model"]


def answering(name: str, number: str, run_id: str) -> str:
    """Which version of a model predicts now that version `number` is registered, and the commands to change that."""
    champion = champion_of(name)
    if champion is None or champion.number == number:
        return f"`unfreeze predict {name}` answers with version {number} from now on"
    return (
        f"`unfreeze predict {name}` still answers with version {champion.number}, the champion; compare the two: "
        f"unfreeze compare {champion.run_id} {run_id}; answer with version {number}: unfreeze promote {name} {number}"
    )


def set_champion(name: str, number: str) -> str | None:
    """Make a version the champion; the champion before keeps the alias ``previous``, and its number is returned.

    The alias moves in one step on the server: whoever loads ``models:/name@champion`` gets the one or the other.
    """
    mlflow_client = client()
    aliases = mlflow_client.get_registered_model(name).aliases
    before = str(aliases[CHAMPION]) if CHAMPION in aliases else None
    if before == number:
        before = None
    else:
        if before is not None:
            mlflow_client.set_registered_model_alias(name, PREVIOUS, before)
        mlflow_client.set_registered_model_alias(name, CHAMPION, number)
    if str(aliases.get(CHALLENGER)) == number:
        mlflow_client.delete_registered_model_alias(name, CHALLENGER)
    return before


def promote(model: str, which: str) -> str:
    """Make a version the champion by hand; returns a line that reports it.

    Parameters
    ----------
    model
        Registered model, its name in full or short.
    which
        A version's number, an alias, or ``back`` for the champion before this one.
    """
    name = full_name(model)
    version, champion = version_of(name, PREVIOUS if which == "back" else which), champion_of(name)
    if version == champion:
        return f"{name}: version {version.number} is champion already"
    set_champion(name, version.number)
    instead = f" instead of version {champion.number}" if champion else ""
    describe(version.name, version.number, f"Made champion by hand{instead}.")
    return f"{name}: version {version.number} is champion{instead}"


def describe(name: str, number: str, line: str) -> None:
    """Add a line to a version's description."""
    mlflow_client = client()
    described = mlflow_client.get_model_version(name, number).description or ""
    mlflow_client.update_model_version(name, number, f"{described}\n\n{line}".strip())


def champions() -> list[dict[str, Any]]:
    """A row per registered model: its champion and challenger, when it was trained, the latest retraining."""
    rows = []
    for model in _registered_models():
        run, kept = _champion_run(model), json.loads(model.tags.get(LATEST_RETRAINING, "{}"))
        rows.append(
            {
                "model": model.name,
                "champion": model.aliases.get(CHAMPION),
                "challenger": model.aliases.get(CHALLENGER),
                "trained": _moment(run.info.start_time / 1000) if run else None,
                "run": run.info.run_name if run else None,
                "latest retraining": f"{_moment(kept['time'])}: {kept['decision']}" if kept else None,
            }
        )
    return rows


def own_champions() -> list[str]:
    """Names of the models that have a champion trained by unfreeze: a registry may hold models of other programs."""
    runs = {str(model.name): _champion_run(model) for model in _registered_models()}
    return [name for name, run in runs.items() if run is not None and "unfreeze.kind" in run.data.tags]


def _registered_models() -> list[Any]:
    return list(client().search_registered_models(max_results=1000))


def _champion_run(model: Any) -> Any | None:
    """The run that made a registered model's champion; None where there is none, as in other programs' models."""
    try:
        return get_run(version_of(model.name, CHAMPION).run_id) if CHAMPION in model.aliases else None
    except UserError:
        return None


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
