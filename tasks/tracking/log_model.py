"""A trained model into MLflow: logged with its run and registered as a version of a name."""

import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature, infer_signature
from mlflow.types.schema import Array, ColSpec, DataType, Schema

import unfreeze.models
from unfreeze.tasks.prefect_run.progress import log_info
from unfreeze.tasks.tracking.registry import CHALLENGER, CHAMPION
from unfreeze.tasks.tracking.server import client

IMAGE_LOADER, TABLE_LOADER = "unfreeze.models.images.serving", "unfreeze.models.tables.serving"
"""Modules that load a model's folder."""
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
    """Raw columns of a table, none of them required: the model itself reports a missing column."""
    with warnings.catch_warnings():
        # About gaps in whole numbers, which do not matter where no column is required.
        warnings.filterwarnings("ignore", message="Hint: Inferred schema contains integer")
        inferred = infer_signature(frame).inputs
    return Schema([ColSpec(column.type, column.name, required=False) for column in inferred])


def values_out(targets: Sequence[str]) -> Schema:
    """A number per target."""
    return Schema([ColSpec(DataType.double, target) for target in targets])


def log_and_register(
    run_id: str,
    folder: Path,
    loader: str,
    signature: tuple[Schema, Schema],
    example: pd.DataFrame,
    requirements: Sequence[str],
    metadata: Mapping[str, Any],
    name: str,
    description: str,
) -> dict[str, str]:
    """Log a model that predicts alone, with the code of `unfreeze.models`, and register it under `name`.

    Parameters
    ----------
    folder, loader
        The model's files, and the module that loads them.
    signature
        Schemas of input and output.
    requirements
        Packages that it needs besides MLflow; pinned to the versions installed here.
    description
        Of the version, for people.

    Returns
    -------
    dict
        ``model_uri``, ``name``, ``version``, and ``alias``: ``champion`` if the name had none, else ``challenger``.
    """
    mlflow_client = client()
    run = mlflow_client.get_run(run_id)
    # Created here, because Model.log would put it into the default experiment, whatever the run's is.
    model_id = mlflow_client.create_logged_model(
        run.info.experiment_id, name="model", source_run_id=run_id, params=dict(run.data.params)
    ).model_id
    with tempfile.TemporaryDirectory() as place:
        code, source = Path(place) / "unfreeze", Path(unfreeze.models.__file__).parent
        shutil.copytree(source, code / "models", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(source.parent / "__init__.py", code)
        # Not pyfunc.log_model, which logs to the active run only.
        uri = Model.log(
            artifact_path=None,
            flavor=mlflow.pyfunc,
            name="model",
            run_id=run_id,
            model_id=model_id,
            loader_module=loader,
            data_path=str(folder),
            code_paths=[str(code)],
            signature=ModelSignature(*signature),
            input_example=example,
            pip_requirements=[f"{each}=={version(each).split('+')[0]}" for each in requirements],
            metadata=dict(metadata),
        ).model_uri
    try:
        mlflow_client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    created = mlflow_client.create_model_version(name, uri, run_id=run_id, model_id=model_id, description=description)
    number = str(created.version)
    alias = CHALLENGER if CHAMPION in mlflow_client.get_registered_model(name).aliases else CHAMPION
    mlflow_client.set_registered_model_alias(name, alias, number)
    log_info(f"registered {name} version {number} as {alias}")
    return {"model_uri": str(uri), "name": name, "version": number, "alias": alias}
