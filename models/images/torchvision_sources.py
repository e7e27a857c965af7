"""Data sets that torchvision downloads, as images in files."""

import importlib
import socket
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from unfreeze.models.errors import UserError
from unfreeze.models.images.image_files import published, write_images

_NETWORK_SECONDS = 5.0


class DataSet(NamedTuple):
    """A torchvision class, the arguments of its training part and of the part that validates, and where archives go."""

    class_name: str
    train: dict[str, Any]
    valid: dict[str, Any] | None
    archive_folder: str = ""


# A `val` part validates where there is one, otherwise the `test` part that published results use.
DATA_SETS = {
    "cifar10": DataSet("CIFAR10", {"train": True}, {"train": False}),
    "cifar100": DataSet("CIFAR100", {"train": True}, {"train": False}),
    "country211": DataSet("Country211", {"split": "train"}, {"split": "valid"}),
    "dtd": DataSet("DTD", {"split": "train"}, {"split": "val"}, "dtd"),
    "eurosat": DataSet("EuroSAT", {}, None, "eurosat"),
    "fashion-mnist": DataSet("FashionMNIST", {"train": True}, {"train": False}, "FashionMNIST/raw"),
    "fgvc-aircraft": DataSet("FGVCAircraft", {"split": "train"}, {"split": "val"}),
    "flowers102": DataSet("Flowers102", {"split": "train"}, {"split": "val"}, "flowers-102"),
    "food101": DataSet("Food101", {"split": "train"}, {"split": "test"}),
    "imagenette": DataSet("Imagenette", {"split": "train"}, {"split": "val"}),
    "mnist": DataSet("MNIST", {"train": True}, {"train": False}, "MNIST/raw"),
    "oxford-iiit-pet": DataSet("OxfordIIITPet", {"split": "trainval"}, {"split": "test"}, "oxford-iiit-pet"),
    "stl10": DataSet("STL10", {"split": "train"}, {"split": "test"}),
    "sun397": DataSet("SUN397", {}, None),
}


def torchvision_images(name: str, folder: Path) -> Path | list[tuple[Path, str, Literal["train", "valid"] | None]]:
    """Find the images of a data set, after downloading it into `folder` if it is not there yet.

    Parameters
    ----------
    name
        One of `DATA_SETS`.
    folder
        The data set's own.

    Returns
    -------
    Path or list of tuple
        Path, label and split of each image (None for all where the data set has no split); or, where torchvision
        has pixels instead of files, the folder that they were written to, one folder per split (if any) and label.

    Raises
    ------
    UserError
        If the download fails.
    """
    data_set = DATA_SETS[name]
    written = folder / "images"
    if written.is_dir():
        return written
    if not folder.exists():
        # Unpacking in place could leave half a data set that torchvision takes for a whole one.
        with published(folder) as building:
            _open(name, building, folder, data_set.train)
    parts: list[tuple[Literal["train", "valid"], Any]] = [("train", _open(name, folder, folder, data_set.train))]
    if data_set.valid is not None:
        parts.append(("valid", _open(name, folder, folder, data_set.valid)))
    if hasattr(parts[0][1], "data"):
        with published(written) as building:
            for side, part in parts:
                labels = [part.classes[target].replace("/", "-") for target in _targets(part)]
                write_images(building / side, _channels_last(np.asarray(part.data)), labels)
        return written
    return [(path, label, side if len(parts) > 1 else None) for side, part in parts for path, label in _samples(part)]


def _open(name: str, folder: Path, final: Path, arguments: dict[str, Any]) -> Any:
    data_set = DATA_SETS[name]
    # Takes seconds to import, and most sources do not need it.
    kind = getattr(importlib.import_module("torchvision.datasets"), data_set.class_name)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_NETWORK_SECONDS)  # torchvision sets none, and would wait for minutes
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return kind(str(folder), download=True, **arguments)
    except (OSError, RuntimeError, ValueError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise UserError(
            f"data.source {name!r} could not be downloaded: {error}. Without a network, put the archives that "
            f"torchvision.datasets.{data_set.class_name} downloads into {final / data_set.archive_folder}, or unpack "
            "the images anywhere into a folder per class and give that folder as data.source."
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _samples(part: Any) -> Iterator[tuple[Path, str]]:
    """Paths and labels of a torchvision data set that reads files; their attributes differ from class to class."""
    names = [label if isinstance(label, str) else label[0] for label in part.classes]
    pairs = getattr(part, "samples", None) or getattr(part, "_samples", None)
    if pairs is None:
        files = part._image_files if hasattr(part, "_image_files") else part._images
        pairs = zip(files, part._labels, strict=True)
    return ((Path(path), names[target]) for path, target in pairs)


def _targets(part: Any) -> list[int]:
    return [int(target) for target in (part.targets if hasattr(part, "targets") else part.labels)]


def _channels_last(pixels: np.ndarray) -> np.ndarray:
    return pixels.transpose(0, 2, 3, 1) if pixels.ndim == 4 and pixels.shape[1] == 3 else pixels
