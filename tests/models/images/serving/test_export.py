"""Exports of classifiers predict what the classifiers do, in programs that know nothing of this package."""

import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform

from unfreeze.models.errors import UserError
from unfreeze.models.images.networks.classifier import build_classifier, normalise_bytes
from unfreeze.models.images.serving import export
from unfreeze.models.images.serving.export import TOLERANCE, export_classifier, generated_images, use_onnxruntime
from unfreeze.models.images.serving.predictor import ImagePredictor, save_classifier
from unfreeze.models.recipe.modality import modality
from unfreeze.models.settings import DataSpec, ModelSpec, Stage, TrainImages
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.predict import Predict
from unfreeze.models.store.model_folder import TEMPERATURE
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.targets import MultiLabel, SingleLabel

CLASSES = ["cat", "dog", "Ünicorn"]
SIDE = 32


def saved(folder: Path, networks: int = 1, labels: bool = False, temperature: float = 1.0, **model: Any) -> Path:
    """A classifier of images of 32 pixels with random weights that tell images apart."""
    spec = ModelSpec(**{"backbone": "timm/test_resnet", "weights": "none", "head": "linear", "head_width": 16, **model})
    states = []
    for seed in range(networks):
        network = build_classifier(spec, len(CLASSES), seed, [SIDE])
        pixels = [np.asarray(Image.open(io.BytesIO(content))) for content in generated_images(SIDE)[:32]]
        inputs = normalise_bytes(torch.tensor(np.stack(pixels)).permute(0, 3, 1, 2), network.body.preprocessing)
        for module in network.body.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # the statistics are those of the one batch
        with torch.no_grad():
            features = network.train().body(inputs)
            for parameter in network.head.parameters():
                torch.nn.init.normal_(parameter, std=3 / float(features.std(0).norm()))
        states.append(network.state_dict())
    target = MultiLabel(CLASSES, [0.3, 0.5, 0.7]) if labels else SingleLabel(CLASSES)
    params = TrainImages(
        model=spec, data=DataSpec(size=SIDE, fit="pad"), recipe=[Stage(name="all", train="all", lr=0.01)]
    )
    calibration = {TEMPERATURE: temperature}
    save_classifier(folder, states, params, network.body.preprocessing, target, SIDE, calibration=calibration)
    return folder


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    """Twenty encoded images that are not square, and one that is damaged."""
    found = []
    for content in generated_images(SIDE)[:20]:
        Image.open(io.BytesIO(content)).resize((40, 50)).save(encoded := io.BytesIO(), "PNG")
        found.append(encoded.getvalue())
    return [*found, b"no image"]


@pytest.mark.slow
def test_a_program_of_torch_is_whole_by_itself(tmp_path, images):
    """Normalisation, the average of two networks and the temperature are in it."""
    model = saved(tmp_path / "model", networks=2, temperature=2.0)
    result = export_classifier(model, "torch", tmp_path / "out", images)
    assert result["check"]["rows"] == result["check"]["same_answers"] == 20
    assert result["check"]["unreadable"] == 1
    predictor = ImagePredictor(model, "cpu")
    squares = np.stack([predictor.square(image) for image in images[:3]])
    about = {"about.json": ""}
    probabilities = torch.export.load(tmp_path / "out" / "model.pt2", extra_files=about).module()(torch.tensor(squares))
    expected = predictor.probabilities(images[:3])
    np.testing.assert_allclose(probabilities.detach(), expected, atol=TOLERANCE)
    assert np.ptp(expected, axis=0).max() > 0.05  # it tells images apart
    assert json.loads(about["about.json"]) == json.loads((tmp_path / "out" / "export.json").read_text())["about"]


@pytest.mark.slow
def test_onnxruntime_alone_predicts_any_number_of_images(tmp_path, images):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = saved(tmp_path / "model", labels=True)
    result = export_classifier(model, "onnx", tmp_path / "out", images)
    assert list(result["files"]) == ["model.onnx"]
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    about = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    assert about["classes"] == CLASSES
    assert about["thresholds"] == [0.3, 0.5, 0.7]
    assert (about["size"], about["fit"], about["interpolation"]) == (SIDE, "pad", "bilinear")
    predictor = ImagePredictor(model, "cpu")
    for number in (1, 5):
        squares = np.stack([predictor.square(image) for image in images[:number]])
        (probabilities,) = session.run(["probabilities"], {"pixels": squares})
        np.testing.assert_allclose(probabilities, predictor.probabilities(images[:number]), atol=TOLERANCE)


