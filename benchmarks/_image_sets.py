"""Small image sets for benchmarks: cut from the photos, or generated."""

import random
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks._prepared import PHOTOS


def image_sets(folder: Path) -> dict[str, tuple[str, dict[str, object]]]:
    """Name -> source and settings of every set that can be made here; `folder` is filled."""
    sets: dict[str, tuple[str, dict[str, object]]] = {}
    if PHOTOS.exists():
        for count, size in ((400, 224), (400, 96), (40, 224)):
            source = cut(PHOTOS, folder / f"photos-{count}", count)
            sets[f"{count} photos, {size} px"] = (str(source), {"data.size": size})
    sets["digits, 28 px"] = ("digits", {"data.size": 28, "augment.preset": "basic"})
    sets["generated textures, 64 px"] = (str(textures(folder / "textures")), {"data.size": 64})
    return sets


def cut(source: Path, folder: Path, count: int) -> Path:
    """A random part of a folder of classes."""
    files = random.Random(count).sample(sorted(source.rglob("*.jpg")), count)
    for file in files:
        (folder / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / file.parent.name / file.name)
    return folder


def textures(folder: Path, classes: int = 6, images: int = 60, side: int = 64) -> Path:
    """Gratings whose direction and width are the class, with other colours, phases and much noise in each image."""
    rng = np.random.default_rng(0)
    across, down = np.meshgrid(np.arange(side), np.arange(side))
    for label in range(classes):
        angle, width = np.pi * (label % 3) / 3, 5 + 4 * (label // 3)
        (folder / f"texture-{label}").mkdir(parents=True, exist_ok=True)
        for number in range(images):
            turned = angle + rng.normal(0, 0.12)
            place = across * np.cos(turned) + down * np.sin(turned)
            wave = np.sin(2 * np.pi * place / (width * rng.uniform(0.9, 1.1)) + rng.uniform(0, 2 * np.pi))
            pixels = 128 + 45 * wave[..., None] * rng.uniform(0.3, 1, 3) + rng.normal(0, 45, (side, side, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"texture-{label}" / f"{number}.png")
    return folder
