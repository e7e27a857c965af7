import numpy as np
from hypothesis import given, strategies as st
from sklearn.metrics import f1_score

from unfreeze.models.evaluation.calibration import DEFAULT, FEWEST_ROWS, best_threshold, tuned_thresholds


def scored(seed: int, rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    actual = generator.random(rows) < generator.uniform(0.2, 0.8)
    actual[0] = True
    # With ties: probabilities of one decimal.
    return np.round(np.clip(generator.normal(0.3 + 0.3 * actual, 0.2), 0, 1), 1), actual


@given(st.integers(0, 10_000))
def test_no_threshold_has_a_higher_f1(seed):
    probabilities, actual = scored(seed)
    best = f1_score(actual, probabilities >= best_threshold(probabilities, actual))
    for threshold in [*np.unique(probabilities), 0.0]:
        assert f1_score(actual, probabilities >= threshold, zero_division=0) <= best + 1e-12


@given(st.integers(0, 10_000))
def test_separate_probabilities_are_split_between_them_next_to_one_half(seed):
    generator = np.random.default_rng(seed)
    probabilities, actual = np.r_[generator.uniform(0, 0.3, 20), generator.uniform(0.9, 1, 20)], np.arange(40) >= 20
    threshold = best_threshold(probabilities, actual)
    assert 0.3 * 0.5 < threshold < 0.95
    np.testing.assert_array_equal(probabilities >= threshold, actual)


def test_a_rare_label_takes_the_threshold_of_all_together():
    generator = np.random.default_rng(0)
    actual = np.zeros((100, 2), dtype=bool)
    actual[:50, 0], actual[: FEWEST_ROWS - 1, 1] = True, True
    probabilities = np.where(actual, 0.3, 0.05) + generator.uniform(0, 0.02, actual.shape)
    thresholds = tuned_thresholds(probabilities, actual)
    assert 0.07 < thresholds[1] < 0.3
    np.testing.assert_array_equal(probabilities >= thresholds, actual)


def test_with_hardly_any_label_it_is_one_half():
    assert tuned_thresholds(np.full((20, 3), 0.2), np.eye(20, 3) > 0).tolist() == [DEFAULT] * 3
    assert tuned_thresholds(np.empty((0, 2)), np.empty((0, 2), dtype=bool)).tolist() == [DEFAULT] * 2