@pytest.mark.parametrize("labels", [False, True])
def test_timm_loads_a_folder_by_itself(tmp_path, images, labels):
    model = saved(tmp_path / "model", labels=labels, temperature=0.5)
    export_classifier(model, "timm", tmp_path / "out", images)
    network = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    config = resolve_data_config(model=network)
    assert network.pretrained_cfg["label_names"] == CLASSES
    assert (*config["input_size"], config["crop_pct"], config["crop_mode"]) == (3, SIDE, SIDE, 1.0, "border")
    prepare, predictor = create_transform(**config, is_training=False), ImagePredictor(model, "cpu")
    square = predictor.square(images[0])
    with torch.inference_mode():
        logits = network(prepare(Image.fromarray(square))[None])[0]
    probabilities = logits.sigmoid() if labels else logits.softmax(0)
    Image.fromarray(square).save(encoded := io.BytesIO(), "PNG")
    np.testing.assert_allclose(probabilities, predictor.probabilities([encoded.getvalue()])[0], atol=TOLERANCE)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"head": "fastai"}, "its head 'fastai' is not a single linear layer"),
        ({"networks": 2}, "it averages 2 networks"),
        ({"backbone": "timm/test_vit"}, "test_vit of timm cannot be built with this head"),
    ],
)
def test_what_timm_cannot_hold_is_refused_with_what_can(tmp_path, settings, why):
    with pytest.raises(UserError, match=f"{why}.*--to onnx"):
        export_classifier(saved(tmp_path / "model", **settings), "timm", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_export_that_predicts_something_else_is_not_written(tmp_path, images, monkeypatch):
    model = saved(tmp_path / "model")

    class Wrong(export.PixelClassifier):
        def forward(self, pixels):
            return super().forward(pixels) + 2 * TOLERANCE

    monkeypatch.setattr(export, "PixelClassifier", Wrong)
    with pytest.raises(UserError, match=r"0 of 20 answers differ, and probabilities by up to 0\.0002"):
        export_classifier(model, "torch", tmp_path / "out", images)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_is_there_is_kept(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already; choose another --out"):
        export_classifier(tmp_path / "model", "torch", tmp_path / "out")


def test_images_none_of_which_can_be_read_check_nothing(tmp_path):
    with pytest.raises(UserError, match="none of 1 images can be read"):
        export_classifier(saved(tmp_path / "model"), "torch", tmp_path / "out", [b"no image"])


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs onnx, onnxscript, onnxruntime: pip install 'unfreeze\[export\]'"):
        export_classifier(saved(tmp_path / "model"), "onnx", tmp_path / "out")


@pytest.mark.slow
def test_onnxruntime_predicts_what_torch_does_and_converts_a_model_once(tmp_path):
    pytest.importorskip("onnxruntime")
    model, images = saved(tmp_path / "model", networks=2), generated_images(SIDE)[:20]
    for _ in range(2):
        predictor, workspace = ImagePredictor(model, "cpu"), Workspace(tmp_path)
        expected = [predictor.probabilities(images, tta=tta) for tta in (False, True)]
        use_onnxruntime(predictor, model, workspace)
        got = [predictor.probabilities(images, tta=tta) for tta in (False, True)]
        np.testing.assert_allclose(got, expected, atol=1e-5)
    assert workspace.built == 0


def test_onnxruntime_is_for_classifiers_on_the_cpu(tmp_path):
    with pytest.raises(UserError, match="onnx is for image classifiers"):
        modality("tables").use_onnxruntime(None, tmp_path, Workspace(tmp_path))
    with pytest.raises(UserError, match="onnx runs on the CPU, not on cuda"):
        build_spec(Predict, {"runtime": "onnx", "device": "cuda"})
