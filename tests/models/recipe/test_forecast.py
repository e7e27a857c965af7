from dataclasses import replace

import pytest

from unfreeze.models.recipe.forecast import Forecast, StageForecast, forecast, within
from unfreeze.models.settings import Stage, TrainImages


def stage_forecast(stage: Stage, epoch_seconds: float) -> StageForecast:
    epochs = stage.epochs
    return StageForecast(stage.name, stage.cycles, epochs, 10 * epochs, {"head": 1.0}, True, 0.1, epoch_seconds, 5.0)


HEAD = Stage(name="head", find_lr=True, cycles=2, cycle_len=3, cycle_steps=30)
FULL = Stage(name="full", train="all", lr=1e-3, cycles=3, cycle_mult=2)
PARAMS = TrainImages(recipe=[HEAD, FULL])
EXPECTED = Forecast([stage_forecast(HEAD, 1.0), stage_forecast(FULL, 10.0)], 20.0, 0)


def test_every_stage_is_measured_on_real_rows(tiny_recipe):
    found = forecast(tiny_recipe)
    stages = tiny_recipe.params.recipe
    assert [stage.name for stage in found.stages] == [stage.name for stage in stages]
    for stage, settings in zip(found.stages, stages, strict=True):
        assert stage.epochs == settings.epochs
        assert stage.steps % stage.epochs == 0
        assert stage.step_seconds > 0
        assert stage.seconds >= stage.epochs * stage.epoch_seconds > 0
    assert found.memory > 0
    assert found.seconds > sum(stage.seconds for stage in found.stages)


def test_it_leaves_the_trainings_own_learner_as_it_is(tiny_recipe):
    before = tiny_recipe.learner().state()
    forecast(tiny_recipe)
    after = tiny_recipe.learner().state()
    assert all((tensor == after[name]).all() for name, tensor in before.items())


def test_all_parts_add_up():
    assert EXPECTED.seconds == 5 + 6 * 1 + 5 + 7 * 10 + 20


def test_a_budget_that_is_large_enough_cuts_nothing():
    params, expected, cuts = within(PARAMS, EXPECTED, 106)
    assert params == PARAMS
    assert expected == EXPECTED
    assert cuts == []


def test_the_longest_stage_loses_its_last_cycles_first():
    params, expected, cuts = within(PARAMS, EXPECTED, 70)
    assert [stage.cycles for stage in params.recipe] == [2, 2]
    assert expected.seconds == 106 - 40
    assert expected.stages[1].steps == 30
    assert cuts == ["full: 3 of 7 epochs, 2 of 3 cycles"]


def test_then_single_cycles_lose_epochs_and_the_rest_stays():
    params, expected, cuts = within(PARAMS, EXPECTED, 43)
    assert expected.seconds <= 43
    head, full = params.recipe
    assert (full.cycles, full.epochs) == (1, 1)
    assert head.cycles == 1
    assert head.epochs < 6
    assert len(cuts) == 2


def test_what_cannot_be_cut_is_left_over_budget():
    _, expected, _ = within(PARAMS, EXPECTED, 1)
    assert expected.seconds == 5 + 1 + 5 + 10 + 20


@pytest.mark.parametrize("seconds", [42, 50, 60, 80, 100])
def test_a_budget_is_kept_whenever_one_epoch_of_each_fits(seconds):
    _, expected, _ = within(PARAMS, replace(EXPECTED), seconds)
    assert expected.seconds <= seconds
