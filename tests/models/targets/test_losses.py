import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch.nn import functional

from unfreeze.models.settings import OptimizerSpec
from unfreeze.models.targets.losses import balanced_weights, cross_entropy, focal

CPU = torch.device("cpu")
LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-2.0, 3.0, 1.0], [1.0, 1.0, -1.0]])
TARGETS = torch.tensor([0, 2, 1, 0])


def test_the_plain_loss_is_the_mean_negative_log_probability():
    loss = cross_entropy(OptimizerSpec(), TARGETS.numpy(), 3, CPU)
    expected = -LOGITS.softmax(1)[range(4), TARGETS].log().mean()
    assert float(loss(LOGITS, TARGETS)) == pytest.approx(float(expected))


def test_label_smoothing_spreads_a_share_over_all_classes():
    loss = cross_entropy(OptimizerSpec(label_smoothing=0.3), TARGETS.numpy(), 3, CPU)
    wanted = 0.7 * functional.one_hot(TARGETS, 3) + 0.1
    expected = -(wanted * LOGITS.log_softmax(1)).sum(1).mean()
    assert float(loss(LOGITS, TARGETS)) == pytest.approx(float(expected))


def test_the_focal_loss_weighs_a_row_by_the_square_of_its_error():
    loss = focal(OptimizerSpec(), TARGETS.numpy(), 3, CPU)
    right = LOGITS.softmax(1)[range(4), TARGETS]
    assert float(loss(LOGITS, TARGETS)) == pytest.approx(float((-((1 - right) ** 2) * right.log()).mean()))


def test_balanced_classes_count_the_same():
    targets = np.array([0, 0, 0, 1])
    loss = cross_entropy(OptimizerSpec(class_weights="balanced"), targets, 2, CPU)
    logits = torch.tensor([[1.0, 0.0], [0.5, 0.0], [0.0, 0.0], [0.0, 2.0]])
    each = functional.cross_entropy(logits, torch.from_numpy(targets), reduction="none")
    assert float(loss(logits, torch.from_numpy(targets))) == pytest.approx(float((each[:3].mean() + each[3]) / 2))


def test_the_loss_is_computed_in_single_precision():
    loss = cross_entropy(OptimizerSpec(), TARGETS.numpy(), 3, CPU)
    halves = LOGITS.bfloat16()
    assert loss(halves, TARGETS).dtype == torch.float32
    assert torch.equal(loss(halves, TARGETS), loss(halves.float(), TARGETS))


@given(targets=st.lists(st.integers(0, 4), min_size=1, max_size=50))
def test_balanced_weights_are_inverse_to_the_frequencies(targets):
    present = sorted(set(targets))
    rows = np.array([present.index(target) for target in targets])
    weights = balanced_weights(rows, len(present)).numpy()
    np.testing.assert_allclose(weights * np.bincount(rows), len(rows) / len(present), rtol=1e-5)
    assert weights[rows].mean() == pytest.approx(1, rel=1e-5)


def test_a_class_without_training_rows_has_a_finite_weight():
    assert balanced_weights(np.array([0, 0]), 3).isfinite().all()
