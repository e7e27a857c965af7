"""What is said of images before they are trained on."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import draw_stripes
from tests.flows.tiny import tiny_training
from unfreeze.models.evaluation.drift import SHIFTS
from unfreeze.models.evaluation.verdict import TrainingSummary, suspicions
from unfreeze.models.images.modality import Images
from unfreeze.models.recipe.training_data import TrainingData
from unfreeze.models.store.workspace import Workspace

pytestmark = pytest.mark.usefixtures("one_thread")


def described(source: Path, workspace: Path) -> str:
    """What stands under "worth a look" of the description alone."""
    workspace.mkdir()
    params = tiny_training(source)
    data: TrainingData = Images().bind(params, Images().prepare(params, Workspace(workspace)))
    found = data.describe()
    shift = {split: rows for split, wanted in SHIFTS.items() for key, _, rows in found.tables if key == wanted}
    return "\n".join(each.text for each in suspicions(TrainingSummary(notices=found.notices, shift=shift)))


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """Stripes in the folders train, valid and test."""
    for seed, name in enumerate(("train", "valid", "test")):
        draw_stripes(tmp_path / "split" / name, 24, seed=seed)
    return tmp_path / "split"


@pytest.mark.parametrize(("folder", "rows"), [("valid", "validation rows"), ("test", "test rows")])
def test_a_split_of_darker_images_is_named(split: Path, tmp_path: Path, folder: str, rows: str) -> None:
    for path in (split / folder).rglob("*.png"):
        Image.open(path).point(lambda level: level // 3).save(path)
    found = described(split, tmp_path / "work")
    (line,) = [line for line in found.splitlines() if "are unlike the training rows" in line]
    assert line.startswith(f"The {rows} are unlike")
    assert "brightness (population stability index " in line


@pytest.mark.parametrize(("folder", "images"), [("valid", "2 validation images"), ("test", "2 test images")])
def test_byte_equal_copies_of_training_images_are_counted(
    split: Path, tmp_path: Path, folder: str, images: str
) -> None:
    for place, path in enumerate(sorted((split / "train" / "across").glob("*.png"))[:2]):
        shutil.copy(path, split / folder / "across" / f"copy{place}.png")
    found = described(split, tmp_path / "work")
    assert f"{images} are left out because they are byte for byte those of another split" in found
    assert "the same image is in train as" in found
