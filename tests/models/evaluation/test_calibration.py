import numpy as np
import pytest
from hypothesis import given, strategies as st

from unfreeze.models.evaluation.calibration import expected_calibration_error


def drawn(scale: float, rows: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of logits that are `scale` times those that the classes are drawn by."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (rows, 3))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    actual = (true.cumsum(1) < rng.random((rows, 1))).sum(1)
    said = np.exp(scale * logits)
    return said / said.sum(1, keepdims=True), actual


def test_true_probabilities_have_no_calibration_error_and_overconfident_ones_have():
    assert expected_calibration_error(*drawn(1.0)) < 0.012
    assert expected_calibration_error(*drawn(3.0)) > 0.1


def test_the_error_is_confidence_less_accuracy_where_all_rows_are_in_one_bin():
    probabilities = np.tile([0.8, 0.2], (10, 1))
    assert expected_calibration_error(probabilities, np.array([0] * 5 + [1] * 5)) == pytest.approx(0.3)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_any_probabilities_have_a_finite_error(first, random):
    probabilities = np.array([[value, 1 - value] for value in first])
    actual = np.array([random.randint(0, 1) for _ in first])
    assert 0 <= expected_calibration_error(probabilities, actual) <= 1
