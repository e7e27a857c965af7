import numpy as np
import pytest

from unfreeze.models.evaluation.metrics import accuracy
from unfreeze.models.images.networks.linear_head import cross_validate, out_of_fold
from unfreeze.models.settings import OptimizerSpec
from unfreeze.models.targets import MultiLabel, SingleLabel

METRICS = {"accuracy": accuracy}
TARGETS = np.random.default_rng(0).permutation(np.arange(60) % 3)


def noise(*shape: int, scale: float = 1.0, seed: int = 1) -> np.ndarray:
    """The same numbers in whatever order tests run."""
    return np.random.default_rng(seed).normal(0, scale, shape)


def test_no_row_is_predicted_by_a_regression_that_saw_it():
    memorable = noise(60, 200).astype(np.float32)  # noise in which every row could be learnt by heart
    found = cross_validate(memorable, TARGETS, SingleLabel(["a", "b", "c"]), METRICS)
    assert found.metrics["folds/accuracy"] < 0.6


def test_the_interval_is_around_the_value_of_all_rows():
    told = noise(60, 8).astype(np.float32)
    told[np.arange(60), TARGETS] += 2
    found = cross_validate(told, TARGETS, SingleLabel(["a", "b", "c"]), METRICS)
    low, value, high = (found.metrics[f"folds/accuracy{end}"] for end in ("_low", "", "_high"))
    assert 0.7 < low < value < high <= 1
    assert f"{value:.4f} ({low:.4f} to {high:.4f})" in found.lines[0]


def test_class_weights_reach_every_fold():
    targets = (np.arange(120) % 12 == 0).astype(np.int64)
    activations = (noise(120, 4) + targets[:, None]).astype(np.float32)
    plain = SingleLabel(["many", "few"])
    weighed = plain.weighed(OptimizerSpec(class_weights="balanced"), lambda: targets)
    found = [out_of_fold(activations, targets, each)[:, 1] for each in (plain, weighed)]
    assert found[0].mean() == pytest.approx(1 / 12, abs=0.03)
    assert weighed.loss_of(np.c_[1 - found[1], found[1]], targets) < weighed.loss_of(
        np.c_[1 - found[0], found[0]], targets
    )


def test_classes_of_fewer_rows_than_folds_are_no_obstacle():
    targets = np.array([0] * 20 + [1] * 20 + [2] * 2)
    activations = np.eye(3, dtype=np.float32)[targets] + noise(42, 3, scale=0.1).astype(np.float32)
    found = cross_validate(activations, targets, SingleLabel(["a", "b", "c"]), METRICS)
    assert found.metrics["folds/accuracy"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("several", [False, True])
def test_no_row_is_predicted_by_a_regression_that_saw_its_group(several):
    groups = np.arange(60) // 4
    alike = noise(15, 200)[groups] + noise(60, 200, scale=0.01, seed=2)  # every group could be learnt by heart
    targets = np.random.default_rng(1).permutation(np.arange(15) % 3)[groups]
    target = MultiLabel(["a", "b", "c"]) if several else SingleLabel(["a", "b", "c"])
    known = np.eye(3, dtype=np.float32)[targets] if several else targets

    def share_right(groups: np.ndarray | None) -> float:
        return float((out_of_fold(alike.astype(np.float32), known, target, groups).argmax(1) == targets).mean())

    assert share_right(None) > 0.9
    assert share_right(groups) < 0.7


def test_a_fold_may_leave_a_single_class_to_train_on():
    targets, groups = np.array([0] * 12 + [1] * 6), np.array([0, 1] * 6 + [2] * 6)
    activations = noise(18, 4).astype(np.float32)
    predictions = out_of_fold(activations, targets, SingleLabel(["a", "b"]), groups)
    assert predictions[12:].argmax(1).tolist() == [0] * 6


def test_the_interval_of_a_few_groups_is_wider_than_that_of_as_many_rows():
    told = noise(60, 8).astype(np.float32)
    told[np.arange(60), TARGETS] += 2 * (np.arange(60) < 36)  # two of five groups say nothing

    def width(groups: np.ndarray | None) -> float:
        found = cross_validate(told, TARGETS, SingleLabel(["a", "b", "c"]), METRICS, groups).metrics
        return found["folds/accuracy_high"] - found["folds/accuracy_low"]

    assert width(np.arange(60) // 12) > 1.2 * width(None)
