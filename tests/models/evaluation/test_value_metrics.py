import math

import numpy as np
import pytest

from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.metrics import log_loss, mae, r2, rmse, rmspe
from unfreeze.models.targets import Numbers, SingleLabel

TARGETS = np.array([[100.0], [0.0], [200.0], [400.0]])
PREDICTIONS = np.array([[110.0], [50.0], [180.0], [400.0]])
CLASSES = np.array([0, 1, 1])
PROBABILITIES = np.array([[0.8, 0.2], [0.4, 0.6], [0.9, 0.1]], dtype=np.float32)


TARGETS_BY_TASK = {"regression": Numbers(["x"]), "classification": SingleLabel(["a", "b"])}


def table_metrics(task, names):
    return TARGETS_BY_TASK[task].metrics(names)


def largest_error(predictions: np.ndarray, targets: np.ndarray) -> float:
    return float(np.abs(predictions - targets).max())


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (rmspe, math.sqrt((0.1**2 + 0.1**2 + 0) / 3)),  # the row with target 0 does not count
        (rmse, math.sqrt((100 + 2500 + 400) / 4)),
        (mae, 80 / 4),
        (r2, 1 - 3000 / np.square(TARGETS - 175).sum()),
    ],
)
def test_a_metric_has_the_value_worked_out_by_hand(metric, expected):
    assert metric(PREDICTIONS, TARGETS) == pytest.approx(expected)
    # Shapes (N,) and (N, 1) mixed would make N x N errors.
    assert metric(PREDICTIONS[:, 0], TARGETS) == pytest.approx(expected)


def test_log_loss_is_that_of_the_right_class():
    assert log_loss(PROBABILITIES, CLASSES) == pytest.approx(-np.log([0.8, 0.6, 0.1]).mean(), rel=1e-6)
    assert log_loss(PROBABILITIES[:1], CLASSES[:1]) == pytest.approx(-math.log(0.8), rel=1e-6)


def test_there_is_no_value_where_there_is_nothing_to_compare():
    assert math.isnan(rmspe(PREDICTIONS, np.zeros((4, 1))))
    assert math.isnan(r2(PREDICTIONS[:1], TARGETS[:1]))


def test_metrics_of_several_targets_are_finite():
    two, others = np.hstack([TARGETS, TARGETS + 1]), np.hstack([PREDICTIONS, PREDICTIONS])
    assert all(math.isfinite(metric(others, two)) for metric in table_metrics("regression", []).values())


@pytest.mark.parametrize(
    ("task", "names"),
    [("regression", ["rmspe", "rmse", "mae", "r2"]), ("classification", ["accuracy", "auc", "log_loss"])],
)
def test_without_names_all_metrics_of_the_task_are_computed(task, names):
    assert list(table_metrics(task, [])) == names


def test_named_metrics_and_ones_own_are_computed():
    chosen = table_metrics("regression", ["mae", f"{__name__}:largest_error"])
    assert list(chosen) == ["mae", "largest_error"]
    assert chosen["largest_error"](PREDICTIONS, TARGETS) == 50


@pytest.mark.parametrize(
    ("task", "name", "message"),
    [
        ("regression", "auc", "'auc' does not fit regression; choose among rmspe"),
        ("classification", "rmse", "'rmse' does not fit classification"),
        ("regression", "mape", "'mape' is not one of rmspe, rmse, mae, r2"),
        ("regression", "numpy:absent", "numpy:absent"),
    ],
)
def test_unknown_metrics_are_named(task, name, message):
    with pytest.raises(UserError, match=message):
        table_metrics(task, [name])
