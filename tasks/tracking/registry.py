"""Models in MLflow: logged with runs, registered as versions, promoted by users and retrainings."""

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow
import mlflow.artifacts
import numpy as np
import pandas as pd
from mlflow.entities import LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

import unfreeze.models
from unfreeze.models.errors import UserError
from unfreeze.models.store.sealed_files import CHECKSUMS, DESCRIPTION, JUDGED, damaged_file
from unfreeze.models.store.workspace import Derived, Workspace, key_of
from unfreeze.tasks.machine.environment import home
from unfreeze.tasks.tracking.server import client, get_run

if TYPE_CHECKING:  # they import torch, which commands that only list runs do not need
    from unfreeze.models.recipe.modality import Modality
    from unfreeze.models.targets import Target

LOGGED = "model"
"""Name of the logged model of a run."""
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
LATEST_RETRAINING = "unfreeze.retrained"
"""Tag of a registered model: JSON of the latest retraining's time, decision, data and version."""

PROMOTED, KEPT, SUPERSEDED = "promoted", "kept champion", "superseded"
"""Values of the tag ``unfreeze.decision``; superseded: the version to be replaced is no longer champion."""


class Version(NamedTuple):
    """One version of a registered model."""

    name: str
    number: str
    run_id: str
    uri: str


def register_model(name: str, run_id: str, model_uri: str, model_id: str, description: str) -> dict[str, str]:
    """Register a run's logged model under `name`, unless already registered.

    Returns
    -------
    dict
        ``name``, ``version``, ``alias`` (``champion`` if the name had none, else ``challenger``), and a ``line`` that
        says which version answers.
    """
    mlflow_client = client()
    try:
        mlflow_client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    found = version_of_run(run_id, name) or mlflow_client.create_model_version(
        name, model_uri, run_id=run_id, model_id=model_id, description=description
    )
    version = str(found.version)
    aliases = {alias: str(number) for alias, number in mlflow_client.get_registered_model(name).aliases.items()}
    held = [alias for alias in (CHAMPION, CHALLENGER, PREVIOUS) if aliases.get(alias) == version]
    alias = held[0] if held else CHALLENGER if CHAMPION in aliases else CHAMPION
    if not held:
        mlflow_client.set_registered_model_alias(name, alias, version)
    return {"name": name, "version": version, "alias": alias, "line": answering(name, version, run_id)}


def full_name(name: str) -> str:
    """The full name of a registered model; `name` may lack ``-classifier`` or ``-table``.

    Raises
    ------
    UserError
        If no model or several match; lists the existing ones.
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
    """A version by number or alias; an unknown one is a `UserError` that lists the existing ones."""
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
    """The champion; None if the model or its champion does not exist."""
    try:
        return version_of(full_name(name), CHAMPION)
    except UserError:
        return None


def folder_of(version: Version) -> Path:
    """The folder of a version as a cached copy that predictors read."""
    files = {"model": Derived("models", key_of(version.name, version.number, version.run_id), "")}

    def download(wanted: dict[str, Path]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            local = mlflow.artifacts.download_artifacts(version.uri, dst_path=folder)
            descriptions = [path for path in Path(local).rglob(DESCRIPTION) if path.parent.name != JUDGED]
            if len(descriptions) != 1:
                raise UserError(f"{version.name} version {version.number}: unfreeze did not register this model")
            damaged = damaged_file(descriptions[0].parent)
            if damaged not in (None, CHECKSUMS):  # without checksums it is of another release, which the reader reports
                raise UserError(
                    f"{version.name} version {version.number}: {damaged} is damaged in {version.uri}; use another "
                    f"version (`unfreeze promote {version.name} back` makes the one before champion), or train again"
                )
            shutil.copytree(descriptions[0].parent, wanted["model"])

    return Workspace(home()).derive("fetch model", files, download)["model"]


def answering(name: str, number: str, run_id: str) -> str:
    """Text on which version of a model predicts after `number` was registered, with the commands to change that."""
    champion = champion_of(name)
    if champion is None or champion.number == number:
        return f"`unfreeze predict {name}` answers with version {number} from now on"
    return (
        f"`unfreeze predict {name}` still answers with version {champion.number}, the champion; compare the two: "
        f"unfreeze compare {champion.run_id} {run_id}; answer with version {number}: unfreeze promote {name} {number}"
    )


def set_champion(name: str, number: str) -> str | None:
    """Make a version the champion; the former champion keeps the alias ``previous``, and its number is returned.

    The alias moves atomically on the server: ``models:/name@champion`` is always one or the other.
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
        Full or short name of the registered model.
    which
        A version's number, an alias, or ``back`` for the previous champion.
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
    """One row per registered model: champion, challenger, training time, latest retraining."""
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
    """Names of models whose champion unfreeze trained; a registry may hold other programs' models."""
    runs = {str(model.name): _champion_run(model) for model in _registered_models()}
    return [name for name, run in runs.items() if run is not None and "unfreeze.kind" in run.data.tags]


