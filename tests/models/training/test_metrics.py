import numpy as np
import pytest

from models.errors import UserError
from models.training.metrics import METRICS, pick_metrics

TARGETS = np.array([0, 0, 0, 1, 1, 0, 1, 0])
SCORES = np.array([0.1, 0.4, 0.35, 0.8, 0.3, 0.7, 0.9, 0.2])
BINARY = np.stack([1 - SCORES, SCORES], axis=1)  # 2 true positives, 1 false positive, 1 false negative


def share_of_first(probabilities: np.ndarray, targets: np.ndarray) -> float:
    return float(probabilities[:, 0].mean())


not_a_function = 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", 6 / 8),
        ("balanced_accuracy", (4 / 5 + 2 / 3) / 2),
        ("f1", (2 / 3 + 4 / 5) / 2),
        ("f2", (2 / 3 + 4 / 5) / 2),
        ("auc", 12 / 15),
        ("kappa", (6 / 8 - 34 / 64) / (1 - 34 / 64)),
    ],
)
def test_a_metric_has_the_value_worked_out_by_hand(name, expected):
    assert METRICS[name](BINARY, TARGETS) == pytest.approx(expected)


def test_f2_weighs_recall_four_times():
    targets = np.array([1, 1, 0, 0, 0])
    probabilities = np.eye(2)[[1, 1, 1, 1, 0]]
    of_one, of_zero = 5 * 2 / (5 * 2 + 2), 5 * 1 / (5 * 1 + 4 * 2)
    assert METRICS["f2"](probabilities, targets) == pytest.approx((of_one + of_zero) / 2)


def test_kappa_punishes_far_misses_more():
    targets = np.array([0, 1, 2, 0, 1, 2])
    near, far = np.eye(3)[[1, 1, 2, 0, 1, 2]], np.eye(3)[[2, 1, 2, 0, 1, 2]]
    assert METRICS["kappa"](far, targets) < METRICS["kappa"](near, targets) < 1


def test_the_area_under_the_curve_of_several_classes_is_that_of_one_against_the_rest():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(3), 30)
    targets = np.arange(30) % 3
    each = [
        np.mean([one > other for one in scores[targets == number] for other in scores[targets != number]])
        for number, scores in enumerate(probabilities.T)
    ]
    assert METRICS["auc"](probabilities, targets) == pytest.approx(np.mean(each))


def test_there_is_no_area_under_the_curve_where_a_class_is_absent():
    assert np.isnan(METRICS["auc"](BINARY, np.zeros(8, dtype=np.int64)))


def test_accuracy_comes_first_and_once():
    assert list(pick_metrics(["f1", "accuracy"])) == ["accuracy", "f1"]
    assert list(pick_metrics([])) == ["accuracy"]


def test_ones_own_function_is_named_by_module_and_function():
    chosen = pick_metrics([f"{__name__}:share_of_first"])
    assert list(chosen) == ["accuracy", "share_of_first"]
    assert chosen["share_of_first"](BINARY, TARGETS) == pytest.approx(BINARY[:, 0].mean())


@pytest.mark.parametrize(
    "name",
    [
        *("acuracy", "no_such_module:f", ":f", "", ".relative:f"),
        *(f"{__name__}:missing", __name__, f"{__name__}:not_a_function"),
    ],
)
def test_any_other_name_is_refused_with_those_that_there_are(name):
    with pytest.raises(UserError, match=r"metrics: .*balanced_accuracy.*module:function"):
        pick_metrics([name])
