"""How sure a model is, by rows that it was not fitted on."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tests.models.evaluation.test_calibration import drawn
from unfreeze.models.evaluation.calibration import expected_calibration_error
from unfreeze.models.targets import MultiLabel, Numbers, SingleLabel
from unfreeze.models.targets.temperature import best_temperature, calibrate, scaled

TARGET = SingleLabel(["a", "b", "c"])
logits = st.lists(st.tuples(*[st.floats(-30, 30)] * 3), min_size=1, max_size=10)
temperatures = st.floats(0.05, 20)


def softmax(values: object) -> np.ndarray:
    shares = np.exp(np.asarray(values, float) - np.max(values, axis=1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


@given(logits, temperatures)
def test_dividing_logits_is_what_a_temperature_does_to_probabilities(values, temperature):
    expected = softmax(np.asarray(values) / temperature)
    np.testing.assert_allclose(scaled(softmax(values), temperature), expected, atol=1e-12)


@given(logits, temperatures)
def test_the_order_of_classes_is_kept(values, temperature):
    probabilities = softmax(values)
    after = np.take_along_axis(scaled(probabilities, temperature), probabilities.argsort(1), axis=1)
    assert (np.diff(after) >= -1e-12).all()


@given(logits)
def test_a_temperature_of_1_changes_no_bit(values):
    probabilities = softmax(values)
    assert scaled(probabilities, 1.0) is probabilities


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_a_scale_of_the_logits(scale):
    assert best_temperature(*drawn(scale)) == pytest.approx(scale, rel=0.05)


def test_few_wrong_rows_make_no_probability_surer():
    probabilities, _ = drawn(0.3, 210)
    actual = probabilities.argmax(1)
    assert best_temperature(probabilities, actual) == pytest.approx(1, abs=1e-3)
    actual[:4] = (actual[:4] + 1) % 3
    assert best_temperature(probabilities, actual) == pytest.approx(1, abs=1e-3)


def test_rows_that_are_all_right_do_not_allow_certainty():
    certain = np.tile([1 - 1e-9, 5e-10, 5e-10], (210, 1))
    temperature = best_temperature(certain, np.zeros(210, int))
    assert 0.98 < scaled(certain, temperature)[0, 0] < 0.999


def test_overconfident_probabilities_are_mended_beyond_chance():
    probabilities, actual = drawn(3.0, 400)
    found = calibrate(TARGET, probabilities, actual)
    assert found.temperature == pytest.approx(3, rel=0.2)
    assert found.gain > found.error > 0
    assert TARGET.loss_of(found.predictions, actual) == pytest.approx(
        TARGET.loss_of(probabilities, actual) - found.gain
    )
    assert expected_calibration_error(found.predictions, actual) < expected_calibration_error(probabilities, actual)


def test_true_probabilities_of_few_rows_stay_as_they_are():
    probabilities, actual = drawn(1.0, 60)
    found = calibrate(TARGET, probabilities, actual)
    assert found.temperature == 1
    assert found.predictions is probabilities


def test_no_row_is_scaled_by_what_it_taught_nor_by_its_own_block():
    probabilities, actual = drawn(3.0, 300)
    blocks = np.repeat(np.arange(10), 30)
    before = calibrate(TARGET, probabilities, actual, blocks)
    changed = actual.copy()
    changed[:30] = probabilities[:30].argmin(1)  # the first block is all wrong
    after = calibrate(TARGET, probabilities, changed, blocks)
    np.testing.assert_array_equal(before.predictions[:30], after.predictions[:30])
    assert not np.allclose(before.predictions[30:], after.predictions[30:])


def test_labels_share_one_temperature_and_numbers_have_none():
    rng = np.random.default_rng(0)
    true = rng.normal(0, 1.5, (400, 4))
    actual = rng.random((400, 4)) < 1 / (1 + np.exp(-true))
    found = calibrate(MultiLabel(list("abcd")), 1 / (1 + np.exp(-2 * true)), actual)
    assert found.temperature == pytest.approx(2, rel=0.15)
    values = rng.normal(size=(50, 1))
    assert calibrate(Numbers(["price"]), values, values + 1).temperature == 1


def test_rows_that_count_next_to_nothing_are_no_reason_to_be_sure():
    probabilities, actual = np.array([[0.8, 0.2]] * 300), np.array(([0] * 19 + [1]) * 15)
    counts = np.where(np.arange(300) < 100, 1.0, 1e-9)
    few = best_temperature(probabilities[:100], actual[:100])
    assert best_temperature(probabilities, actual, counts) == pytest.approx(few, rel=1e-3)
    assert best_temperature(probabilities, actual) < few - 0.01
