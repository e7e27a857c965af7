"""The finder as a recipe uses it: several sweeps, weighed with what is usual for the optimizer."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tests.models.conftest import pixels, states_of
from unfreeze.models.settings import FinderSpec, Stage
from unfreeze.models.training import finder
from unfreeze.models.training.finder import SWEEPS, find_lr
from unfreeze.models.training.suggestions import LrCurve, LrPrior, mean_curve

PRIOR = LrPrior(2e-3, 0.35)
HEAD = Stage(name="head")
LRS = np.geomspace(1e-5, 10, 60)


def curve(fall_at: float, seed: int = 0, noise: float = 0.05) -> LrCurve:
    """A loss that falls around `fall_at` and explodes two decades later."""
    rng = np.random.default_rng(seed)
    place = np.log10(LRS / fall_at)
    losses = 1 - 0.7 / (1 + np.exp(-3 * place)) + np.exp(np.clip(3 * (place - 2), -20, 5)) + noise * rng.normal(size=60)
    return LrCurve(LRS, losses, losses)


@pytest.mark.slow
def test_other_seeds_and_step_counts_move_the_suggestion_by_less_than_a_third_of_a_decade(make_learner):
    found = []
    for seed in range(3):
        for steps in (36, 120):
            learner = make_learner(HEAD, seed=seed)
            found.append(find_lr(learner, pixels(60), FinderSpec(steps=steps), 80, PRIOR).suggestions()["stable"])
    assert np.ptp(np.log10(found)) < 0.3


def test_the_mean_of_sweeps_does_not_depend_on_the_orders_that_were_drawn_before(make_learner):
    one, two = make_learner(HEAD), make_learner(HEAD)
    two.generator.manual_seed(99)
    settings = FinderSpec(steps=36)
    assert (
        find_lr(one, pixels(20), settings, 80, PRIOR).estimate()
        == find_lr(two, pixels(20), settings, 80, PRIOR).estimate()
    )


def test_weights_and_random_numbers_are_put_back(make_learner):
    learner = make_learner(HEAD)
    before, state = states_of(learner), learner.generator.get_state()
    find_lr(learner, pixels(20), FinderSpec(steps=36), 80, PRIOR)
    assert all((before[name] == tensor).all() for name, tensor in states_of(learner).items())
    assert (learner.generator.get_state() == state).all()


def test_a_body_in_training_is_swept_with_a_tenth_of_the_stages_rows(make_learner):
    full = Stage(name="full", train="all")
    train = pixels(64, batch_size=16)
    find_lr(make_learner(full), train, FinderSpec(steps=300), 100, PRIOR)
    rows = sum(len(each) for each in train.gathered)
    assert rows <= 0.1 * 100 * 16
    assert max(len(each) for each in train.gathered) == 4


def test_a_frozen_body_is_swept_with_all_its_steps(make_learner, monkeypatch):
    monkeypatch.setattr(finder, "LRS", (1e-5, 1e-4))
    train = pixels(64, batch_size=16)
    find_lr(make_learner(HEAD), train, FinderSpec(steps=90), 100, PRIOR)
    assert len(train.gathered) == 90


def test_curves_that_agree_move_the_prior_and_curves_that_do_not_leave_it():
    clear = mean_curve(tuple(curve(1e-4, seed, noise=0.002) for seed in range(SWEEPS)), PRIOR)
    unclear = mean_curve(tuple(curve(1e-4, seed, noise=2.0) for seed in range(SWEEPS)), PRIOR)
    moved, left = (abs(np.log10(each.estimate()[0] / PRIOR.lr)) for each in (clear, unclear))
    assert moved > 0.15
    assert left < moved
    assert clear.estimate()[1] < unclear.estimate()[1] <= PRIOR.decades


def test_an_optimizer_without_a_prior_takes_what_the_curves_say():
    without = mean_curve((curve(1e-4, noise=0.001),), None).estimate()[0]
    assert np.log10(without) == pytest.approx(-3.9, abs=0.5)


@given(fall_at=st.floats(1e-4, 1e-1), seed=st.integers(0, 100))
def test_the_estimate_lies_between_prior_and_curves(fall_at, seed):
    mean = mean_curve((curve(fall_at, seed),), PRIOR)
    seen = np.log10([lr for name, lr in mean.suggestions().items() if name != "stable"]).mean()
    low, high = sorted([seen, np.log10(PRIOR.lr)])
    assert low - 1e-9 <= np.log10(mean.estimate()[0]) <= high + 1e-9
