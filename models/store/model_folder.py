"""Model folder: a trained model's weights and description as plain files, with verified checksums."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from unfreeze.models.errors import UserError
from unfreeze.models.store.sealed_files import CHECKSUMS, DESCRIPTION, JUDGED, damaged_file, write_checksums

NetworkType = TypeVar("NetworkType", bound=nn.Module)

FORMAT_VERSION = 5
"""Increment when older folders can no longer be read."""
WEIGHTS = "model.safetensors"
WITH_TTA = "with_tta"
"""Description key: whether the model predicts with test-time augmentation."""
TEMPERATURE = "temperature"
"""Description key: temperature that divides the logits; 1 in older models."""
SCORES = "scores"
"""Description key: number of validation rows and their conformity scores; see `conformal.Scores`."""


def save_model_folder(folder: Path, states: Sequence[Mapping[str, torch.Tensor]], description: dict[str, Any]) -> None:
    """Write weights, ``model.json`` and checksums of all files into `folder`, creating it if necessary.

    The first network's weights are in ``model.safetensors``, the others' in ``network-N.safetensors``.

    Parameters
    ----------
    folder
        Target folder; files already in it become part of the model.
    states
        Weights and buffers of every network of the ensemble.
    description
        JSON-serialisable; the format number and the number of networks are added.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, state in enumerate(states):
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        save_file(tensors, folder / weights_file(number))
    kept = {"format": FORMAT_VERSION, "networks": len(states), **description}
    (folder / DESCRIPTION).write_text(json.dumps(kept, indent=1))
    write_checksums(folder)


def judged_folder(folder: Path) -> Path:
    """Folder of the model not trained on the validation rows: a refitted model's inner folder, otherwise `folder`."""
    return folder / JUDGED if (folder / JUDGED / DESCRIPTION).is_file() else folder


def weights_file(number: int) -> str:
    """Name of the weights file of network `number`, from 0."""
    return WEIGHTS if number == 0 else f"network-{number}.safetensors"


def read_description(folder: Path) -> dict[str, Any]:
    """Read the description that `save_model_folder` wrote.

    Raises
    ------
    UserError
        If it is missing, has an unsupported format, or a file in the folder is damaged.
    """
    path, damaged = folder / DESCRIPTION, damaged_file(folder)
    if damaged not in (None, CHECKSUMS):
        raise _damaged(folder / str(damaged))
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
    if damaged is not None:
        raise _damaged(folder / damaged)
    return description


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Turn any error while loading a model folder into a `UserError`.

    The checksums matched, so the folder was edited or written by another release.
    """
    try:
        yield
    except UserError as error:
        if str(folder) in str(error):
            raise
        raise UserError(f"the model in {folder} cannot be loaded: {error}") from error
    except Exception as error:  # building from a bad description can raise anything
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise UserError(
            f"the model in {folder} cannot be loaded ({why}); copy or download it again, or train and register it again"
        ) from error


def _damaged(path: Path) -> UserError:
    return UserError(
        f"{path} is damaged: its content is not that of its checksum; copy or download the model again, and if it is "
        "damaged where it is stored, train and register it again"
    )


def load_networks(folder: Path, make: Callable[[], NetworkType]) -> list[NetworkType]:
    """Load the networks that `save_model_folder` wrote, in evaluation mode.

    Parameters
    ----------
    make
        Builds a network of the same architecture.
    """
    networks: list[NetworkType] = []
    for number in range(read_description(folder)["networks"]):
        network = make()
        network.load_state_dict(load_file(folder / weights_file(number)))
        network.eval()
        networks.append(network)
    return networks
