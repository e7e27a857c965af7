"""Lrs that are tried on the stage: rows are held out, everything is put back, and the plateau's middle is taken."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as arrays

from tests.models.conftest import CLASSES, TensorBatches, states_of
from unfreeze.models.settings import Stage
from unfreeze.models.training.finder import FEWEST_ROWS, FOLDS, MOST_STEPS, TRIED, try_lrs
from unfreeze.models.training.suggestions import AS_GOOD, LrTrials

HEAD = Stage(name="head", precompute=True, cycles=2)


def activations(count: int, noise: float = 1.0, seed: int = 0) -> TensorBatches:
    """What the tiny network's head takes, with a class that shows in one number."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(CLASSES, (count,), generator=generator)
    inputs = noise * torch.randn(count, 6, generator=generator)
    inputs[torch.arange(count), targets] += 1
    return TensorBatches(inputs, targets, precomputed=True)


def test_every_lr_is_tried_on_each_fold_and_those_that_are_far_too_low_lose(make_learner):
    trials = try_lrs(make_learner(HEAD), activations(120, noise=0.3), HEAD, 1e-3)
    assert trials is not None
    assert trials.losses.shape == (FOLDS, len(TRIED))
    np.testing.assert_allclose(np.log10(trials.lrs), np.log10(1e-3) + TRIED)
    means = trials.losses.mean(axis=0)
    assert means[0] > means[-1]
    assert trials.estimate()[0] > 1e-3


def test_rows_held_out_are_not_trained_on(make_learner):
    train = activations(100)
    try_lrs(make_learner(HEAD), train, HEAD, 1e-3)
    trained = [rows for rows in train.gathered if len(rows) <= 8]
    assert {int(row) for rows in trained for row in rows} == set(range(100))  # each in some fold
    for fold in range(FOLDS):
        held_out = torch.randperm(100, generator=torch.Generator().manual_seed(fold))[:30].sort().values
        judged = [place for place, rows in enumerate(train.gathered) if torch.equal(rows[:8], held_out[:8])]
        assert len(judged) >= len(TRIED)


def test_weights_random_numbers_and_progress_are_put_back(make_learner):
    learner = make_learner(HEAD)
    before, generator, rng, progress = (
        states_of(learner),
        learner.generator.get_state(),
        torch.get_rng_state(),
        learner.progress,
    )
    base_lrs = list(learner.base_lrs)
    train = activations(60)
    train.epoch = 3
    try_lrs(learner, train, HEAD, 1e-2)
    assert all(torch.equal(before[name], tensor) for name, tensor in states_of(learner).items())
    assert torch.equal(learner.generator.get_state(), generator)
    assert torch.equal(torch.get_rng_state(), rng)
    assert learner.progress is progress
    assert learner.base_lrs == base_lrs
    assert train.epoch == 3


def test_the_same_trials_come_out_whatever_was_drawn_before(make_learner):
    one, two = make_learner(HEAD), make_learner(HEAD)
    two.generator.manual_seed(77)
    torch.manual_seed(5)
    first, second = (try_lrs(each, activations(60), HEAD, 1e-2) for each in (one, two))
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.losses, second.losses)


def test_an_lr_at_which_training_diverges_is_the_worst(make_learner):
    trials = try_lrs(make_learner(HEAD), activations(60), HEAD, 1e30)
    assert trials is not None
    assert np.isinf(trials.losses[:, -1]).all()


def test_nothing_is_tried_on_few_rows(make_learner):
    assert try_lrs(make_learner(HEAD), activations(FEWEST_ROWS - 1), HEAD, 1e-3) is None


@pytest.mark.slow
def test_a_long_stage_is_shortened(make_learner):
    train, stage = activations(600), Stage(name="head", precompute=True, cycles=1, cycle_len=9)
    try_lrs(make_learner(HEAD), train, stage, 1e-3)
    judged = 60 // 8 * FOLDS * len(TRIED)
    assert len(train.gathered) == pytest.approx(MOST_STEPS * FOLDS * len(TRIED) + judged, rel=0.02)


@given(
    losses=arrays.arrays(float, (FOLDS, 5), elements=st.floats(0.01, 10)),
    centre=st.floats(1e-5, 1),
)
def test_the_estimate_lies_among_the_lrs_that_are_as_good_as_the_best(losses, centre):
    trials = LrTrials(centre * 10.0 ** np.array(TRIED), losses)
    lr, decades = trials.estimate()
    means = losses.mean(axis=0)
    good = trials.lrs[means <= (1 + AS_GOOD) * means.min()]
    assert good.min() * (1 - 1e-9) <= lr <= good.max() * (1 + 1e-9)
    assert decades >= 0.25 - 1e-9


@pytest.mark.parametrize(
    ("losses", "expected"),
    [([1, 0.5, 0.3, 0.3, 0.31], 0.5), ([0.3, 1, 1, 1, 1], -1.0), ([0.05, 0.03, 0.0095, 0.01, 0.00028], 1.0)],
)
def test_the_middle_of_a_plateau_is_taken_and_a_single_best_lr_as_it_is(losses, expected):
    trials = LrTrials(10.0 ** np.array(TRIED), np.array([losses] * FOLDS))
    assert np.log10(trials.estimate()[0]) == pytest.approx(expected)
