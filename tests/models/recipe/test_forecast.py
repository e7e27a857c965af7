import pytest

from unfreeze.models.recipe.forecast import Forecast, StageForecast, forecast, within
from unfreeze.models.settings import Stage

HEAD = Stage(name="head", find_lr=True, cycles=2, cycle_len=3, cycle_steps=30)
FULL = Stage(name="full", train="all", lr=1e-3, cycles=3, cycle_mult=2)
EXPECTED = Forecast(
    [
        StageForecast(stage, 10, {"head": 1.0}, True, 0.1, seconds, 5.0)
        for stage, seconds in ((HEAD, 1.0), (FULL, 10.0))
    ],
    20.0,
    0,
)


def test_every_stage_is_measured_on_real_rows(tiny_recipe):
    found = forecast(tiny_recipe)
    assert [each.stage for each in found.stages] == tiny_recipe.params.recipe
    for each in found.stages:
        assert each.seconds >= each.stage.epochs * each.epoch_seconds >= 0
        assert (each.step_seconds > 0) != each.stage.precomputes
        assert each.before_seconds > 0 or not each.stage.precomputes
    assert found.memory > 0
    assert found.most_seconds >= found.seconds > sum(each.seconds for each in found.stages)


def test_it_leaves_the_trainings_own_learner_as_it_is(tiny_recipe):
    before = tiny_recipe.learner().state()
    forecast(tiny_recipe)
    after = tiny_recipe.learner().state()
    assert all((tensor == after[name]).all() for name, tensor in before.items())


def test_all_parts_add_up():
    assert EXPECTED.seconds == 5 + 6 * 1 + 5 + 7 * 10 + 20


def test_a_budget_that_is_large_enough_cuts_nothing():
    assert within(EXPECTED, 106) == EXPECTED


def test_the_longest_stage_loses_its_last_cycles_first():
    found = within(EXPECTED, 70)
    assert [each.stage.cycles for each in found.stages] == [2, 2]
    assert found.seconds == 106 - 40


def test_then_single_cycles_lose_epochs_and_the_rest_stays():
    found = within(EXPECTED, 43)
    assert found.seconds <= 43
    head, full = (each.stage for each in found.stages)
    assert (full.cycles, full.epochs) == (1, 1)
    assert head.cycles == 1
    assert head.epochs < 6


def test_what_cannot_be_cut_is_left_over_budget():
    assert within(EXPECTED, 1).seconds == 5 + 1 + 5 + 10 + 20


@pytest.mark.parametrize("seconds", [42, 50, 60, 80, 100])
def test_a_budget_is_kept_whenever_one_epoch_of_each_fits(seconds):
    assert within(EXPECTED, seconds).seconds <= seconds
