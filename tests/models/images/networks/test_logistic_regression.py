import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression

from unfreeze.models.images.networks.linear_head import (
    STRENGTHS,
    build_linear_head,
    choose_strengths,
    fit_linear_head,
    regress,
)


def standardised(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, columns))


def blobs(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Activations to which every label adds a direction of its own, and labels (rows, 3)."""
    generator = np.random.default_rng(seed)
    labels = (generator.random((rows, 3)) < (0.5, 0.3, 0.2)).astype(np.float32)
    directions = np.random.default_rng(99).normal(size=(3, 20))
    return (2 + 2 * labels @ directions + generator.normal(size=(rows, 20))).astype(np.float32), labels


@pytest.mark.parametrize("columns", [10, 200])
@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_classes_are_fitted_as_by_scikit_learn(columns, strength, classes):
    inputs = standardised(60, columns)
    targets = np.arange(60) % classes
    inputs[:, :classes] += 2 * np.eye(classes)[targets]
    weights, biases = regress(inputs, np.eye(classes)[targets], np.full(classes, strength), exclusive=True)
    half = 2 if classes == 2 else 1  # scikit-learn has one vector for two classes, with a penalty of its own
    fitted = LogisticRegression(C=half * strength, max_iter=20_000, tol=1e-9).fit(inputs, targets)
    others = standardised(20, columns)
    np.testing.assert_allclose(softmax(others @ weights.T + biases, 1), fitted.predict_proba(others), atol=1e-3)


@pytest.mark.parametrize("columns", [10, 200])
def test_rows_count_as_scikit_learn_lets_them_count(columns):
    inputs, targets = standardised(60, columns), (np.arange(60) % 6 == 0).astype(int)
    inputs[:, 0] += targets
    counts = np.where(targets, 3.0, 0.6)
    weights, biases = regress(inputs, np.eye(2)[targets], np.full(2, 0.01), True, counts)
    fitted = LogisticRegression(C=0.02, max_iter=20_000, tol=1e-9).fit(inputs, targets, counts)
    others = standardised(20, columns)
    np.testing.assert_allclose(softmax(others @ weights.T + biases, 1), fitted.predict_proba(others), atol=1e-3)


def test_rows_that_count_nothing_have_no_say_in_the_penalty():
    clear, inputs, counts = np.eye(3)[np.arange(90) % 3], standardised(90, 200), np.arange(90) % 2
    inputs[:, :3] += 20 * clear * counts[:, None]
    assert choose_strengths(inputs, clear, True, counts).min() == STRENGTHS[-1]
    assert choose_strengths(inputs, clear, True, 1 - counts).max() <= STRENGTHS[1]


@pytest.mark.parametrize("columns", [10, 200])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_each_label_is_fitted_as_by_scikit_learn(columns, strength):
    inputs, labels = standardised(60, columns), blobs(60)[1]
    inputs[:, :3] += labels
    weights, biases = regress(inputs, labels, np.full(3, strength), exclusive=False)
    others = standardised(20, columns)
    for label in range(3):
        fitted = LogisticRegression(C=strength, max_iter=20_000, tol=1e-9).fit(inputs, labels[:, label])
        expected = fitted.predict_proba(others)[:, 1]
        np.testing.assert_allclose(expit(others @ weights[label] + biases[label]), expected, atol=1e-3)


def test_noise_gets_the_strongest_penalty_and_what_is_clear_a_weak_one():
    noise, targets = standardised(90, 200), np.eye(3)[np.arange(90) % 3]
    assert choose_strengths(noise, targets, exclusive=True).tolist() == [STRENGTHS[0]] * 3
    assert choose_strengths(noise[:, :3] + 20 * targets, targets, exclusive=True).min() == STRENGTHS[-1]


def test_labels_have_penalties_of_their_own():
    inputs, labels = standardised(90, 50), np.random.default_rng(1).integers(0, 2, (90, 2)).astype(float)
    inputs[:, 0] += 20 * labels[:, 1]
    noise, clear = choose_strengths(inputs, labels, exclusive=False)
    assert noise < clear


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
    weights, biases = regress(activations.astype(np.float64), labels, np.ones(3), exclusive=False)
    assert (weights[1:] == 0).all()
    assert biases[1] < -10 < 10 < biases[2]


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_handful_of_equal_rows_is_enough(rows, exclusive):
    targets = np.zeros((rows, 2))
    targets[:, 0] = 1
    weights, biases = regress(
        np.ones((rows, 4)), targets, choose_strengths(np.ones((rows, 4)), targets, exclusive), exclusive
    )
    assert np.isfinite(weights).all()
    assert np.isfinite(biases).all()
