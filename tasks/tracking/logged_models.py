"""A trained model, logged with its run: its signature, its files and the code that loads them."""

import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import LoggedModelOutput
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

import unfreeze.models
from unfreeze.tasks.tracking.server import client

if TYPE_CHECKING:  # they bring torch along, and what only lists runs should not wait for it
    from unfreeze.models.recipe.modality import Modality
    from unfreeze.models.targets import Target

NAME = "model"
"""Name of a run's logged model."""


def signature_of(example: pd.DataFrame, target: "Target") -> ModelSignature:
    """What a model takes and answers: every column of the example is required, and no other.

    Only bytes have a type, by which a server decodes them. For the others MLflow would refuse what a model can read:
    gaps in whole numbers, whole numbers among fractions, pandas' categories, and truths where a file had text. The
    parameter ``coverage`` is that of `unfreeze.models.targets.conformal.answers`.
    """
    types = {name: DataType.binary if isinstance(example[name].iloc[0], bytes) else AnyType() for name in example}
    inputs = Schema([ColSpec(each, str(name)) for name, each in types.items()])
    answer = target.frame(np.ones((1, target.outputs)))  # with every label, where there may be several
    outputs = Schema([ColSpec(_type_of(answer[name].iloc[0]), str(name)) for name in answer])
    return ModelSignature(inputs, outputs, ParamSchema([ParamSpec("coverage", DataType.double, None)]))


def _type_of(value: object) -> DataType | Array:
    """Of a column of answers: numbers, lists, or the text of a class."""
    if isinstance(value, list):
        return Array(_type_of(value[0]))
    return DataType.double if isinstance(value, float) else DataType.string


def save_mlflow_model(place: Path, folder: Path, modality: "Modality", target: "Target", example: pd.DataFrame) -> None:
    """Write the model in `folder` as MLflow keeps models, with the code of `unfreeze.models`, into the new `place`.

    The packages that the modality's models need are pinned to the versions installed here. No server is asked.
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
    """Log what `save_mlflow_model` wrote as the model of a run, which has one; returns its URI and id."""
    mlflow_client = client()
    run = mlflow_client.get_run(run_id)
    experiment = run.info.experiment_id
    known = mlflow_client.search_logged_models([experiment], f"source_run_id = '{run_id}' AND name = '{NAME}'")
    # Created here, because Model.log would put it into the default experiment, whatever the run's is, and would log a
    # second one where the answer to the first attempt was lost.
    logged = (
        known[0]
        if known
        else mlflow_client.create_logged_model(
            experiment, name=NAME, source_run_id=run_id, params=dict(run.data.params)
        )
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
