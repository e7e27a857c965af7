from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, strategies as st

from unfreeze.models.training.suggestions import METHODS, longest_descent, suggest

LRS = np.geomspace(1e-5, 10, 121)


def descent(top: float = 1.0, bottom: float = 0.2, start: float = -3, end: float = -1) -> np.ndarray:
    """Flat, then a half cosine from `top` to `bottom` between two powers of ten, then a rise."""
    position = np.clip((np.log10(LRS) - start) / (end - start), 0, 1)
    fall = bottom + (top - bottom) * (1 + np.cos(np.pi * position)) / 2
    return fall + 3 * np.clip(np.log10(LRS) - end - 0.25, 0, None) ** 2


def test_a_known_descent_is_read_off():
    picks = {method: np.log10(lr) for method, lr in suggest(LRS, descent()).items()}
    assert tuple(picks) == METHODS
    assert picks["steepest"] == pytest.approx(-2, abs=0.1)
    assert -4 < picks["valley"] < -1
    assert -1.4 < picks["falling"] < -0.95  # near the end of the descent, still going down
    assert -1.05 - 1 < picks["minimum"] < -0.6 - 1  # a tenth of where it is lowest


def test_the_valley_is_the_middle_of_a_descent_that_begins_at_once():
    assert np.log10(suggest(LRS, descent(start=-5, end=-1))["valley"]) == pytest.approx(-3, abs=0.15)


def test_noise_moves_the_suggestions_little():
    noise = np.random.default_rng(0).normal(0, 0.03, len(LRS))
    quiet, noisy = suggest(LRS, descent()), suggest(LRS, descent() + noise)
    for method in ("falling", "steepest", "minimum"):
        assert noisy[method] == pytest.approx(quiet[method], rel=1.5)


def test_the_explosion_at_the_end_does_not_reach_into_the_descent():
    exploding = np.where(LRS > 0.5, 1e6, descent())
    assert suggest(LRS, exploding)["falling"] == pytest.approx(suggest(LRS, descent())["falling"], rel=0.5)


def test_a_descent_shifted_by_a_decade_shifts_the_suggestions_by_one():
    early, late = suggest(LRS, descent(start=-4, end=-2)), suggest(LRS, descent())
    for method in ("falling", "steepest"):
        assert late[method] == pytest.approx(10 * early[method], rel=0.3)


@pytest.mark.parametrize("losses", [np.ones(121), np.linspace(1, 3, 121)], ids=["flat", "rising"])
def test_a_loss_that_never_falls_suggests_the_first_rate(losses):
    assert suggest(LRS, losses) == dict.fromkeys(METHODS, LRS[0])


@pytest.mark.parametrize("count", [1, 4])
def test_too_short_a_curve_suggests_the_first_rate(count):
    assert suggest(LRS[:count], descent()[:count]) == dict.fromkeys(METHODS, LRS[0])


@given(losses=st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
def test_suggestions_lie_within_the_swept_range(losses):
    lrs = np.geomspace(1e-5, 10, len(losses))
    picks = suggest(lrs, np.array(losses))
    assert all(lrs[0] <= picks[method] <= lrs[-1] for method in ("falling", "valley", "steepest"))
    assert lrs[0] / 10 <= picks["minimum"] <= lrs[-1]
    assert picks["falling"] >= picks["steepest"]


@given(values=st.lists(st.integers(0, 8), min_size=1, max_size=9))
def test_the_longest_descent_is_the_longest_of_all(values):
    start, end = longest_descent(np.array(values))
    lengths = {}  # of every strictly falling subsequence, by first and last index
    for chosen in range(1, 2 ** len(values)):
        indices = [index for index in range(len(values)) if chosen >> index & 1]
        if all(values[one] > values[two] for one, two in pairwise(indices)):
            ends = indices[0], indices[-1]
            lengths[ends] = max(lengths.get(ends, 0), len(indices))
    assert lengths[start, end] == max(lengths.values())