def _registered_models() -> list[Any]:
    return list(client().search_registered_models(max_results=1000))


def _champion_run(model: Any) -> Any | None:
    """The run of a registered model's champion; None if there is none, as for other programs' models."""
    try:
        return get_run(version_of(model.name, CHAMPION).run_id) if CHAMPION in model.aliases else None
    except UserError:
        return None


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def version_of_run(run_id: str, name: str | None = None) -> Any | None:
    """MLflow's latest registered version from a run, of the model `name` if given; None if there is none."""
    of_model = f" and name = '{name}'" if name else ""
    versions = client().search_model_versions(f"run_id = '{run_id}'{of_model}")
    latest = max(versions, key=lambda each: int(each.version), default=None)
    # The search leaves aliases out.
    return None if latest is None else client().get_model_version(latest.name, latest.version)


def apply_decision(run_id: str, body: Mapping[str, Any]) -> dict[str, str]:
    """Move the alias if the challenger is promoted and the version it beat is still champion; record the decision.

    Returns
    -------
    dict
        ``decision``, one of this module's constants, ``version`` of the challenger, ``champion``, and a ``line``.
    """
    mlflow_client, name, compared = client(), body["name"], body["champion"]
    version = version_of_run(run_id, name)
    if version is None:
        raise MlflowException(f"run {run_id} has registered no version of {name}", RESOURCE_DOES_NOT_EXIST)
    number, described = str(version.version), version.description or ""
    champion = mlflow_client.get_registered_model(name).aliases.get(CHAMPION)
    champion = None if champion is None else str(champion)
    if not body["promote"]:
        decision = KEPT
        line = f"Version {number} was not promoted, version {compared} stays champion"
    elif champion in (compared, number):
        set_champion(name, number)
        decision, champion = PROMOTED, number
        line = f"Version {number} was promoted over version {compared}"
    else:
        decision, now = SUPERSEDED, f"version {champion} is" if champion is not None else "there is none"
        line = f"Version {number} beat version {compared}, but {now} champion by now, so it was not promoted"
    tags = {
        "unfreeze.decision": decision,
        "unfreeze.decision.reasons": "; ".join(body["reasons"]),
        "unfreeze.decision.numbers": body["numbers"],
        "unfreeze.champion_before": compared,
    }
    whole = f"{line}: {'; '.join(body['reasons'])}."
    if whole not in described:  # added by an earlier attempt
        describe(name, number, whole)
    for key, value in tags.items():
        mlflow_client.set_model_version_tag(name, number, key, value)
        mlflow_client.set_tag(run_id, key, value)
    latest = latest_retraining(name)
    if latest is None or latest["time"] <= body["time"]:
        retraining = {"time": body["time"], "decision": line, "version": number, "data": body["data"]}
        mlflow_client.set_registered_model_tag(name, LATEST_RETRAINING, json.dumps(retraining))
    return {"decision": decision, "version": number, "champion": champion or "", "line": line}


