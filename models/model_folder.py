"""A trained network as a folder of plain files: its weights, and a description that a predictor is built from."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unfreeze.models.errors import UserError

NetworkType = TypeVar("NetworkType", bound=nn.Module)

FORMAT_VERSION = 4
"""Raise it when a folder of before can no longer be read."""
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"


def save_model_folder(
    folder: Path, network: nn.Module, description: dict[str, Any], snapshots: Sequence[Mapping[str, Tensor]] = ()
) -> None:
    """Write ``model.safetensors`` and ``model.json`` into `folder`, which is made if need be.

    Parameters
    ----------
    folder
        Where to write; other files in it are left alone.
    network
        Whose weights and buffers are kept.
    description
        Whatever JSON can hold; the format's number is added.
    snapshots
        Weights and buffers of earlier cycles, whose predictions are averaged with the network's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _save(network.state_dict(), folder / WEIGHTS)
    for number, state in enumerate(snapshots, start=1):
        _save(state, folder / _snapshot(number))
    kept = {"format": FORMAT_VERSION, "snapshots": len(snapshots), **description}
    (folder / DESCRIPTION).write_text(json.dumps(kept, indent=1))


def _save(state: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, path)


def _snapshot(number: int) -> str:
    return f"snapshot-{number}.safetensors"


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


def load_networks(folder: Path, make: Callable[[], NetworkType]) -> list[NetworkType]:
    """The networks in a folder that `save_model_folder` wrote, in evaluation mode, the final one first.

    Parameters
    ----------
    make
        Makes a network of the same shape.
    """
    files = [WEIGHTS, *(_snapshot(number + 1) for number in range(read_description(folder)["snapshots"]))]
    networks = [make() for _ in files]
    for network, file in zip(networks, files, strict=True):
        network.load_state_dict(load_file(folder / file))
        network.eval()
    return networks
