import math
import sys
from pathlib import Path

import numpy as np
import pytest

from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.metrics import CLASS_METRICS as METRICS, Metric, pick_metrics as pick


def pick_metrics(names: list[str]) -> dict[str, Metric]:
    return pick(names, METRICS, "classification")


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
        ("mcc", (2 * 4 - 1 * 1) / math.sqrt(3 * 3 * 5 * 5)),
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


def test_ones_own_function_is_named_by_module_and_function():
    chosen = pick_metrics([f"{__name__}:share_of_first"])
    assert list(chosen) == ["share_of_first"]
    assert chosen["share_of_first"](BINARY, TARGETS) == pytest.approx(BINARY[:, 0].mean())


@pytest.mark.parametrize("name", ["acuracy", "", ":f", ".relative:f", "a b:c", __name__, "module:", "a:b:c"])
def test_any_other_name_is_refused_with_those_that_there_are(name):
    with pytest.raises(UserError, match=r"metrics: .*balanced_accuracy.*module:function"):
        pick_metrics([name])


def refusal(name: str) -> str:
    with pytest.raises(UserError) as refused:
        pick_metrics([name])
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_slip_in_a_metric_s_name_is_answered_with_the_nearest():
    assert refusal("acuracy").endswith("did you mean accuracy?")
    assert refusal(f"{__name__}:share_of_frist").endswith("did you mean share_of_first?")


def test_a_metric_that_is_no_function_is_refused_with_its_file():
    assert f"{__file__} has no function not_a_function" in refusal(f"{__name__}:not_a_function")


@pytest.fixture
def working_folder(tmp_path, monkeypatch) -> Path:
    """A working folder that is not on the import path, as for an installed script."""
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_module_in_the_working_folder_is_found(working_folder):
    (working_folder / "metrics_of_mine.py").write_text("def half(probabilities, targets):\n    return 0.5\n")
    assert pick_metrics(["metrics_of_mine:half"])["half"](BINARY, TARGETS) == 0.5


def test_a_missing_module_is_refused_with_where_it_was_looked_for(working_folder):
    message = refusal("metrics_to_come.deep:half")
    assert "No module named 'metrics_to_come'" in message
    assert f"looked in the working folder {working_folder}" in message
    assert "PYTHONPATH" in message


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("import no_such_module_of_theirs", "ModuleNotFoundError: No module named 'no_such_module_of_theirs'"),
        ("def half(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_module_that_fails_while_it_is_imported_is_refused_with_the_reason(working_folder, code, detail):
    (working_folder / "failing_metrics.py").write_text(code)
    message = refusal("failing_metrics:half")
    assert f"importing failing_metrics failed: {detail}" in message
