import numpy as np
import pytest

from unfreeze.models.images.folds import cross_validate
from unfreeze.models.targets import SingleLabel
from unfreeze.models.training.metrics import accuracy

METRICS = {"accuracy": accuracy}
RNG = np.random.default_rng(0)
TARGETS = RNG.permutation(np.arange(60) % 3)


def test_no_row_is_predicted_by_a_regression_that_saw_it():
    memorable = RNG.normal(size=(60, 200)).astype(np.float32)  # noise in which every row could be learnt by heart
    found = cross_validate(memorable, TARGETS, SingleLabel(["a", "b", "c"]), METRICS)
    assert found.metrics["folds/accuracy"] < 0.6


def test_the_interval_is_around_the_value_of_all_rows():
    told = RNG.normal(size=(60, 8)).astype(np.float32)
    told[np.arange(60), TARGETS] += 2
    found = cross_validate(told, TARGETS, SingleLabel(["a", "b", "c"]), METRICS)
    low, value, high = (found.metrics[f"folds/accuracy{end}"] for end in ("_low", "", "_high"))
    assert 0.7 < low < value < high <= 1
    assert f"{value:.4f} ({low:.4f} to {high:.4f})" in found.lines[0]


def test_classes_of_fewer_rows_than_folds_are_no_obstacle():
    targets = np.array([0] * 20 + [1] * 20 + [2] * 2)
    activations = np.eye(3, dtype=np.float32)[targets] + RNG.normal(0, 0.1, (42, 3)).astype(np.float32)
    found = cross_validate(activations, targets, SingleLabel(["a", "b", "c"]), METRICS)
    assert found.metrics["folds/accuracy"] == pytest.approx(1, abs=0.1)
