"""Named pipes, sockets and devices among files: opening one would wait for ever."""

import io
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unfreeze.models.errors import UserError
from unfreeze.models.images.listing.sources import list_unlabelled, resolve_source
from unfreeze.models.images.pixels.decode import UnreadableImage, check_image, read_image
from unfreeze.models.images.pixels.index import build_index
from unfreeze.models.images.serving.predictor import stream
from unfreeze.models.settings import DataSpec
from unfreeze.models.settings.predict import Predict
from unfreeze.models.store.content import hash_file, hash_files
from unfreeze.models.store.paths import irregular_kind
from unfreeze.models.tables.reading.frames import write_feather


@pytest.fixture(autouse=True)
def _end_instead_of_waiting() -> Iterator[None]:
    signal.alarm(60)
    yield
    signal.alarm(0)


@pytest.fixture
def oddities(tmp_path: Path) -> Iterator[dict[Path, str]]:
    """Path -> kind of what is not a file."""
    folder = tmp_path / "images" / "cat"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "pipe.png")
    (folder / "link.png").symlink_to(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "s.png"))
        yield {
            folder / "pipe.png": "a named pipe",
            folder / "link.png": "a named pipe",
            folder / "zero.png": "a device",
            folder / "s.png": "a socket",
        }


def image(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)).save(path)
    return path


def test_each_kind_is_told_and_files_and_folders_are_none_of_them(oddities: dict[Path, str], tmp_path: Path) -> None:
    assert {path: irregular_kind(path) for path in oddities} == oddities
    assert irregular_kind(tmp_path) is None
    assert irregular_kind(image(tmp_path / "a.png", 0)) is None
    assert irregular_kind(tmp_path / "absent") is None
    assert irregular_kind("a\0b") is None


def test_none_is_hashed_or_decoded(oddities: dict[Path, str]) -> None:
    for path, kind in oddities.items():
        assert hash_file(path) == ""
        for read in (check_image, read_image):
            with pytest.raises(UnreadableImage, match=f"^{kind}, not a file$"):
                read(path, 100)


def test_in_a_folder_of_classes_each_is_rejected_with_its_kind(oddities: dict[Path, str], tmp_path: Path) -> None:
    for number in range(4):
        image(tmp_path / "images" / ("cat" if number % 2 else "dog") / f"{number}.png", number)
    data = DataSpec(source=str(tmp_path / "images"))
    listing = resolve_source(data, tmp_path)
    index = build_index(listing, hash_files([file.path for file in listing.files], 2), data, threads=2)
    assert len(index) == 4
    found = {Path(row["path"]): row["reason"] for row in index.rejected.to_pylist()}
    assert found == {path: f"{kind}, not a file" for path, kind in oddities.items()}


def test_in_a_folder_to_predict_each_is_a_row_with_its_reason(oddities: dict[Path, str], tmp_path: Path) -> None:
    image(tmp_path / "images/a.png", 0)
    listed = list_unlabelled(Predict(model="m", source=str(tmp_path / "images")), tmp_path)
    assert len(listed.files) == 5

    def decode(file: str | bytes) -> np.ndarray:
        source = io.BytesIO(file) if isinstance(file, bytes) else Path(file)
        return np.asarray(read_image(source, 100))

    (chunk,) = stream(listed.files, decode, lambda images, _: images.mean((1, 2)), 4, 100, 0, False, 2)
    reasons = {Path(listed.files[position]): reason for position, reason in chunk.unreadable.items()}
    assert reasons == {path: f"{kind}, not a file" for path, kind in oddities.items()}


def test_as_a_source_each_is_refused_with_its_kind(oddities: dict[Path, str], tmp_path: Path) -> None:
    for path, kind in oddities.items():
        with pytest.raises(UserError, match=f"is {kind}"):
            resolve_source(DataSpec(source=str(path)), tmp_path)
        with pytest.raises(UserError, match=f"is {kind}"):
            list_unlabelled(Predict(model="m", source=str(path)), tmp_path)
        table = path.with_name(f"{path.stem}.csv")
        table.symlink_to(path)
        for read in (
            lambda table: resolve_source(DataSpec(source=str(table)), tmp_path),
            lambda table: list_unlabelled(Predict(model="m", source=str(table)), tmp_path),
            lambda table: write_feather(table, tmp_path / "out.feather"),
        ):
            with pytest.raises(UserError, match=f"is {kind}"):
                read(table)
