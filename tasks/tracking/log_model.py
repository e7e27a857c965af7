"""A trained model into MLflow: logged with its run and registered as a version of a name."""

import shutil
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature, infer_signature
from mlflow.types.schema import Array, ColSpec, DataType, Schema

import unfreeze.models
from unfreeze.models.modality import Modality
from unfreeze.models.target import Target
from unfreeze.tasks.prefect_run.progress import log_info
from unfreeze.tasks.tracking.registry import CHALLENGER, CHAMPION
from unfreeze.tasks.tracking.server import client

_CLASSES_OUT = Schema(
    [
        ColSpec(DataType.string, "class"),
        ColSpec(DataType.double, "probability"),
        ColSpec(Array(DataType.double), "probabilities"),
    ]
)


def signature_of(example: pd.DataFrame, target: Target) -> ModelSignature:
    """What a model takes and answers; no column is required: the model itself reports a missing one."""
    with warnings.catch_warnings():
        # About gaps in whole numbers, which do not matter where no column is required.
        warnings.filterwarnings("ignore", message="Hint: Inferred schema contains integer")
        inferred = infer_signature(example).inputs
    inputs = Schema([ColSpec(column.type, column.name, required=False) for column in inferred])
    if target.classes:
        return ModelSignature(inputs, _CLASSES_OUT)
    return ModelSignature(inputs, Schema([ColSpec(DataType.double, column) for column in target.columns]))


def log_and_register(
    run_id: str,
    folder: Path,
    modality: Modality,
    target: Target,
    example: pd.DataFrame,
    name: str,
    description: str,
) -> dict[str, str]:
    """Log a model that predicts alone, with the code of `unfreeze.models`, and register it under `name`.

    Parameters
    ----------
    folder
        The model's files.
    modality
        Says which module loads them, and which packages that needs; they are pinned to the versions installed here.
    target, example
        What the model predicts, and rows as it takes them.
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
            loader_module=modality.loader,
            data_path=str(folder),
            code_paths=[str(code)],
            signature=signature_of(example, target),
            input_example=example,
            pip_requirements=[f"{each}=={version(each).split('+')[0]}" for each in modality.requirements],
            metadata={"targets": list(target.columns), "classes": [str(each) for each in target.classes]},
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
