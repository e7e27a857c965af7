import numpy as np
import pytest
from sklearn.metrics import f1_score, mean_absolute_error, roc_auc_score

from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.metrics import CLASS_METRICS, VALUE_METRICS, pick_metrics

pytest.importorskip("torchmetrics")
RNG = np.random.default_rng(0)


def picked(name: str, task: str = "classification"):
    known = VALUE_METRICS if task == "regression" else CLASS_METRICS
    (metric,) = pick_metrics([f"torchmetrics:{name}"], known, task).values()
    return metric


def test_a_metric_of_classes_is_what_scikit_learn_computes():
    probabilities, classes = RNG.dirichlet(np.ones(3), 50), RNG.integers(3, size=50)
    expected = roc_auc_score(classes, probabilities, multi_class="ovr")
    assert picked("auroc")(probabilities, classes) == pytest.approx(expected, abs=1e-6)


def test_a_metric_of_labels_and_one_of_numbers():
    probabilities, labels = RNG.random((40, 4)), RNG.random((40, 4)) < 0.4
    expected = f1_score(labels, probabilities >= 0.5, average="micro")
    assert picked("f1_score", "multi-label classification")(probabilities, labels) == pytest.approx(expected)
    values, actual = RNG.normal(size=(30, 1)), RNG.normal(size=(30, 1))
    expected = mean_absolute_error(actual, values)
    assert picked("mean_absolute_error", "regression")(values, actual) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["auroc", "mean_absolute_error"])
def test_before_the_task_is_known_metrics_of_both_are_taken(name):
    assert callable(picked(name, "classification or regression"))


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        ("aurok", "classification", "did you mean auroc"),
        ("mean_absolute_error", "classification", "is for numbers, and the task is classification"),
        ("auroc", "regression", "is for classes or labels, and the task is regression"),
    ],
)
def test_a_metric_that_is_not_there_or_does_not_fit_is_refused(name, task, message):
    with pytest.raises(UserError, match=message):
        picked(name, task)
