import numpy as np
import pytest
from hypothesis import given, strategies as st

from unfreeze.models.tables.columns.target_means import means_of_others, shrunk_means, values_of


def groups(deviation: float, rows: int = 3_000, size: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, values with noise of 1, and the true means of the codes, which have that deviation."""
    random = np.random.default_rng(0)
    codes, truth = random.integers(0, size, rows), random.normal(5, deviation, size)
    return codes, truth[codes] + random.normal(size=rows), truth


def test_shrunk_means_are_nearer_to_the_truth_than_plain_ones():
    for deviation in (0.1, 0.3, 1.0):
        codes, values, truth = groups(deviation)
        plain = np.bincount(codes, weights=values, minlength=300) / np.maximum(np.bincount(codes, minlength=300), 1)
        shrunk = shrunk_means(codes, values, 300)
        assert np.square(shrunk - truth).mean() < np.square(plain - truth).mean()


def test_the_shrinkage_is_that_of_the_true_variances():
    codes, values, _ = groups(0.5, rows=30_000)
    counts, overall = np.bincount(codes, minlength=300), values.mean()
    plain = np.bincount(codes, weights=values, minlength=300) / counts
    expected = overall + counts / (counts + 1 / 0.5**2) * (plain - overall)
    assert shrunk_means(codes, values, 300) == pytest.approx(expected, abs=0.01)


def test_codes_that_do_not_differ_have_the_mean_of_all_rows():
    codes, values, _ = groups(0.0)
    means = shrunk_means(codes, values, 300)
    assert np.abs(means - values.mean()).max() < 0.15


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-1e3, 1e3)), min_size=1, max_size=30))
def test_means_stay_between_the_values_and_an_unseen_code_has_the_mean_of_all_rows(rows):
    codes, values = np.array([code for code, _ in rows]), np.array([value for _, value in rows])
    means = shrunk_means(codes, values, 7)
    assert (means >= values.min() - 1e-6).all()
    assert (means <= values.max() + 1e-6).all()
    assert means[6] == pytest.approx(values.mean())


def test_no_row_sees_its_own_target():
    codes, values, _ = groups(0.0, rows=2_000, size=1_000)
    assert abs(np.corrcoef(means_of_others(codes, values, 1_000, seed=0), values)[0, 1]) < 0.1
    changed = values.copy()
    changed[7] += 1e3
    before, after = (means_of_others(codes, each, 1_000, seed=0) for each in (values, changed))
    assert before[7] == after[7]
    assert before.tolist() != after.tolist()


def test_one_of_two_classes_says_all_and_of_many_there_are_no_means():
    two, three = np.array([0, 1, 1]), np.array([0, 2, 1])
    assert [each.tolist() for each in values_of(two, 2)] == [[0, 1, 1]]
    assert [each.tolist() for each in values_of(three, 3)] == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert list(values_of(three, 11)) == []
    assert [each.tolist() for each in values_of(np.array([[1.0, 2.0], [3.0, 4.0]]), 0)] == [[1, 3], [2, 4]]
