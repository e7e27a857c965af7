import numpy as np
import pytest
import torch
from torch.nn import functional

from unfreeze.models.images.networks.linear_head import build_linear_head, fit_linear_head


def blobs(rows: int, classes: int, seed: int = 0, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, 20)) * 3
    targets = rng.integers(0, classes, rows)
    return (5 + centres[targets] + noise * rng.normal(size=(rows, 20))).astype(np.float32), targets


def logits(state: dict[str, torch.Tensor], activations: np.ndarray) -> torch.Tensor:
    head = build_linear_head(activations.shape[1], len(state["0.bias"]))
    head.load_state_dict(state)
    with torch.no_grad():
        return head(torch.from_numpy(activations))


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_separate_classes_are_told_apart_on_other_rows(classes):
    state = fit_linear_head([blobs(200, classes)[0]], blobs(200, classes)[1], classes)
    activations, targets = blobs(300, classes, seed=1)
    assert (logits(state, activations).argmax(1).numpy() == targets).mean() > 0.97


def test_noise_is_not_fitted():
    rng = np.random.default_rng(0)
    activations, targets = rng.normal(size=(90, 400)).astype(np.float32), rng.integers(0, 2, 90)
    state = fit_linear_head([activations], targets, 2)
    fresh = torch.from_numpy(rng.integers(0, 2, 500))
    loss = functional.cross_entropy(logits(state, rng.normal(size=(500, 400)).astype(np.float32)), fresh)
    assert float(loss) < 0.75  # always one half: 0.693


def test_a_class_without_rows_is_never_predicted():
    activations, targets = blobs(120, 2)
    state = fit_linear_head([activations], np.where(targets == 1, 2, 0), 3)
    assert logits(state, activations).softmax(1)[:, 1].max() < 1e-6


def test_augmented_views_count_as_more_rows_of_the_same_images():
    activations, targets = blobs(60, 2, noise=4.0)
    once = fit_linear_head([activations], targets, 2)
    thrice = fit_linear_head([activations] * 3, targets, 2)
    torch.testing.assert_close(once["0.weight"], thrice["0.weight"], rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("answering", [[1, 2], [0]], ids=["only augmented images", "one plain image"])
def test_a_unit_that_answers_hardly_any_image_does_not_outweigh_the_others(answering):
    rng, targets = np.random.default_rng(0), blobs(60, 3)[1]
    views = [np.c_[blobs(60, 3, noise=4.0)[0], np.zeros(60)].astype(np.float32) for _ in range(3)]
    for view in answering:
        views[view][: 60 if view else 1, -1] = rng.random(60 if view else 1) * (0.1 if view else 1e-3)
    state = fit_linear_head(views, targets, 3)
    fresh, expected = blobs(300, 3, seed=1, noise=4.0)
    answered = np.c_[fresh, rng.random(300)].astype(np.float32)
    silent = np.c_[fresh, np.zeros(300)].astype(np.float32)
    losses = [functional.cross_entropy(logits(state, each), torch.from_numpy(expected)) for each in (answered, silent)]
    assert float(losses[0]) < float(losses[1]) + 0.05


@pytest.mark.parametrize("rows", [2, 3, 5])
def test_a_handful_of_rows_is_enough(rows):
    activations, _ = blobs(rows, 2)
    state = fit_linear_head([activations], np.arange(rows) % 2, 2)
    assert state["0.weight"].isfinite().all()
