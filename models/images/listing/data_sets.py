"""Data sets bundled with scikit-learn or downloaded by torchvision, as image files."""

import importlib
import os
import shutil
import socket
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from unfreeze.models.errors import UserError

_NETWORK_SECONDS = 5.0


class DataSet(NamedTuple):
    """Torchvision class, arguments of its training and validation parts, and the archives' folder."""

    class_name: str
    train: dict[str, Any]
    valid: dict[str, Any] | None
    archive_folder: str = ""


# Validates on the `val` part if there is one, otherwise on the `test` part that published results use.
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


def write_digits(folder: Path) -> Path:
    """Write scikit-learn's digits, one folder per digit, unless they exist; returns `folder`."""
    if not folder.is_dir():
        with _published(folder) as building:
            _write_images(building, *_digits())
    return folder


def write_examples(folder: Path, count: int = 500, unlabelled: int = 20) -> Path:
    """Write some of scikit-learn's digits unless they exist: ``digits/LABEL``, and ``new`` without labels.

    Returns `folder`. Raises a `UserError` if it holds something else.
    """
    if not folder.exists():
        pixels, labels = _digits()
        with _published(folder) as building:
            _write_images(building / "digits", pixels[:count], labels[:count])
            _write_images(building, pixels[count : count + unlabelled], ["new"] * unlabelled)
    elif not ((folder / "digits").is_dir() and (folder / "new").is_dir()):
        raise UserError(f"{folder} exists and holds something else; give the name of a new folder")
    return folder


def _digits() -> tuple[np.ndarray, list[str]]:
    """Images, uint8 (1797, 8, 8), and labels of scikit-learn's digits."""
    from sklearn.datasets import load_digits  # slow import (half a second), needed only once

    digits = load_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8), [str(label) for label in digits.target]


def torchvision_images(name: str, folder: Path) -> Path | list[tuple[Path, str, Literal["train", "valid"] | None]]:
    """Find the images of one of `DATA_SETS`, downloading it into its own folder if necessary.

    Returns path, label and split of each image (split None if the data set has none). If torchvision has pixels instead
    of files, writes them to one folder per split (if any) and label and returns the root. Raises a `UserError` if the
    download fails.
    """
    data_set, written = DATA_SETS[name], folder / "images"
    if written.is_dir():
        return written
    if not folder.exists():
        # Unpacking in place could leave a partial data set that torchvision takes for complete.
        with _published(folder) as building:
            _open(name, building, folder, data_set.train)
    parts: list[tuple[Literal["train", "valid"], Any]] = [("train", _open(name, folder, folder, data_set.train))]
    if data_set.valid is not None:
        parts.append(("valid", _open(name, folder, folder, data_set.valid)))
    if not hasattr(parts[0][1], "data"):
        return [
            (path, label, side if len(parts) > 1 else None) for side, part in parts for path, label in _samples(part)
        ]
    with _published(written) as building:
        for side, part in parts:
            targets = part.targets if hasattr(part, "targets") else part.labels
            labels = [part.classes[int(target)].replace("/", "-") for target in targets]
            pixels = np.asarray(part.data)
            is_channels_first = pixels.ndim == 4 and pixels.shape[1] == 3
            _write_images(building / side, np.moveaxis(pixels, 1, 3) if is_channels_first else pixels, labels)
    return written


def _open(name: str, folder: Path, final: Path, arguments: dict[str, Any]) -> Any:
    data_set = DATA_SETS[name]
    # Imported lazily: it takes seconds, and most sources do not need it.
    kind = getattr(importlib.import_module("torchvision.datasets"), data_set.class_name)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_NETWORK_SECONDS)  # torchvision sets no timeout and would wait for minutes
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
    """Yield paths and labels of a file-based torchvision data set; attributes differ between classes."""
    names = [label if isinstance(label, str) else label[0] for label in part.classes]
    pairs = getattr(part, "samples", None) or getattr(part, "_samples", None)
    if pairs is None:
        files = part._image_files if hasattr(part, "_image_files") else part._images
        pairs = zip(files, part._labels, strict=True)
    return ((Path(path), names[target]) for path, target in pairs)


def _write_images(folder: Path, pixels: np.ndarray, labels: list[str]) -> None:
    """Write ``folder/LABEL/00000.png`` and so on, in the order of `pixels`, uint8 (H, W) or (H, W, 3) each."""
    for label in set(labels):
        (folder / label).mkdir(parents=True, exist_ok=True)
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        Image.fromarray(image).save(folder / label / f"{number:05d}.png")


@contextmanager
def _published(folder: Path) -> Iterator[Path]:
    """Build in a temporary folder beside the final one; rename it on success, remove it on failure."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent, ignore_cleanup_errors=True) as place:
        building = Path(place) / folder.name
        building.mkdir()
        yield building
        try:
            os.rename(building, folder)
        except OSError:
            if not folder.is_dir():
                raise
            shutil.rmtree(building)  # another process finished first, with the same content
