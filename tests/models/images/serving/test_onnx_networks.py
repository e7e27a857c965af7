"""Networks that onnxruntime runs."""

import numpy as np
import pytest

from tests.models.images.serving.test_export import SIDE, saved
from unfreeze.models.errors import UserError
from unfreeze.models.images.serving.export import generated_images
from unfreeze.models.images.serving.onnx_networks import use_onnxruntime
from unfreeze.models.images.serving.predictor import ImagePredictor
from unfreeze.models.recipe.modality import modality
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.predict import Predict
from unfreeze.models.store.workspace import Workspace


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
