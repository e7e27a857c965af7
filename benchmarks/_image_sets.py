"""Small sets of images for benchmarks, as folders `train` and `test` with a folder a class.

Defaults are chosen by looking at `DEV` alone; `HELD_OUT` is run once they are settled. Nothing is downloaded here: a
set whose source is missing says what to install.
"""

import contextlib
import gzip
import importlib
import io
import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import numpy as np
from PIL import Image, ImageFilter
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from benchmarks import _generated_images as generated
from benchmarks._prepared import SHARED

Pictures = Mapping[str, Sequence[Image.Image | Path]]
"""Class -> its images, opened or as files."""


MIRRORED = re.compile("mirror|flip")


class MissingError(Exception):
    """The source of a set is not on this machine; the message says what to install."""


class ImageSet(NamedTuple):
    """A set whose rows are drawn by class, in proportion; nothing of `test` is in `train`."""

    pictures: Callable[[], Pictures]
    train: int
    test: int
    side: int
    """Side of the square image that every model is given."""
    preset: str = "side_on"
    """Which random views make sense, for every model."""
    changed: Callable[[Image.Image, bool], Image.Image] | None = None
    """What is done to every image, told whether it tests."""

    def write(self, folder: Path) -> Path:
        """Write `train/CLASS` and `test/CLASS` into a new folder, unless it is there, and return it.

        Raises
        ------
        MissingError
            The source of the set is not on this machine.
        """
        if folder.exists():
            return folder
        pictures = self.pictures()
        rows = [(label, image) for label in sorted(pictures) for image in pictures[label]]
        labels = [label for label, _ in rows]
        parts = train_test_split(
            range(len(rows)), train_size=self.train, test_size=self.test, stratify=labels, random_state=0
        )
        for split, part in zip(("train", "test"), parts, strict=True):
            for row in part:
                label, image = rows[row]
                (folder / split / label).mkdir(parents=True, exist_ok=True)
                if isinstance(image, Path) and image.suffix == ".jpg" and not self.changed:
                    shutil.copy(image, folder / split / label / f"{row:05}.jpg")
                    continue
                drawn = on_white(Image.open(image) if isinstance(image, Path) else image)
                if self.changed:
                    drawn = self.changed(drawn, split == "test")
                drawn.thumbnail((3 * self.side, 3 * self.side))
                drawn.save(folder / split / label / f"{row:05}.png")
        return folder

    def settings(self) -> dict[str, object]:
        """What a user of the product would state."""
        return {"data.size": self.side, "augment.preset": self.preset}


def on_white(image: Image.Image) -> Image.Image:
    """In colours, with white where it is transparent."""
    if image.mode in ("RGBA", "LA", "PA", "P"):
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return image.convert("RGB")


def files_of(source: Path, install: str, pattern: str = "*.jpg") -> Callable[[], Pictures]:
    """The files of a folder of classes."""

    def pictures() -> Pictures:
        if not source.is_dir():
            raise MissingError(install)
        folders = [each for each in sorted(source.iterdir()) if each.is_dir()]
        return {each.name: sorted(each.rglob(pattern)) for each in folders}

    return pictures


def photos(name: str) -> Callable[[], Pictures]:
    """A folder of photos that lies beside the repository."""
    return files_of(SHARED / "data" / name, f"{name} lies with the development data, which this machine has not")


def digits() -> Pictures:
    """scikit-learn's digits of 8 pixels."""
    found = load_digits()
    return {
        str(label): [generated.to_image(255 / 16 * image) for image in found.images[found.target == label]]
        for label in range(10)
    }


def tiny(image: Image.Image, tests: bool) -> Image.Image:
    """Of 24 pixels."""
    return image.resize((24, 24), Image.Resampling.BILINEAR)


def gray_and_dim(image: Image.Image, tests: bool) -> Image.Image:
    """Gray, and where it tests darker and with less contrast, as of another camera."""
    pixels = np.asarray(image.convert("L"), dtype=float)
    return generated.to_image(0.6 * pixels + 10 if tests else pixels)


def package(name: str, install: str) -> Path:
    """Folder of an installed Python package."""
    found = find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise MissingError(f"{install} (on the PYTHONPATH)")
    return Path(found.submodule_search_locations[0])


