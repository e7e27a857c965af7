"""The recipe on a GPU; needs no Prefect, MLflow or Optuna."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.recipe.test_select_model import STAGES, choice_of, trained
from unfreeze.models.images.data import ImageData
from unfreeze.models.images.serving.predictor import ImagePredictor
from unfreeze.models.recipe.run import Evaluate

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]


def on_gpu(tiny_recipe: ImageData, precision: str) -> ImageData:
    changes = {"recipe": STAGES, "device": "cuda", "precision": precision}
    return ImageData(tiny_recipe.params.model_copy(update=changes), tiny_recipe.prepared)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_all_steps_run_and_the_model_that_is_kept_predicts_the_same_on_the_cpu(
    tiny_recipe: ImageData, tmp_path: Path, precision: str
) -> None:
    data = on_gpu(tiny_recipe, precision)
    steps = trained(data, tmp_path)
    state, losses = choice_of(steps)
    assert state.learner.device.type == "cuda"
    assert all(np.isfinite(loss) for loss in losses.values())
    assert [done.step.section for done in steps if isinstance(done.step, Evaluate)] == ["baseline", "valid"]
    expected = data.predictions(state.learner, state.kept, state.activations(state.kept.position), "valid")
    data.save(tmp_path / "model", state.kept)
    paths = [data.index.rows["path"][int(row)].as_py() for row in data.rows["valid"]]
    found = ImagePredictor(tmp_path / "model", "cpu").probabilities(paths)
    np.testing.assert_allclose(found, expected, atol=1e-3 if precision == "fp32" else 0.1)


def test_two_trainings_with_one_seed_agree(tiny_recipe: ImageData, tmp_path: Path) -> None:
    one, two = (choice_of(trained(on_gpu(tiny_recipe, "fp32"), tmp_path / name))[1] for name in ("one", "two"))
    assert one == pytest.approx(two, rel=1e-2)
