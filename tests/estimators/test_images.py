"""Image classifiers from folders, lists, frames and arrays."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image
from sklearn.exceptions import NotFittedError

from tests.estimators.conftest import assert_refused_in_a_line
from unfreeze import Images, Tables, load_model
from unfreeze.models.errors import UserError

TINY: dict[str, Any] = {
    "backbone": "timm/test_resnet",
    "weights": "none",
    "size": 16,
    "device": "cpu",
    "recipe": [{"name": "head", "precompute": True, "regression": True}],
    "config": {"keep": "trained", "tta.n_aug": 0},
}


def files() -> tuple[list[Path], list[str]]:
    found = sorted(Path("photos").rglob("*.png"))
    return found, [file.parent.name for file in found]


def pixels(found: list[Path]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file).convert("RGB").resize((16, 16))) for file in found])


@pytest.fixture(scope="module")
def model(folder: Path) -> Images:
    return Images("photos", **TINY).fit()


def test_an_image_is_a_path_bytes_an_array_or_pil_s(model: Images) -> None:
    image = Path("new.jpg")
    opened = Image.open(image)
    one = model.predict("new.jpg").tolist()
    assert one == ["across"]
    for same in (image, [image], image.read_bytes(), [image.read_bytes()], opened, [np.asarray(opened)]):
        assert model.predict(same).tolist() == one
    assert model.predict(pd.DataFrame({"path": ["new.jpg"]})).tolist() == one


def test_a_text_is_a_folder_or_a_file(model: Images) -> None:
    found = model.predict_frame("incoming", coverage=0.8)
    assert [Path(name).name for name in found.index] == ["0.png", "1.png", "2.png"]
    assert {"class", "probability", "set", "abstains"} <= set(found)
    assert model.predict_proba("incoming").sum(axis=1) == pytest.approx(1)
    assert len(model.predict("photos/down")) == 30


SOURCES: dict[str, Callable[[], tuple[Any, ...]]] = {
    "paths": files,
    "bytes": lambda: ([file.read_bytes() for file in files()[0]], pd.Series(files()[1])),
    "frame": lambda: (pd.DataFrame({"path": map(str, files()[0]), "label": files()[1]}),),
    "frame of bytes": lambda: (
        pl.DataFrame({"image": [file.read_bytes() for file in files()[0]], "label": files()[1]}),
    ),
    "frame of a hub": lambda: (
        pl.DataFrame(
            {"image": [{"bytes": file.read_bytes(), "path": None} for file in files()[0]], "label": files()[1]}
        ),
    ),
}


@pytest.mark.parametrize("form", SOURCES)
def test_images_in_memory_are_the_data_that_they_are_in_a_folder(model: Images, form: str) -> None:
    rows = SOURCES[form]()
    assert Images(**TINY)._data(*rows).prepared.fingerprint == Images("photos", **TINY)._data().prepared.fingerprint
    assert model.score(*rows) == model.evaluate(*rows).loc["accuracy", "value"] == model.score("photos")


def test_numbers_as_labels_are_predicted_as_numbers() -> None:
    found, labels = files()
    numbers = np.array([7 if label == "across" else 30 for label in labels])
    model = Images(**TINY).fit(pixels(found), numbers)
    assert model.classes_.tolist() == [30, 7]  # in the order of the probabilities
    assert (model.predict(pixels(found)) == numbers).mean() == model.score(pixels(found), numbers)


def test_several_labels_are_lists() -> None:
    found, labels = files()
    tags = [[label, "red"] if number % 2 else [label] for number, label in enumerate(labels)]
    model = Images(**TINY).fit(found, tags)
    assert model.predict_proba(found[:2]).shape == (2, 3)
    assert all(isinstance(each, list) for each in model.predict(found[:2]))
    assert 0 <= model.score(found, tags) <= 1


def test_metrics_on_other_images_have_intervals(model: Images) -> None:
    loaded = load_model(model.save("photos-model")).set_params(path_column="file", label_column="species")
    found = loaded.evaluate("labels.csv")
    assert (found["low"] <= found["value"]).all()
    assert (found["value"] <= found["high"]).all()
    assert {"loss", "accuracy"} <= set(found.index)


def test_a_model_is_saved_loaded_and_pickled(model: Images, tmp_path: Path) -> None:
    said = model.predict_proba("incoming")
    model.save(tmp_path / "model")
    for same in (load_model(tmp_path / "model"), Images.load(tmp_path / "model"), pickle.loads(pickle.dumps(model))):
        assert (same.predict_proba("incoming") == said).all()
    with pytest.raises(UserError, match="is a model of images"):
        Tables.load(tmp_path / "model")
    with pytest.raises(UserError, match="the training of a loaded model is not in this process"):
        load_model(tmp_path / "model").report()


def test_pages_are_written_and_shown_without_servers(model: Images, tmp_path: Path) -> None:
    report, explained = model.report(tmp_path / "r.html"), model.explain(["new.jpg"], tmp_path / "e.html")
    assert "Verdict" in report.path.read_text()
    assert "MLflow run" not in report.path.read_text()
    assert "Grad-CAM" in explained.path.read_text()
    assert report._repr_html_().startswith("<iframe")
    assert "valid" in model._repr_html_()


def test_the_finder_s_curve_is_found_and_drawn() -> None:
    settings = {**TINY, "recipe": [{"name": "head", "precompute": True, "find_lr": True}]}
    curve = Images(
        "photos",
        **settings,
    ).lr_find()
    assert curve.plot().axes[0].get_lines()
    assert curve.suggestions()["stable"] > 0
    with pytest.raises(UserError, match="stage: 'body' is not one of the recipe's that have an lr: head"):
        Images("photos", **settings).lr_find(stage="body")


IMAGES = np.zeros((4, 16, 16, 3), np.uint8)
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "nothing": (lambda: Images().fit(), "there is nothing to train on; give a folder or frame"),
    "labels of a folder": (lambda: Images().fit("photos", ["a"]), "'photos' has labels of its own"),
    "no labels": (lambda: Images().fit(IMAGES), r"y: give the labels of the 4 rows: fit\(X, y\)"),
    "few labels": (lambda: Images().fit(IMAGES, ["a"]), "y: 1 labels for 4 rows"),
    "a missing label": (lambda: Images().fit(IMAGES, ["a", None, "b", "b"]), "y: row 1 has no label"),
    "one class": (lambda: Images().fit(IMAGES, ["a"] * 4), "y: every label is 'a'"),
    "a matrix": (lambda: Images().fit(IMAGES, np.eye(2)[[0, 1, 0, 1]]), "a list of their names, not numbers"),
    "shares": (lambda: Images().fit(IMAGES / 255, ["a"] * 4), "number 0 is float64 of shape"),
    "a number": (lambda: Images().fit(3, ["a"]), "images: given a int; give a folder"),
    "no images": (lambda: Images().fit([], []), "images: the list is empty"),
    "no file": (lambda: Images().fit(["a.jpg"], ["a"]), r"there is no file 'a\.jpg'"),
    "no column": (lambda: Images().fit(pd.DataFrame({"file": ["new.jpg"]})), "no column 'path' of paths"),
    "no label column": (lambda: Images().fit(pd.DataFrame({"path": ["new.jpg"]})), "no column 'label'; it has: path"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_train_is_refused_in_a_line(case: str) -> None:
    assert_refused_in_a_line(*REFUSED[case])


def test_what_cannot_be_predicted_is_refused_in_a_line(model: Images, tmp_path: Path) -> None:
    cases = {
        "the list is empty": lambda: model.predict([]),
        "given a NoneType": lambda: model.predict(None),
        "'nothing' does not exist": lambda: model.predict("nothing"),
        "'photos' is a folder; give it alone": lambda: model.predict(["photos"]),
        r"excluded\.txt cannot be read: not an image": lambda: model.predict("excluded.txt"),
        "the model has no class 'cat'; its classes are across, down": lambda: model.score(["new.jpg"], ["cat"]),
        "coverage: given 'x'": lambda: model.predict_frame("new.jpg", coverage="x"),
        "out: cannot write": lambda: model.report(tmp_path / "no" / "r.html"),
        "folder: cannot write": lambda: model.save("new.jpg"),
    }
    for message, call in cases.items():
        with pytest.raises(UserError, match=message):
            call()


def test_nothing_is_predicted_before_the_fit() -> None:
    model = Images("photos")
    for call in (model.predict, model.predict_proba, model.score, model.evaluate, model.explain, model.save):
        with pytest.raises(NotFittedError, match=r"call fit\(\) first"):
            call("photos")