def node_package(name: str) -> Path:
    """Folder of a package that npm has installed globally."""
    npm = shutil.which("npm")
    root = subprocess.run([npm, "root", "-g"], capture_output=True, text=True, check=True).stdout if npm else ""
    folder = Path(root.strip()) / name
    if not npm or not folder.is_dir():
        raise MissingError(f"npm install -g {name}")
    return folder


def debian_folder(folder: str, name: str) -> Path:
    """A folder or file of a Debian package."""
    if not Path(folder).exists():
        raise MissingError(f"apt-get install {name}")
    return Path(folder)


def mnist() -> Pictures:
    """Written digits of 28 pixels."""
    files = [node_package("mnist") / f"src/digits/{label}.json" for label in range(10)]
    flat = {file.stem: np.array(json.loads(file.read_text())["data"][: 200 * 784]) for file in files}
    return {
        label: [generated.to_image(255 * each) for each in pixels.reshape(-1, 28, 28)] for label, pixels in flat.items()
    }


def fashion() -> Pictures:
    """Pictures of clothes of 28 pixels."""
    folder = debian_folder("/usr/share/datasets/fashion-mnist", "dataset-fashion-mnist")
    labels = np.frombuffer(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8)[8:]
    pixels = np.frombuffer(gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8)[16:]
    images = pixels.reshape(-1, 28, 28)
    return {
        f"clothes-{label}": [generated.to_image(each) for each in images[labels == label][:200]] for label in range(10)
    }


def emoji() -> Pictures:
    """Emoji by group."""
    folder = node_package("emoji-datasource-google")
    found: dict[str, list[Image.Image | Path]] = {}
    for each in json.loads((folder / "emoji.json").read_text()):
        file = folder / "img/google/64" / each["image"]
        if file.exists() and each["category"] != "Component":
            found.setdefault(each["category"].replace(" & ", "-"), []).append(file)
    return found


def stamps() -> Pictures:
    """Photos and drawings for children by subject, without their mirrored copies."""
    folder = debian_folder("/usr/share/tuxpaint/stamps", "tuxpaint-stamps-default")
    subjects = ("animals", "clothes", "food", "household", "plants", "seasonal", "symbols", "town", "vehicles")
    return {
        subject: [each for each in sorted((folder / subject).rglob("*.png")) if not MIRRORED.search(each.stem)]
        for subject in subjects
    }


def icons() -> Pictures:
    """Icons of a desktop by what they stand for."""
    folder = debian_folder("/usr/share/icons/oxygen/base/64x64", "oxygen-icon-theme")
    kinds = ("actions", "apps", "categories", "devices", "mimetypes", "places", "status")
    return {kind: [each for each in sorted((folder / kind).glob("*.png")) if not each.is_symlink()] for kind in kinds}


def walls() -> Pictures:
    """Surfaces of a game by where they are used."""
    file = debian_folder("/usr/share/games/openarena/baseoa/pak4-textures.pk3", "openarena-081-textures")
    kinds = "base_wall", "base_floor", "base_light", "gothic_block", "gothic_floor", "gothic_trim", "liquids", "skies"
    found: dict[str, list[Image.Image | Path]] = {kind: [] for kind in kinds}
    with ZipFile(file) as archive:
        for name in sorted(archive.namelist()):
            kind = Path(name).parent.name
            if kind in found and name.endswith((".jpg", ".tga")):
                opened = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
                opened.thumbnail((256, 256))
                found[kind].append(opened)
    return found


