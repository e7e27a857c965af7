import pytest
from hypothesis import given, strategies as st

from unfreeze.models.settings import OptimizerSpec, Stage, TrainImages
from unfreeze.models.training.schedules import batch_size_for, plan, planned, steps_per_epoch


def training(*stages: Stage, **optimizer: int) -> TrainImages:
    return TrainImages(recipe=list(stages), optimizer=OptimizerSpec(**optimizer))


@given(st.integers(1, 10_000_000))
def test_a_batch_is_a_power_of_two_within_its_bounds_and_grows_with_the_rows(rows):
    size = batch_size_for(rows, 8, 64)
    assert size in (8, 16, 32, 64)
    assert size <= batch_size_for(rows + 1, 8, 64)


def test_a_batch_size_that_is_given_is_kept():
    assert planned(training(Stage(name="a", lr=0.1), batch_size=48), 10_000, 8, 64).optimizer.batch_size == 48


@given(rows=st.integers(1, 5000), steps=st.integers(1, 500), epochs=st.integers(1, 20))
def test_the_first_cycle_has_at_least_its_steps_and_no_epoch_more_than_they_take(rows, steps, epochs):
    params = planned(training(Stage(name="a", lr=0.1, cycle_len=epochs, cycle_steps=steps)), rows, 8, 64)
    per_epoch = steps_per_epoch(rows, params.optimizer.batch_size)
    (stage,) = params.recipe
    assert stage.cycle_len * per_epoch >= steps
    assert stage.cycle_len == epochs or (stage.cycle_len - 1) * per_epoch < steps


def test_without_steps_the_epochs_are_those_asked_for():
    assert planned(training(Stage(name="a", lr=0.1, cycle_len=3)), 10, 8, 64).recipe[0].cycle_len == 3


@pytest.mark.parametrize(
    ("settings", "end"),
    [
        ({}, "2 cycles"),
        (
            {"patience": 1},
            "; 7 to 42 epochs as it goes: goes on while each cycle helps, ends after 1 without a lower validation loss",
        ),
        ({"fewest_errors": 5}, "; 0 to 14 epochs as it goes: skipped where fewer than 5 rows are wrong"),
    ],
)
def test_the_plan_says_how_long_every_stage_is(settings, end):
    stage = Stage(name="head", lr=0.1, cycles=2, cycle_steps=40, **settings)
    (line,) = plan(planned(training(stage), 42, 8, 64), 42)
    assert line.startswith("plan: head: 14 epochs of 6 steps of 8 rows, 2 cycles")
    assert line.endswith(end)