def latest_retraining(name: str) -> dict[str, Any] | None:
    """Time, decision, version and data of the model's latest retraining; None before the first."""
    text = client().get_registered_model(name).tags.get(LATEST_RETRAINING)
    kept: dict[str, Any] | None = json.loads(text) if text else None
    return kept


def signature_of(example: pd.DataFrame, target: "Target") -> ModelSignature:
    """The signature of a model: it requires exactly the columns of the example.

    Only bytes have a type, by which a server decodes them. Types of other columns would make MLflow refuse readable
    values: gaps in integers, integers among floats, pandas' categories, and booleans where a file had text. The
    parameter ``coverage`` is that of `unfreeze.models.targets.conformal.answers`.
    """
    types = {name: DataType.binary if isinstance(example[name].iloc[0], bytes) else AnyType() for name in example}
    inputs = Schema([ColSpec(each, str(name)) for name, each in types.items()])
    answer = target.frame(np.ones((1, target.outputs)))  # with every label, for several labels
    outputs = Schema([ColSpec(_type_of(answer[name].iloc[0]), str(name)) for name in answer])
    return ModelSignature(inputs, outputs, ParamSchema([ParamSpec("coverage", DataType.double, None)]))


def _type_of(value: object) -> DataType | Array:
    """Type of an output column: numbers, lists, or the text of a class."""
    if isinstance(value, list):
        return Array(_type_of(value[0]))
    return DataType.double if isinstance(value, float) else DataType.string


def save_mlflow_model(place: Path, folder: Path, modality: "Modality", target: "Target", example: pd.DataFrame) -> None:
    """Write the model in `folder` in MLflow's format, with the code of `unfreeze.models`, into the new `place`.

    The packages that the modality's models need are pinned to the versions installed here. No server is contacted.
    """
    with tempfile.TemporaryDirectory() as temporary:
        code, source = Path(temporary) / "unfreeze", Path(unfreeze.models.__file__).parent
        shutil.copytree(source, code / "models", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(source.parent / "__init__.py", code)
        mlflow.pyfunc.save_model(
            place,
            loader_module=modality.loader,
            data_path=str(folder),
            code_paths=[str(code)],
            signature=signature_of(example, target),
            input_example=example,
            pip_requirements=[f"{each}=={version(each).split('+')[0]}" for each in modality.requirements],
            metadata={"targets": list(target.columns), "classes": [str(each) for each in target.classes]},
        )


def log_model_folder(run_id: str, place: Path) -> tuple[str, str]:
    """Log a folder written by `save_mlflow_model` as the only model of a run; returns its URI and id."""
    mlflow_client = client()
    run = mlflow_client.get_run(run_id)
    experiment = run.info.experiment_id
    known = mlflow_client.search_logged_models([experiment], f"source_run_id = '{run_id}' AND name = '{LOGGED}'")
    # Created here, because Model.log would use the default experiment instead of the run's, and would log a second
    # model if the answer to the first attempt was lost.
    logged = next(iter(known), None) or mlflow_client.create_logged_model(
        experiment, name=LOGGED, source_run_id=run_id, params=dict(run.data.params)
    )
    if logged.model_id not in [each.model_id for each in (run.outputs.model_outputs if run.outputs else [])]:
        mlflow_client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    description = Model.load(str(place))
    description.run_id, description.model_id, description.model_uuid = run_id, logged.model_id, logged.model_id
    description.artifact_path = logged.artifact_location
    description.save(str(place / MLMODEL_FILE_NAME))
    mlflow_client.log_model_artifacts(logged.model_id, str(place))
    mlflow_client.finalize_logged_model(logged.model_id, "READY")
    return f"models:/{logged.model_id}", str(logged.model_id)
