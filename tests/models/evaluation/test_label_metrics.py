import numpy as np
import pytest
from hypothesis import given, strategies as st
from sklearn import metrics as sklearn_metrics

from unfreeze.models.evaluation.metrics import LABEL_METRICS
from unfreeze.models.targets import MultiLabel


def drawn(seed: int, rows: int = 40, labels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    actual = generator.random((rows, labels)) < 0.4
    actual[0], actual[1] = True, False
    # With ties: probabilities of two decimals.
    return np.clip(generator.normal(0.4 + 0.2 * actual, 0.2), 0.01, 0.99).round(2), actual


@given(st.integers(0, 10_000))
def test_they_are_those_of_scikit_learn(seed):
    probabilities, actual = drawn(seed)
    answers = probabilities >= 0.5
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(actual, answers),
        "f1": sklearn_metrics.f1_score(actual, answers, average="macro", zero_division=0),
        "f2": sklearn_metrics.fbeta_score(actual, answers, beta=2, average="macro", zero_division=0),
        "f1_micro": sklearn_metrics.f1_score(actual, answers, average="micro", zero_division=0),
        "f1_rows": sklearn_metrics.f1_score(actual, answers, average="samples", zero_division=1),
        "f2_rows": sklearn_metrics.fbeta_score(actual, answers, beta=2, average="samples", zero_division=1),
        "map": sklearn_metrics.average_precision_score(actual, probabilities, average="macro"),
        "auc": sklearn_metrics.roc_auc_score(actual, probabilities, average="macro"),
        "log_loss": sklearn_metrics.log_loss(actual.ravel(), probabilities.ravel()),
    }
    found = MultiLabel("abcd").metrics(list(LABEL_METRICS))
    assert {name: metric(probabilities, actual) for name, metric in found.items()} == pytest.approx(expected)


def test_a_label_that_no_row_has_does_not_count():
    probabilities, actual = drawn(0)
    actual[:, 2] = False
    others = [0, 1, 3]
    for name in ("f1", "map", "auc"):
        every, three = (MultiLabel(labels).metrics([name])[name] for labels in ("abcd", "abd"))
        assert every(probabilities, actual) == pytest.approx(three(probabilities[:, others], actual[:, others]))


def test_without_any_label_there_is_nothing_to_find():
    probabilities, nothing = np.full((5, 2), 0.2), np.zeros((5, 2), dtype=bool)
    values = {
        name: metric(probabilities, nothing) for name, metric in MultiLabel("ab").metrics(list(LABEL_METRICS)).items()
    }
    assert values["accuracy"] == values["f1_rows"] == 1
    assert np.isnan([values["f1"], values["map"], values["auc"]]).all()
