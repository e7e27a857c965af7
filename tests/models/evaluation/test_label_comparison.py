import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.metrics import f1_score

from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.label_comparison import compare_labels

NAMES = ["a", "b", "c"]


def answers(actual: np.ndarray, wrong: float, seed: int) -> np.ndarray:
    return actual ^ (np.random.default_rng(seed).random(actual.shape) < wrong)


def labels(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, 3)) < (0.5, 0.3, 0.1)


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_it_compares_the_mean_f1_and_its_interval_holds_the_improvement(seed):
    actual = labels(120, seed)
    before, after = answers(actual, 0.2, seed + 1), answers(actual, 0.15, seed + 2)
    found = compare_labels(actual, before, after, NAMES)
    for value, said in ((found.champion, before), (found.challenger, after)):
        assert value == pytest.approx(f1_score(actual, said, average="macro"))
    assert found.improvement == pytest.approx(found.challenger - found.champion)
    assert found.low <= found.improvement <= found.high


def test_a_clear_improvement_is_significant_and_the_same_models_are_not():
    actual = labels(300)
    bad, good = answers(actual, 0.3, 1), answers(actual, 0.05, 2)
    assert compare_labels(actual, bad, good, NAMES).p_value < 0.001
    same = compare_labels(actual, good, good, NAMES)
    assert (same.improvement, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_two_equal_models_are_rarely_told_apart():
    found = []
    for seed in range(40):
        actual = labels(150, seed)
        found.append(
            compare_labels(actual, answers(actual, 0.2, 2 * seed + 99), answers(actual, 0.2, 2 * seed + 100), NAMES)
        )
    assert np.mean([each.p_value <= 0.05 for each in found]) <= 0.15


def test_many_rows_are_resampled_in_groups_with_the_same_interval():
    actual = labels(12_000)
    one = compare_labels(actual, answers(actual, 0.2, 1), answers(actual, 0.18, 2), NAMES)
    other = compare_labels(actual, answers(actual, 0.2, 1), answers(actual, 0.18, 2), NAMES, seed=1)
    assert one.high - one.low == pytest.approx(other.high - other.low, rel=0.15)
    assert one.low > 0


def test_blocks_are_resampled_as_a_whole():
    actual = np.repeat(labels(30), 10, axis=0)
    before, after = (np.repeat(answers(labels(30), wrong, seed), 10, axis=0) for wrong, seed in ((0.2, 1), (0.15, 2)))
    rows = compare_labels(actual, before, after, NAMES)
    blocks = compare_labels(actual, before, after, NAMES, blocks=[np.repeat(np.arange(30), 10)])
    assert blocks.high - blocks.low > 2 * (rows.high - rows.low)
    assert blocks.test == "paired bootstrap of 30 blocks"


def test_the_table_shows_the_recall_of_every_label_that_occurs():
    actual = np.array([[1, 0, 0], [1, 1, 0]], dtype=bool)
    found = compare_labels(actual, np.zeros_like(actual), actual, NAMES)
    assert found.classes == [
        {"class": "a", "rows": 2, "champion": 0.0, "challenger": 1.0, "difference": 1.0},
        {"class": "b", "rows": 1, "champion": 0.0, "challenger": 1.0, "difference": 1.0},
    ]


def test_rows_without_any_label_cannot_be_compared():
    nothing = np.zeros((4, 3), dtype=bool)
    with pytest.raises(UserError, match="none of the 4 rows"):
        compare_labels(nothing, nothing, nothing, NAMES)
