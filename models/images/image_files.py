"""Folders of images that we write ourselves, from pixels, whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image


def write_images(folder: Path, pixels: np.ndarray, labels: list[str]) -> None:
    """Write ``folder/LABEL/00000.png`` and so on, numbered in the order of `pixels`, uint8 (H, W) or (H, W, 3) each."""
    for label in set(labels):
        (folder / label).mkdir(parents=True, exist_ok=True)
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        Image.fromarray(image).save(folder / label / f"{number:05d}.png")


@contextmanager
def published(folder: Path) -> Iterator[Path]:
    """Build in a temporary folder beside the final one; rename it when the block ends well, remove it otherwise."""
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
            shutil.rmtree(building)  # another process was faster, with the same content
