import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from unfreeze.models.images.label_regression import regress_labels
from unfreeze.models.images.linear_head import build_linear_head, fit_linear_head


def blobs(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Activations to which every label adds a direction of its own, and labels (rows, 3)."""
    generator = np.random.default_rng(seed)
    labels = (generator.random((rows, 3)) < (0.5, 0.3, 0.2)).astype(np.float32)
    directions = np.random.default_rng(99).normal(size=(3, 20))
    return (2 + 2 * labels @ directions + generator.normal(size=(rows, 20))).astype(np.float32), labels


def test_each_label_has_the_regression_that_scikit_learn_fits_it():
    activations, labels = blobs(150)
    inputs = ((activations - activations.mean(0)) / activations.std(0)).astype(np.float64)
    weights, biases = regress_labels([inputs], labels.astype(np.float64))
    for label in range(3):
        fitted = [
            LogisticRegression(C=strength, max_iter=1000).fit(inputs, labels[:, label]) for strength in (0.1, 1.0)
        ]
        closest = min(fitted, key=lambda each: np.abs(each.coef_[0] - weights[label]).max())
        np.testing.assert_allclose(closest.coef_[0], weights[label], atol=0.02)
        assert closest.intercept_[0] == pytest.approx(biases[label], abs=0.02)


def test_labels_are_found_on_other_rows():
    state = fit_linear_head([blobs(200)[0]], blobs(200)[1], 3)
    activations, labels = blobs(300, seed=1)
    head = build_linear_head(20, 3)
    head.load_state_dict(state)
    said = head(torch.from_numpy(activations)).detach().numpy() > 0
    assert (said == labels.astype(bool)).mean() > 0.97


def test_labels_that_no_row_or_every_row_has_are_answered_like_that():
    activations, labels = blobs(90)
    labels[:, 1], labels[:, 2] = 0, 1
    weights, biases = regress_labels([activations.astype(np.float64)], labels.astype(np.float64))
    assert (weights[1:] == 0).all()
    assert biases[1] < -10 < 10 < biases[2]


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_handful_of_rows_is_enough(rows):
    weights, biases = regress_labels([np.ones((rows, 4))], np.ones((rows, 2)))
    assert np.isfinite(weights).all()
    assert np.isfinite(biases).all()


def test_noise_is_not_fitted():
    generator = np.random.default_rng(0)
    weights, biases = regress_labels(
        [generator.normal(size=(90, 200))], (generator.random((90, 2)) < 0.5).astype(float)
    )
    fresh = generator.normal(size=(500, 200)) @ weights.T + biases
    assert np.abs(fresh).mean() < 0.5
