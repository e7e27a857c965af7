import math

import pytest
from hypothesis import given, strategies as st

from unfreeze.models.training.schedules import cosine_restarts, cycle_ends, exponential, one_cycle

LENGTHS = st.integers(1, 200)
GROWTHS = st.integers(1, 4)


@pytest.mark.parametrize(
    ("batch", "factor"),
    [
        *((batch, 0.01) for batch in range(5)),
        (5, 0.993844),
        (50, 0.5),
        (99, 0.000247),
        (100, 1.0),
        (150, 0.853553),
        (200, 0.5),
        (299, 6.2e-5),
        (300, 1.0),
    ],
)
def test_sgdr_has_the_golden_numbers(batch, factor):
    assert cosine_restarts(100, cycle_mult=2)(batch) == pytest.approx(factor, abs=5e-7)


def test_cycles_end_where_the_rate_restarts():
    factor = cosine_restarts(100, cycle_mult=2)
    restarts = [batch for batch in range(6, 701) if factor(batch) > factor(batch - 1)]
    assert [batch - 1 for batch in restarts] == [99, 299, 699]
    assert [100 * end - 1 for end in cycle_ends(3, 1, 2)] == [99, 299, 699]


def test_cycles_of_equal_length_repeat():
    factor = cosine_restarts(40)
    assert [factor(batch) for batch in range(40, 80)] == [factor(batch) for batch in range(80, 120)]
    assert factor(40) == factor(80) == 1
    assert cycle_ends(3, 2, 1) == [2, 4, 6]


@given(length=LENGTHS, growth=GROWTHS, batch=st.integers(0, 2000))
def test_the_rate_stays_above_zero_and_at_most_the_base_rate(length, growth, batch):
    assert 0 < cosine_restarts(length, growth)(batch) <= 1


@given(length=LENGTHS, growth=GROWTHS, cycle=st.integers(0, 4))
def test_within_a_cycle_the_rate_falls_as_a_half_cosine(length, growth, cycle):
    factor = cosine_restarts(length, growth)
    start = sum(length * growth**before for before in range(cycle))
    batches = length * growth**cycle
    warm = math.ceil(length / 20) if cycle == 0 else 0
    for batch in range(warm, batches, max(1, batches // 50)):
        assert factor(start + batch) == pytest.approx((1 + math.cos(math.pi * batch / batches)) / 2)


@given(length=LENGTHS)
def test_only_the_first_twentieth_of_the_first_cycle_runs_at_a_hundredth(length):
    factor = cosine_restarts(length)
    slow = [batch for batch in range(length) if factor(batch) == 0.01]
    assert slow == list(range(math.ceil(length / 20)))
    assert factor(length) == 1


@given(cycles=st.integers(1, 6), length=st.integers(1, 5), growth=GROWTHS)
def test_each_cycle_is_longer_by_the_same_factor(cycles, length, growth):
    ends = cycle_ends(cycles, length, growth)
    lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    assert lengths == [length * growth**cycle for cycle in range(cycles)]


def test_the_sweep_runs_from_start_to_end():
    sweep = exponential(1e-5, 10, 100)
    assert sweep(0) == pytest.approx(1e-5)
    assert sweep(99) == pytest.approx(10)


@given(start=st.floats(1e-8, 0.1), end=st.floats(0.2, 100), steps=st.integers(10, 300), share=st.floats(0, 1))
def test_the_sweep_grows_by_the_same_factor_at_every_batch(start, end, steps, share):
    sweep, batch = exponential(start, end, steps), int(share * (steps - 2))
    assert sweep(batch + 1) / sweep(batch) == pytest.approx((end / start) ** (1 / (steps - 1)))


def test_one_cycle_rises_for_a_quarter_of_every_cycle_and_falls_to_nearly_nothing():
    factor = one_cycle(40, 2)
    for start, length in ((0, 40), (40, 80)):
        values = [factor(start + batch) for batch in range(length)]
        assert values[0] == pytest.approx(1 / 25)
        assert values.index(max(values)) == length // 4
        assert max(values) == pytest.approx(1)
        assert values[: length // 4] == sorted(values[: length // 4])
        assert values[length // 4 :] == sorted(values[length // 4 :], reverse=True)
        assert values[-1] < 0.01
