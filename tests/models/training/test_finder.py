import math
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.conftest import assert_same, optimizer_states, pixels, states_of
from unfreeze.models.settings import FinderSpec, Stage
from unfreeze.models.training.checkpoints import capture
from unfreeze.models.training.finder import find_lr_curve
from unfreeze.models.training.learner import Learner
from unfreeze.models.training.loop import DivergedError, fit

SWEEP = FinderSpec(steps=20)
STAGE = Stage(name="all", train="all", ratio=5, cycles=2)
VALID = pixels(11, seed=1)


def losses_of(learner: Learner, *values: float) -> None:
    """Let the learner's losses be those given, the last one for ever."""
    true_loss, remaining = learner.loss, list(values)

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        value = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        return true_loss(logits, targets) * 0 + value

    learner.loss = loss


def after(learner: Learner, yields: int) -> Learner:
    for _, _step in zip(range(yields), fit(learner, STAGE, pixels(20), VALID), strict=False):
        pass
    return learner


@pytest.mark.parametrize("yields", [0, 1, 2, 3, 4, 5, 10], ids=lambda count: f"after {count} yields")
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_everything_is_put_back_bit_for_bit(make_learner, optimizer, yields):
    learner = after(make_learner(STAGE, name=optimizer), yields)
    before, progress = capture(learner), vars(learner.progress).copy()
    weights, state, lrs = states_of(learner), optimizer_states(learner), learner.set_lrs(0.3)
    curve = find_lr_curve(learner, pixels(20), SWEEP)
    assert len(curve.lrs) > 3
    assert_same(states_of(learner), weights)
    assert_same(optimizer_states(learner), state)
    assert_same(capture(learner).tensors, before.tensors)  # random numbers, row order and losses too
    assert capture(learner).position == before.position
    assert vars(learner.progress) == progress
    assert {group["layer_group"]: group["lr"] for group in learner.optimizer.param_groups} == lrs


@pytest.mark.parametrize("yields", [1, 3, 4])
def test_a_loop_that_is_under_way_continues_as_if_nothing_had_happened(make_learner, yields):
    ends = []
    for sweeps in (False, True):
        learner = make_learner(STAGE)
        steps = fit(learner, STAGE, pixels(20), VALID)
        for _ in range(yields):
            next(steps)
        if sweeps:
            find_lr_curve(learner, pixels(20), SWEEP)
        told = [(step.kind, step.step, step.epoch, float(step.loss), step.metrics) for step in steps]
        ends.append((told, capture(learner)))
    assert ends[0][0] == ends[1][0]
    assert_same(ends[0][1].tensors, ends[1][1].tensors)
    assert ends[0][1].position == ends[1][1].position


def test_everything_is_put_back_when_the_sweep_fails(make_learner):
    learner = after(make_learner(STAGE), 2)
    before, true_loss, calls = capture(learner), learner.loss, []

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return true_loss(logits, targets)

    learner.loss = loss
    with pytest.raises(KeyboardInterrupt):
        find_lr_curve(learner, pixels(20), SWEEP)
    assert_same(capture(learner).tensors, before.tensors)
    assert capture(learner).position == before.position


def test_the_ratios_of_the_groups_hold_during_the_sweep(make_learner):
    learner = make_learner(STAGE, lr=0.7)
    losses_of(learner, 1.0)
    seen: list[dict[str, float]] = []
    true_train = learner.train_batch

    def train_batch(*batch: Any) -> torch.Tensor:
        seen.append({group["layer_group"]: group["lr"] for group in learner.optimizer.param_groups})
        return true_train(*batch)

    learner.train_batch = train_batch
    curve = find_lr_curve(learner, pixels(20), SWEEP)
    assert len(seen) == 20
    np.testing.assert_allclose([lrs["head"] for lrs in seen], curve.lrs)
    for lrs in seen:
        assert lrs["head"] == pytest.approx(5 * lrs["late"])
        assert lrs["late"] == pytest.approx(5 * lrs["early"])


def test_the_sweep_covers_its_range_over_several_epochs(make_learner):
    learner = make_learner(STAGE, lr=0.7)
    losses_of(learner, 1.0)
    curve = find_lr_curve(learner, pixels(20), FinderSpec(steps=50))
    np.testing.assert_allclose(curve.lrs, np.geomspace(1e-5, 10, 50))


def test_the_sweep_changes_the_weights_while_it_runs(make_learner):
    curve = find_lr_curve(make_learner(STAGE), pixels(60), FinderSpec(steps=40))
    assert curve.losses.min() < 0.8 * curve.losses[:3].mean()


def test_the_smoothed_loss_is_the_debiased_average(make_learner):
    curve = find_lr_curve(make_learner(STAGE), pixels(20), SWEEP)
    for end in range(1, len(curve.losses) + 1):
        weights = 0.98 ** np.arange(end)[::-1]
        assert curve.smoothed[end - 1] == pytest.approx(np.average(curve.losses[:end], weights=weights))


def test_the_sweep_stops_at_a_loss_that_is_no_number(make_learner):
    learner = make_learner(STAGE)
    losses_of(learner, *[1.0] * 7, math.nan)
    curve = find_lr_curve(learner, pixels(20), SWEEP)
    assert len(curve.lrs) == len(curve.losses) == len(curve.smoothed) == 7
    assert np.isfinite(curve.losses).all()


def test_the_sweep_stops_where_the_smoothed_loss_is_four_times_the_best(make_learner):
    learner = make_learner(STAGE)
    losses_of(learner, 1.0, 1.0, 1.0, 1.0, 12.9, 40.0, 1.0)
    curve = find_lr_curve(learner, pixels(20), SWEEP)
    assert len(curve.losses) == 6
    assert curve.smoothed[4] < 4 * curve.smoothed.min() < curve.smoothed[5]


def test_a_first_loss_that_is_no_number_is_an_error(make_learner):
    learner = make_learner(STAGE)
    before = capture(learner)
    losses_of(learner, math.nan)
    with pytest.raises(DivergedError, match="first batch"):
        find_lr_curve(learner, pixels(20), SWEEP)
    assert_same(capture(learner).tensors, before.tensors)


def test_the_same_sweep_twice_gives_the_same_curve(make_learner):
    learner = after(make_learner(STAGE), 2)
    one, two = (find_lr_curve(learner, pixels(20), SWEEP) for _ in range(2))
    np.testing.assert_array_equal(one.losses, two.losses)
    assert one.suggestions() == two.suggestions()