def deep_sky() -> Pictures:
    """Photos of galaxies, star clusters and nebulae."""
    folder = debian_folder("/usr/share/stellarium/nebulae/default", "stellarium-data")
    catalogue = package("pyongc", "uv pip install --target FOLDER --no-deps pyongc") / "ongc.db"
    kinds = {
        "G": "galaxy", "GCl": "globular cluster", "OCl": "open cluster", "PN": "planetary nebula",
        "HII": "nebula", "Neb": "nebula", "EmN": "nebula", "RfN": "nebula", "Cl+N": "nebula", "SNR": "nebula",
    }  # fmt: skip
    with contextlib.closing(sqlite3.connect(catalogue)) as opened:
        types = dict(opened.execute("select name, type from objects"))
        types |= {f"M{number}": kind for number, kind in opened.execute("select messier, type from objects") if number}
    found: dict[str, list[Image.Image | Path]] = {}
    for file in sorted(folder.glob("*.png")):
        named = re.match(r"(m|n|ic)(\d+)", file.stem)
        if named:
            prefix, number = {"m": "M", "n": "NGC", "ic": "IC"}[named[1]], int(named[2])
            kind = types.get(f"M{number:03}" if prefix == "M" else f"{prefix}{number:04}")
            if kind in kinds:
                found.setdefault(kinds[kind], []).append(file)
    return found


def faces() -> Pictures:
    """Faces, and other parts of photos, of 25 pixels, gray."""
    file = (
        package("skimage", "uv pip install --target FOLDER --no-deps scikit-image lazy-loader") / "data/lfw_subset.npy"
    )
    images = [generated.to_image(255 * each) for each in np.load(file)]
    return {"face": images[:100], "other": images[100:]}


def heads() -> Pictures:
    """Slices of a head with drawn lesions."""
    folder = package("nilearn", "uv pip install --target FOLDER --no-deps nilearn nibabel") / "datasets/data"
    nibabel = importlib.import_module("nibabel")
    volume = nibabel.load(folder / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz").get_fdata()
    return generated.lesions(volume / np.quantile(volume, 0.999))


def other_scanner(image: Image.Image, tests: bool) -> Image.Image:
    """Where it tests, with another contrast and blurred."""
    if not tests:
        return image
    pixels = 255 * (np.asarray(image.filter(ImageFilter.GaussianBlur(0.7)), dtype=float) / 255) ** 0.7
    return generated.to_image(0.85 * pixels + 12)


DEV = {
    "signs": ImageSet(photos("signs"), 600, 400, 128),
    "trash": ImageSet(photos("trash"), 600, 300, 160),
    "cats-dogs-40": ImageSet(photos("cats_dogs"), 40, 350, 224),
    "cats-dogs-400": ImageSet(photos("cats_dogs"), 400, 350, 96),
    "cats-dogs-750": ImageSet(photos("cats_dogs"), 750, 350, 224),
    "textures": ImageSet(generated.textures, 360, 300, 64, "basic"),
    "glyphs": ImageSet(generated.glyphs, 600, 400, 48, "basic"),
    "chirps": ImageSet(generated.chirps, 300, 300, 64, "none"),
    "digits": ImageSet(digits, 600, 600, 32, "basic"),
    "trash-tiny": ImageSet(photos("trash"), 600, 300, 64, changed=tiny),
    "signs-dim": ImageSet(photos("signs"), 400, 400, 96, changed=gray_and_dim),
}
HELD_OUT = {
    "mnist": ImageSet(mnist, 500, 500, 32, "basic"),
    "fashion": ImageSet(fashion, 500, 500, 32),
    "emoji": ImageSet(emoji, 600, 400, 64),
    "stamps": ImageSet(stamps, 300, 200, 128),
    "icons": ImageSet(icons, 340, 230, 64),
    "walls": ImageSet(walls, 220, 150, 96),
    "deep-sky": ImageSet(deep_sky, 260, 170, 128, "top_down"),
    "faces": ImageSet(faces, 100, 100, 64),
    "tiles": ImageSet(generated.tiles, 480, 360, 96, "top_down"),
    "pages": ImageSet(generated.pages, 360, 300, 128, "basic"),
    "cells": ImageSet(generated.cells, 350, 300, 96, "top_down"),
    "heads": ImageSet(heads, 280, 240, 96, changed=other_scanner),
}


def written(sets: Mapping[str, ImageSet], folder: Path) -> Iterator[tuple[str, str, dict[str, object]]]:
    """Name, folder and settings of each set that can be made here; the others are named with the reason."""
    for name, images in sets.items():
        try:
            yield name, str(images.write(folder / name)), images.settings()
        except MissingError as error:
            print(f"{name} is skipped: {error}", flush=True)
