"""Small image sets for benchmarks: cut from the photos, or generated."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

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
    sets["generated glyphs, 48 px"] = (
        str(glyphs(folder / "glyphs")),
        {"data.size": 48, "augment.preset": "basic"},
    )
    sets["generated chirps, 64 px"] = (
        str(chirps(folder / "chirps")),
        {"data.size": 64, "augment.preset": "none"},
    )
    return sets


def cut(source: Path, folder: Path, count: int) -> Path:
    """A random part of a folder of classes."""
    files = random.Random(count).sample(sorted(source.rglob("*.jpg")), count)
    for file in files:
        (folder / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / file.parent.name / file.name)
    return folder


def glyphs(folder: Path, letters: str = "ABDEGKMRSX", images: int = 60, side: int = 48) -> Path:
    """Letters in the four cuts of a font, turned, scaled, shifted, in other colours and under noise."""
    rng, fonts = np.random.default_rng(1), sorted(Path(matplotlib.get_data_path()).glob("fonts/ttf/DejaVu*.ttf"))
    for letter in letters:
        (folder / letter).mkdir(parents=True, exist_ok=True)
        for number in range(images):
            ground, ink = (tuple(map(int, rng.integers(0, 256, 3))) for _ in range(2))
            drawn = Image.new("RGB", (side, side), ground)
            font = ImageFont.truetype(str(fonts[rng.integers(len(fonts))]), int(rng.integers(side // 3, side)))
            place = tuple(side / 2 + rng.uniform(-side / 8, side / 8, 2))
            ImageDraw.Draw(drawn).text(place, letter, fill=ink, font=font, anchor="mm")
            turned = np.asarray(drawn.rotate(rng.uniform(-25, 25), fillcolor=ground), dtype=float)
            pixels = turned + rng.normal(0, 40, turned.shape)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / letter / f"{number}.png")
    return folder


def chirps(folder: Path, images: int = 60, side: int = 64) -> Path:
    """Spectrograms of noisy sounds whose pitch rises, falls, stays, jumps or trembles."""
    rng, seconds = np.random.default_rng(2), np.linspace(0, 1, 4096)
    courses: dict[str, Callable[[], np.ndarray]] = {
        "rises": lambda: rng.uniform(100, 500) + rng.uniform(300, 900) * seconds,
        "falls": lambda: rng.uniform(900, 1400) - rng.uniform(300, 800) * seconds,
        "stays": lambda: np.full_like(seconds, rng.uniform(150, 1400)),
        "jumps": lambda: np.where(seconds < rng.uniform(0.3, 0.7), rng.uniform(150, 600), rng.uniform(800, 1400)),
        "trembles": lambda: (
            rng.uniform(400, 1200) + rng.uniform(60, 200) * np.sin(2 * np.pi * rng.uniform(3, 9) * seconds)
        ),
    }
    for label, course in courses.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(images):
            phase = 2 * np.pi * np.cumsum(course()) / len(seconds)
            sound = np.sin(phase) + rng.uniform(0.5, 3) * rng.normal(size=len(seconds))
            windows = np.lib.stride_tricks.sliding_window_view(sound, 128)[:: (len(sound) - 128) // (side - 1)][:side]
            power = np.log(np.abs(np.fft.rfft(windows * np.hanning(128)))[:, :side].T + 1e-3)
            scaled = 255 * (power - power.min()) / np.ptp(power)
            Image.fromarray(scaled[::-1].astype(np.uint8)).convert("RGB").save(folder / label / f"{number}.png")
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
