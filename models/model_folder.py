"""A trained network as a folder of plain files: its weights, and a description that a predictor is built from."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.torch import load_file, save_file
from torch import nn

from models.errors import UserError

FORMAT_VERSION = 2
"""Raise it when a folder of before can no longer be read."""
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"


def save_model_folder(folder: Path, network: nn.Module, description: dict[str, Any]) -> None:
    """Write ``model.safetensors`` and ``model.json`` into `folder`, which is made if need be.

    Parameters
    ----------
    folder
        Where to write; other files in it are left alone.
    network
        Whose weights and buffers are kept.
    description
        Whatever JSON can hold; the format's number is added.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    (folder / DESCRIPTION).write_text(json.dumps({"format": FORMAT_VERSION, **description}, indent=1))


def read_description(folder: Path) -> dict[str, Any]:
    """The description in a folder that `save_model_folder` wrote.

    Raises
    ------
    UserError
        If there is none, or it is of a format that this release does not read.
    """
    path = folder / DESCRIPTION
    try:
        description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = description["format"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} does not describe a model ({error}); give the folder of a registered model") from error
    if found != FORMAT_VERSION:
        raise UserError(
            f"{path}: model format {found}, but this release reads {FORMAT_VERSION}; train and register the model "
            "again, or load it with mlflow.pyfunc in a process of its own: it carries the code that reads it"
        )
    return description


def load_weights(folder: Path, network: nn.Module) -> None:
    """Give a network of the same shape the weights in a folder that `save_model_folder` wrote."""
    network.load_state_dict(load_file(folder / WEIGHTS))


def class_frame(classes: Sequence[Any], probabilities: np.ndarray) -> pd.DataFrame:
    """What a served classifier answers, a row per row.

    Parameters
    ----------
    classes
        Names of the C classes.
    probabilities
        (N, C) float64.

    Returns
    -------
    pandas.DataFrame
        ``class``, ``probability``, and ``probabilities`` of all classes in their order.
    """
    return pd.DataFrame(
        {
            "class": [classes[number] for number in probabilities.argmax(1)],
            "probability": probabilities.max(1),
            "probabilities": probabilities.tolist(),
        }
    )
