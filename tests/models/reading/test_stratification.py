import numpy as np
import pytest
from hypothesis import example, given, strategies as st
from hypothesis.extra import numpy as arrays

from unfreeze.models.reading.sampling import stratify

LABELS = arrays.arrays(bool, st.tuples(st.integers(1, 120), st.integers(0, 6)))
SHARES = st.sampled_from([(0.8, 0.2), (0.5, 0.5), (0.6, 0.2, 0.2)])


@given(LABELS, SHARES)
def test_every_row_is_dealt_and_each_side_has_its_share_of_the_rows(labels, shares):
    sides = stratify(labels, shares)
    assert set(sides) <= set(range(len(shares)))
    # Rare labels go first, wherever they are wanted: at most one row of each off.
    for side, share in enumerate(shares):
        assert abs((sides == side).sum() - share * len(labels)) <= 1 + labels.shape[1]


@example(178, (0.6, 0.2, 0.2))
@given(st.integers(0, 1000), SHARES)
def test_each_side_has_its_share_of_every_label(seed, shares):
    generator = np.random.default_rng(seed)
    labels = generator.random((400, 5)) < generator.uniform(0.05, 0.6, 5)
    sides = stratify(labels, shares)
    for side, share in enumerate(shares):
        off = np.abs(labels[sides == side].sum(0) - share * labels.sum(0))
        assert off.max() <= 2


@given(st.integers(0, 1000))
def test_it_is_closer_to_the_shares_than_chance(seed):
    generator = np.random.default_rng(seed)
    labels = generator.random((200, 8)) < 0.06
    dealt = labels[stratify(labels, (0.8, 0.2)) == 1].sum(0)
    drawn = labels[generator.permutation(200)[:40]].sum(0)
    wanted = 0.2 * labels.sum(0)
    assert np.abs(dealt - wanted).sum() <= np.abs(drawn - wanted).sum()


@given(st.integers(0, 1000), SHARES)
def test_a_rare_label_by_itself_is_on_every_side(seed, shares):
    labels = np.zeros((60, 3), dtype=bool)
    rows = np.random.default_rng(seed).permutation(60)
    for label, count in enumerate((len(shares), 4, 30)):
        labels[rows[:count], label] = True
        rows = rows[count:]
    sides = stratify(labels, shares)
    for side in range(len(shares)):
        assert labels[sides == side].any(0).all()


@given(LABELS, st.data())
def test_fixed_rows_stay_and_count(labels, data):
    fixed = np.array(data.draw(st.lists(st.sampled_from([-1, 0, 1]), min_size=len(labels), max_size=len(labels))))
    sides = stratify(labels, (0.8, 0.2), fixed)
    np.testing.assert_array_equal(sides[fixed >= 0], fixed[fixed >= 0])


def test_free_rows_fill_up_what_fixed_ones_lack():
    labels = np.ones((10, 1), dtype=bool)
    sides = stratify(labels, (0.5, 0.5), np.array([0] * 5 + [-1] * 5))
    assert sides.tolist() == [0] * 5 + [1] * 5


def test_the_same_rows_are_dealt_the_same_way():
    labels = np.random.default_rng(1).random((100, 4)) < 0.3
    np.testing.assert_array_equal(stratify(labels, (0.7, 0.3)), stratify(labels.copy(), (0.7, 0.3)))


@pytest.mark.parametrize("rows", [1, 2])
def test_few_rows_train_first(rows):
    assert stratify(np.ones((rows, 2), dtype=bool), (0.8, 0.2)).tolist() == [0, 1][:rows]
