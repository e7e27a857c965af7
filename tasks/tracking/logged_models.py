"""A trained model, logged with its run: its signature, its files and the code that loads them."""

import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Schema

import unfreeze.models
from unfreeze.models.modality import Modality
from unfreeze.models.targets import Target
from unfreeze.tasks.tracking.server import client


def signature_of(example: pd.DataFrame, target: Target) -> ModelSignature:
    """What a model takes and answers: every column of the example is required, and no other.

    Only bytes have a type, by which a server decodes them. For the others MLflow would refuse what a model can read:
    gaps in whole numbers, whole numbers among fractions, pandas' categories, and truths where a file had text.
    """
    types = {name: DataType.binary if isinstance(example[name].iloc[0], bytes) else AnyType() for name in example}
    inputs = Schema([ColSpec(each, str(name)) for name, each in types.items()])
    answer = target.frame(np.ones((1, target.outputs)))  # with every label, where there may be several
    return ModelSignature(inputs, Schema([ColSpec(_type_of(answer[name].iloc[0]), str(name)) for name in answer]))


def _type_of(value: object) -> DataType | Array:
    """Of a column of answers: numbers, lists, or the text of a class."""
    if isinstance(value, list):
        return Array(_type_of(value[0]))
    return DataType.double if isinstance(value, float) else DataType.string


def log_model(run_id: str, folder: Path, modality: Modality, target: Target, example: pd.DataFrame) -> tuple[str, str]:
    """Log the model in `folder` with the code of `unfreeze.models`; returns its URI and id.

    The packages that the modality's models need are pinned to the versions installed here.
    """
    mlflow_client = client()
    run = mlflow_client.get_run(run_id)
    # Created here, because Model.log would put it into the default experiment, whatever the run's is.
    logged = mlflow_client.create_logged_model(
        run.info.experiment_id, name="model", source_run_id=run_id, params=dict(run.data.params)
    )
    with tempfile.TemporaryDirectory() as place:
        code, source = Path(place) / "unfreeze", Path(unfreeze.models.__file__).parent
        shutil.copytree(source, code / "models", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(source.parent / "__init__.py", code)
        info = Model.log(  # not pyfunc.log_model, which takes no run but the active one
            artifact_path=None,
            flavor=mlflow.pyfunc,
            name="model",
            run_id=run_id,
            model_id=logged.model_id,
            loader_module=modality.loader,
            data_path=str(folder),
            code_paths=[str(code)],
            signature=signature_of(example, target),
            input_example=example,
            pip_requirements=[f"{each}=={version(each).split('+')[0]}" for each in modality.requirements],
            metadata={"targets": list(target.columns), "classes": [str(each) for each in target.classes]},
        )
    return str(info.model_uri), str(info.model_id)
