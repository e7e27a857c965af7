import numpy as np
import pytest
from hypothesis import given, strategies as st

from unfreeze.models.calibration import TEMPERATURES, expected_calibration_error, temperature


def drawn(scale: float, rows: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of logits that are `scale` times those that the classes are drawn by."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (rows, 3))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    actual = (true.cumsum(1) < rng.random((rows, 1))).sum(1)
    said = np.exp(scale * logits)
    return said / said.sum(1, keepdims=True), actual


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_a_scale_of_the_logits(scale):
    assert temperature(*drawn(scale)) == pytest.approx(scale, rel=0.05)


def test_true_probabilities_have_no_calibration_error_and_overconfident_ones_have():
    assert expected_calibration_error(*drawn(1.0)) < 0.012
    assert expected_calibration_error(*drawn(3.0)) > 0.1


def test_the_error_is_confidence_less_accuracy_where_all_rows_are_in_one_bin():
    probabilities = np.tile([0.8, 0.2], (10, 1))
    assert expected_calibration_error(probabilities, np.array([0] * 5 + [1] * 5)) == pytest.approx(0.3)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_any_probabilities_have_a_finite_error_and_temperature(first, random):
    probabilities = np.array([[value, 1 - value] for value in first])
    actual = np.array([random.randint(0, 1) for _ in first])
    assert 0 <= expected_calibration_error(probabilities, actual) <= 1
    found = temperature(probabilities, actual)
    assert found is None or TEMPERATURES[0] < found < TEMPERATURES[1]


def test_rows_of_which_none_is_wrong_have_no_temperature():
    probabilities, _ = drawn(0.3, 210)
    assert temperature(probabilities, probabilities.argmax(1)) is None
    assert temperature(probabilities, probabilities.argmin(1)) is None


def test_one_wrong_row_of_few_has_no_temperature_and_many_have_one():
    probabilities, _ = drawn(0.3, 12)
    right = probabilities.argmax(1)
    right[0] = (right[0] + 1) % 3
    assert temperature(probabilities, right) is None
    assert temperature(*drawn(0.3, 400)) == pytest.approx(0.3, rel=0.3)
