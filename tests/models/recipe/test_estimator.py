"""Estimators in a notebook, on the files that the documentation speaks of."""

import doctest
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs import draw_user_files
from unfreeze.models.errors import UserError
from unfreeze.models.recipe import estimator
from unfreeze.models.recipe.estimator import Images, Tables


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("notebook")
    draw_user_files(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        yield place


def test_the_examples_run() -> None:
    assert doctest.testmod(estimator).failed == 0


def test_rows_to_predict_are_paths_or_encoded_images(folder: Path) -> None:
    settings = {"model__backbone": "timm/test_resnet", "weights": "none", "size": 16, "keep": "trained"}
    model = Images("photos", recipe=[{"name": "head", "lr": 0.01}], **settings).fit()
    image = folder / "new.jpg"
    one = model.predict(str(image))
    for same in (image, [image], image.read_bytes(), [image.read_bytes()]):
        assert model.predict(same).equals(one)
    with pytest.raises(UserError, match="'photos' is a folder"):
        model.predict("photos")
    with pytest.raises(UserError, match=r"'absent\.jpg' cannot be read: No such file"):
        model.predict(["absent.jpg"])


def test_rows_of_a_table_are_a_frame_and_nothing_is_predicted_before_the_fit() -> None:
    model = Tables("sales.csv", target=["Sales"], date=["Date"])
    with pytest.raises(UserError, match=r"call fit\(\) first"):
        model.predict("sales.csv")
