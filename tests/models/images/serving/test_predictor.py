import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch

from unfreeze.models.errors import UserError
from unfreeze.models.images.data import ImageData
from unfreeze.models.images.evaluation import predict_views
from unfreeze.models.images.serving import predictor as serving
from unfreeze.models.images.serving.predictor import ImagePredictor, save_classifier
from unfreeze.models.settings import TrainImages, TtaSpec
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.training.batches import in_order
from unfreeze.models.training.loop import fit

POSITION = 3
"""The stage at 48 pixels, which trains every layer."""


class Saved(NamedTuple):
    folder: Path
    paths: list[str]
    expected: np.ndarray
    features: np.ndarray
    all_paths: list[str]
    averaged: np.ndarray
    valid: np.ndarray


@pytest.fixture(scope="module")
def saved(tiny_recipe: ImageData, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A network that trained a little, its validation images, and what evaluation says of them."""
    learner, stage, params = tiny_recipe.learner(), tiny_recipe.params.recipe[POSITION], tiny_recipe.params
    learner.prepare(stage, POSITION, 0.01)
    for _ in fit(learner, stage, *(tiny_recipe.batches(POSITION, split, {}) for split in ("train", "valid"))):
        pass
    expected, averaged = predict_views(learner, tiny_recipe.evaluation_views(POSITION, "valid", {}), TtaSpec(n_aug=2))
    with torch.no_grad():
        features = torch.cat([learner.network.body(inputs) for inputs, _ in in_order(tiny_recipe.images(3, "valid"))])
    folder = tmp_path_factory.mktemp("served") / "model"
    save_classifier(
        folder,
        [learner.state()],
        build_spec(TrainImages, params, {"data.max_megapixels": 1, "tta.n_aug": 2}),
        tiny_recipe.preprocessing,
        tiny_recipe.target,
        tiny_recipe.sizes[POSITION],
    )
    paths = [tiny_recipe.index.rows["path"][int(row)].as_py() for row in tiny_recipe.rows["valid"]]
    every = tiny_recipe.index.rows["path"].to_pylist()
    return Saved(folder, paths, expected, features.numpy(), every, averaged, tiny_recipe.rows["valid"])


def test_a_served_model_predicts_what_evaluation_did(saved):
    probabilities = ImagePredictor(saved.folder, "cpu").probabilities(saved.paths)
    np.testing.assert_allclose(probabilities, saved.expected, atol=1e-5)
    assert np.ptp(probabilities, axis=0).max() > 0.01  # it tells images apart


def test_test_time_augmentation_is_that_of_the_evaluation(saved):
    predictor = ImagePredictor(saved.folder, "cpu")
    averaged = predictor.probabilities(saved.all_paths, tta=True)
    np.testing.assert_allclose(averaged[saved.valid], saved.averaged, atol=1e-5)
    assert np.abs(saved.averaged - saved.expected).max() > 1e-3
    # The views go by content: whichever images are beside it, and whether it comes as a file or as bytes.
    backwards = predictor.probabilities([Path(path).read_bytes() for path in saved.paths[::-1]], tta=True)
    np.testing.assert_allclose(backwards[::-1], saved.averaged, atol=1e-5)


def test_features_are_what_the_head_takes(saved):
    predictor = ImagePredictor(saved.folder, "cpu")
    features = predictor.features(saved.paths)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, saved.features, atol=1e-4)
    assert predictor.features([]).shape == (0, features.shape[1])
    with torch.inference_mode():
        logits = predictor.networks[0].head(torch.from_numpy(features))
    np.testing.assert_allclose(logits.double().softmax(1), saved.expected, atol=1e-5)


@pytest.mark.parametrize("tta", [False, True])
def test_a_stream_reports_what_cannot_be_read_and_predicts_the_rest(saved, tta, tmp_path):
    (tmp_path / "cut.jpg").write_bytes(Path(saved.paths[1]).read_bytes()[:50])
    images = [*saved.paths[:2], tmp_path / "cut.jpg", *saved.paths[2:], "/nowhere/at/all.png"]
    predictor = ImagePredictor(saved.folder, "cpu")
    chunks = list(predictor.stream(images, chunk=4, tta=tta))
    reasons = {position: reason for each in chunks for position, reason in each.unreadable.items()}
    assert list(reasons) == [2, len(images) - 1]
    assert reasons[2].startswith("truncated or damaged")
    together = np.concatenate([each.results for each in chunks])
    assert together.shape == saved.expected.shape
    if not tta:
        np.testing.assert_allclose(together, saved.expected, atol=1e-5)


def test_bytes_and_paths_give_the_same(saved):
    predictor = ImagePredictor(saved.folder, "cpu")
    from_paths = predictor.probabilities(saved.paths)
    contents = [Path(path).read_bytes() for path in saved.paths]
    np.testing.assert_array_equal(predictor.probabilities(contents), from_paths)
    np.testing.assert_array_equal(predictor.probabilities([Path(path) for path in saved.paths]), from_paths)


def test_more_images_than_a_batch_come_back_in_order(saved, monkeypatch):
    monkeypatch.setattr(serving, "CPU_FORWARD_SIZE", 4)
    predictor = ImagePredictor(saved.folder, "cpu")
    np.testing.assert_allclose(predictor.probabilities(saved.paths), saved.expected, atol=1e-5)
    backwards = predictor.probabilities(saved.paths[::-1])
    np.testing.assert_allclose(backwards, saved.expected[::-1], atol=1e-5)


def test_no_images_give_no_rows(saved):
    assert ImagePredictor(saved.folder, "cpu").probabilities([]).shape == (0, 3)


def test_a_frame_of_images_gives_a_frame_of_predictions(saved):
    predictor = serving._load_pyfunc(str(saved.folder))
    result = predictor.predict(pd.DataFrame({"image": [Path(path).read_bytes() for path in saved.paths]}))
    np.testing.assert_allclose(np.array(result["probabilities"].tolist()), saved.expected, atol=1e-5)
    assert result["class"].tolist() == [("blue", "green", "red")[number] for number in saved.expected.argmax(1)]
    np.testing.assert_allclose(result["probability"], saved.expected.max(1), atol=1e-5)


@pytest.mark.parametrize("column", ["path", "image", "url"])
def test_a_frame_never_makes_the_model_open_a_file(saved, column):
    predictor = serving._load_pyfunc(str(saved.folder))
    for values in (saved.paths, [Path(path) for path in saved.paths], [None]):
        with pytest.raises(UserError, match=r"encoded bytes .* `image`, not its path"):
            predictor.predict(pd.DataFrame({column: values}))


def test_the_made_up_image_is_one_that_the_model_predicts(saved):
    predictor = serving._load_pyfunc(str(saved.folder))
    result = predictor.predict(pd.DataFrame({"image": [serving.example_image(predictor.size)]}))
    assert result["probability"].between(0, 1).all()


@pytest.mark.parametrize("bad", [b"no image", b"", "/nowhere/to/be/found.jpg"])
def test_an_unreadable_image_names_its_row(saved, bad, monkeypatch):
    monkeypatch.setattr(serving, "CPU_FORWARD_SIZE", 2)
    with pytest.raises(UserError, match=r"^row 3: (the image|/nowhere/to/be/found.jpg) cannot be read: (?!cannot)"):
        ImagePredictor(saved.folder, "cpu").probabilities([*saved.paths[:3], bad, saved.paths[0]])


def test_the_folder_is_plain_files_that_need_no_weights(saved):
    assert sorted(path.name for path in saved.folder.iterdir()) == ["checksums.json", "model.json", "model.safetensors"]
    about = json.loads((saved.folder / "model.json").read_text())
    assert about["target"]["classes"] == ["blue", "green", "red"]
    assert about["model"]["weights"] == "none"
    assert about["size"] == 48
    assert about["tta"]["n_aug"] == 2
    assert about["augment"]["preset"] == "side_on"


def test_a_predictor_leaves_the_network_in_evaluation_mode(saved):
    predictor = ImagePredictor(saved.folder, "cpu")
    before = {name: tensor.clone() for name, tensor in predictor.networks[0].state_dict().items()}
    predictor.probabilities(saved.paths)
    assert not predictor.networks[0].training
    assert all(torch.equal(tensor, before[name]) for name, tensor in predictor.networks[0].state_dict().items())


def test_a_model_of_another_format_is_refused(saved, tmp_path):
    about = json.loads((saved.folder / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**about, "format": 99}))
    with pytest.raises(UserError, match=r"model format 99, but this release reads \d+; train and register"):
        ImagePredictor(tmp_path, "cpu")


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(UserError, match="does not describe a model"):
        ImagePredictor(tmp_path, "cpu")
