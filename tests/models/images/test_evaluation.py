import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from unfreeze.models.images.evaluation import (
    error_reduction,
    predict_views,
)
from unfreeze.models.images.pixels.augmentation import average_views
from unfreeze.models.settings import TtaSpec
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.targets import SingleLabel

RANDOM = np.random.default_rng(0)
PLAIN, *AUGMENTED = RANDOM.dirichlet(np.ones(3), (5, 6))


@given(n_aug=st.integers(1, 4))
def test_every_view_weighs_the_same(n_aug):
    views = [PLAIN, *AUGMENTED[:n_aug]]
    np.testing.assert_allclose(average_views(PLAIN, AUGMENTED[:n_aug]), sum(views) / (n_aug + 1))


def test_without_augmented_views_the_plain_one_is_all():
    np.testing.assert_array_equal(average_views(PLAIN, []), PLAIN)


def test_probabilities_are_averaged_over_views_in_the_rows_order(tiny_recipe):
    learner = tiny_recipe.learner()
    for module in learner.network.head:  # far from certain about everything, so that logits would average differently
        if isinstance(module, torch.nn.Linear):
            module.weight.data *= 3
    tta = TtaSpec(n_aug=2)
    plain, averaged = predict_views(learner, tiny_recipe.evaluation_views(0, "valid", {}), tta)
    logits = []
    for view in range(3):
        images = tiny_recipe.images(0, "valid", view)
        rows = [images.gather(torch.tensor([row]), None)[0] for row in range(len(images))]
        with torch.no_grad():
            logits.append(learner.network.eval()(torch.cat(rows)).double())
    each = torch.stack(logits).softmax(2).numpy()
    np.testing.assert_allclose(plain, each[0], atol=1e-5)
    np.testing.assert_allclose(averaged, each.mean(0), atol=1e-5)
    assert np.abs(averaged - torch.stack(logits).mean(0).softmax(1).numpy()).max() > 1e-3


def test_evaluating_from_activations_gives_the_same(tiny_recipe, tmp_path):
    learner = tiny_recipe.learner()
    files = tiny_recipe.precompute(learner, 0, Workspace(tmp_path))
    results = [
        predict_views(learner, tiny_recipe.evaluation_views(0, "valid", activations), TtaSpec(n_aug=2))
        for activations in ({}, files)
    ]
    for images, activations in zip(*results, strict=True):
        np.testing.assert_allclose(activations, images, atol=1e-5)


def test_no_augmentation_asks_for_the_plain_view_alone(tiny_recipe):
    learner, asked = tiny_recipe.learner(), []

    def views(view: int) -> object:
        asked.append(view)
        return tiny_recipe.images(0, "valid", view)

    plain, averaged = predict_views(learner, views, TtaSpec(n_aug=0))
    assert asked == [0]
    np.testing.assert_array_equal(plain, averaged)


@pytest.mark.parametrize(
    ("plain", "tta", "expected"), [(0.9, 0.95, 0.5), (0.5, 0.5, 0), (0.9, 0.8, -1), (1, 1, 0), (1, 0.9, 0), (0.5, 1, 1)]
)
def test_the_error_reduction_is_a_share_of_the_errors(plain, tta, expected):
    assert error_reduction(plain, tta) == pytest.approx(expected)


def test_a_rows_loss_is_the_negative_log_probability_of_its_class():
    probabilities = np.array([[0.25, 0.75], [1.0, 0.0]])
    losses = SingleLabel(["a", "b"]).evaluated(np.array([0, 1]), probabilities, {})["loss"]
    assert losses[0] == pytest.approx(np.log(4))
    assert np.isfinite(losses[1])
    assert losses[1] > 20


def test_the_table_of_predictions_has_a_row_per_image():
    plain, averaged = np.array([[0.7, 0.3], [0.4, 0.6]]), np.array([[0.2, 0.8], [0.1, 0.9]])
    table = SingleLabel(["cat", "dog"]).evaluated(np.array([0, 0]), plain, {"tta": averaged})
    assert table["label"].tolist() == ["cat", "cat"]
    assert table["predicted"].tolist() == ["cat", "dog"]
    assert table["probability"].tolist() == [0.7, 0.6]
    assert table["predicted_tta"].tolist() == ["dog", "dog"]
    assert table["probability_tta"].tolist() == [0.8, 0.9]
    np.testing.assert_allclose(table["loss"], -np.log([0.7, 0.4]))
    np.testing.assert_array_equal(table[["p(cat)", "p(dog)"]], plain)
    np.testing.assert_array_equal(table[["p_tta(cat)", "p_tta(dog)"]], averaged)
