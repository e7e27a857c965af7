import gc
from collections import Counter
from itertools import pairwise

import pytest
import torch

from tests.models.conftest import MakeLearner, TensorBatches, assert_same, pixels, states_of
from unfreeze.models.settings import Stage
from unfreeze.models.training.learner import Learner
from unfreeze.models.training.loop import DivergedError, Event, fit
from unfreeze.models.training.schedules import cosine_restarts, possible_epochs

VALID = pixels(11, seed=1)


def run(learner: Learner, stage: Stage, train: TensorBatches | None = None) -> list[Event]:
    return list(fit(learner, stage, train or pixels(20), VALID))


def scripted_validation(learner: Learner, losses: list[float]) -> list[dict[str, torch.Tensor]]:
    """Let the learner's validation losses be those given; returns the weights at each validation, filled on the way."""
    seen: list[dict[str, torch.Tensor]] = []
    remaining = iter(losses)

    def validate(_: object) -> dict[str, float]:
        seen.append(states_of(learner))
        return {"loss": next(remaining)}

    learner.validate = validate
    return seen


def test_batches_epochs_and_cycles_come_in_order(make_learner):
    stage = Stage(name="head", cycles=2, cycle_len=1, cycle_mult=2)
    steps = run(make_learner(stage), stage)
    epoch = ["batch"] * 3 + ["epoch"]
    assert [step.kind for step in steps] == [*epoch, "cycle", *epoch, *epoch, "cycle"]
    assert [step.step for step in steps if step.kind == "batch"] == list(range(1, 10))
    assert [(step.step, step.epoch, step.cycle) for step in steps if step.kind == "epoch"] == [
        (3, 1, 1),
        (6, 2, 2),
        (9, 3, 2),
    ]
    assert [(step.step, step.epoch, step.cycle) for step in steps if step.kind == "cycle"] == [(3, 1, 1), (9, 3, 2)]


def test_no_batch_leaves_a_tensor_behind(make_learner):
    stage = Stage(name="head")
    alive = []
    gc.freeze()  # only what the batches make is looked through
    for step in fit(make_learner(stage), stage, pixels(80), VALID):
        if step.kind == "batch":
            alive.append(sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects()))
    gc.unfreeze()
    assert len(alive) == 10
    assert len(set(alive[2:])) == 1, "they would lie between the buffers of batches, which the heap could not reuse"


def test_an_epoch_reports_the_mean_loss_and_the_validation(make_learner):
    stage = Stage(name="head")
    learner = make_learner(stage)
    steps = run(learner, stage)
    losses = torch.stack([step.loss for step in steps if step.kind == "batch"])
    epoch = next(step for step in steps if step.kind == "epoch")
    assert torch.equal(epoch.loss, losses.mean())
    assert epoch.metrics == learner.validate(VALID)
    assert epoch.metrics.keys() == {"loss", "accuracy"}


def test_the_validation_loss_is_the_cross_entropy_of_all_rows_at_once(make_learner):
    learner = make_learner(Stage(name="head"), label_smoothing=0.2)
    logits, targets = learner.predict(VALID)
    assert torch.equal(targets, VALID.targets)
    expected = torch.nn.functional.cross_entropy(logits.double(), targets)
    assert learner.validate(VALID)["loss"] == pytest.approx(float(expected), rel=1e-12)


def test_every_epoch_visits_every_row_once_in_another_order(make_learner):
    stage = Stage(name="head", cycles=2)
    train = pixels(20)
    run(make_learner(stage), stage, train)
    first, second = torch.cat(train.gathered[:3]).tolist(), torch.cat(train.gathered[3:]).tolist()
    assert sorted(first) == sorted(second) == list(range(20))
    assert len({tuple(first), tuple(second), tuple(range(20))}) == 3


def test_the_rates_follow_the_schedule_and_keep_their_ratio(make_learner):
    stage = Stage(name="all", train="all", ratio=4, cycles=2, cycle_mult=2)
    steps = run(make_learner(stage, lr=0.08), stage)
    schedule = cosine_restarts(3, 2)
    for number, step in enumerate(step for step in steps if step.kind == "batch"):
        assert step.lrs["head"] == pytest.approx(0.08 * schedule(number))
        assert step.lrs["head"] == pytest.approx(4 * step.lrs["late"])
        assert step.lrs["late"] == pytest.approx(4 * step.lrs["early"])


def test_an_epoch_reports_the_rates_of_its_last_batch(make_learner):
    stage = Stage(name="head", cycles=2)
    steps = run(make_learner(stage), stage)
    last = [before.lrs for before, step in pairwise(steps) if step.kind == "epoch"]
    assert [step.lrs for step in steps if step.kind == "epoch"] == last


def test_training_lowers_the_loss(make_learner):
    stage = Stage(name="all", train="all", ratio=1, cycles=1, cycle_len=15)
    learner = make_learner(stage, lr=0.02)
    before = learner.validate(VALID)["loss"]
    epochs = [step for step in run(learner, stage, pixels(60)) if step.kind == "epoch"]
    assert epochs[-1].metrics["loss"] < 0.7 * before
    assert epochs[-1].loss < epochs[0].loss


def test_the_state_at_a_yield_is_what_has_been_done(make_learner):
    stage = Stage(name="head", cycles=2)
    learner = make_learner(stage)
    counts: Counter[str] = Counter()
    for step in fit(learner, stage, pixels(20), VALID):
        counts[step.kind] += 1
        assert learner.progress.step == counts["batch"]
        assert learner.progress.epoch == counts["epoch"]
        assert learner.progress.finished == (counts["epoch"] == 2)


def test_steps_are_counted_over_all_stages(make_learner):
    head, full = Stage(name="head"), Stage(name="full", train="all")
    learner = make_learner(head)
    run(learner, head)
    learner.prepare(full, 1, 0.01)
    assert [step.step for step in run(learner, full)] == [4, 5, 6, 6, 6]
    assert learner.progress.stage == 1


@pytest.mark.parametrize(
    ("patience", "losses", "epochs", "best", "reason"),
    [
        (1, [4.0, 3.0, 2.0, 2.5], 3, 2, "no lower validation loss than 2 in 1 cycle"),
        (2, [4.0, 2.0, 2.5, 1.0, 1.5], 4, 3, "4 cycles trained"),
        (2, [4.0, 2.0, 2.5, 3.1], 3, 1, "no lower validation loss than 2 in 2 cycles"),
        (1, [4.0, 2.0, 2.0], 2, 1, "no lower validation loss than 2 in 1 cycle"),  # as good is not lower
        (1, [1.0, 2.0], 1, 1, "no lower validation loss than 1 in 1 cycle"),  # never better than at the start
        (2, [1.0, 2.0, 3.0], 2, 1, "no lower validation loss than 1 in 2 cycles"),
        (1, [9.0, 4.0, 3.0, 2.0, 1.0, 1.5], 5, 4, "no lower validation loss than 1 in 1 cycle"),  # goes on: it falls
        (2, [9.0, 4.0, 3.0, 2.0, 1.999], 4, 4, "4 cycles trained"),  # by too little to go on
    ],
)
def test_patience_stops_after_cycles_without_a_lower_loss_and_puts_the_best_back(
    make_learner, patience, losses, epochs, best, reason
):
    stage = Stage(name="all", train="all", cycles=4, patience=patience)
    learner = make_learner(stage)
    seen = scripted_validation(learner, losses)
    steps = run(learner, stage)
    assert sum(step.kind == "epoch" for step in steps) == epochs == len(seen) - 1
    assert_same(states_of(learner), seen[best])
    assert learner.progress.finished
    assert learner.progress.best_loss == min(losses)
    assert learner.progress.stopped == reason


def test_a_head_that_never_improves_is_left_as_it_was(make_learner):
    stage = Stage(name="head", cycles=3, patience=2)
    learner = make_learner(stage)
    seen = scripted_validation(learner, [1.0, 2.0, 3.0])
    run(learner, stage)
    assert_same(states_of(learner), seen[0])


def test_a_stage_whose_loss_keeps_falling_ends_at_three_times_its_epochs(make_learner):
    stage = Stage(name="all", train="all", cycles=2, patience=1)
    learner = make_learner(stage)
    scripted_validation(learner, [1 / (number + 1) for number in range(20)])
    assert sum(step.kind == "epoch" for step in run(learner, stage)) == 6


@pytest.mark.parametrize("cycles", [1, 2, 3])
@pytest.mark.parametrize(("cycle_len", "cycle_mult"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("patience", [None, 1, 2, 4])
def test_a_stage_takes_as_many_epochs_as_the_plan_says_at_the_fewest_and_at_the_most(
    make_learner, cycles, cycle_len, cycle_mult, patience
):
    stage = Stage(name="all", cycles=cycles, cycle_len=cycle_len, cycle_mult=cycle_mult, patience=patience)
    taken = []
    for losses in ([1.0 + number for number in range(99)], [0.9**number for number in range(99)]):
        learner = make_learner(stage)
        scripted_validation(learner, losses)
        taken.append(sum(step.kind == "epoch" for step in run(learner, stage)))
    assert tuple(taken) == possible_epochs(stage)


def test_patience_looks_at_cycle_ends_only(make_learner):
    stage = Stage(name="all", train="all", cycles=2, cycle_mult=2, patience=1)
    learner = make_learner(stage)
    seen = scripted_validation(learner, [3.0, 2.0, 9.0, 1.995])
    run(learner, stage)
    assert_same(states_of(learner), seen[3])


def test_without_patience_the_last_cycle_is_kept(make_learner):
    stage = Stage(name="all", train="all", cycles=3)
    learner = make_learner(stage)
    seen = scripted_validation(learner, [1.0, 5.0, 9.0])
    run(learner, stage)
    assert_same(states_of(learner), seen[2])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_raised_with_its_step(make_learner, bad):
    stage = Stage(name="fragile", cycles=3)
    learner = make_learner(stage)
    true_loss, calls = learner.loss, []

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return true_loss(logits, targets) * (bad if len(calls) == 5 else 1)

    learner.loss = loss
    with pytest.raises(DivergedError, match=r"'fragile'.*not finite at step 5\b"):
        run(learner, stage)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_equal_seeds_give_bit_identical_weights(make_learner, optimizer):
    stage = Stage(name="all", train="all", cycles=2)
    results = []
    for seed in (3, 3, 4):
        learner = make_learner(stage, seed=seed, name=optimizer)
        run(learner, stage)
        results.append(states_of(learner))
    assert_same(results[0], results[1])
    assert not torch.equal(results[0]["head.4.weight"], results[2]["head.4.weight"])


def test_training_from_activations_moves_the_head_alone(make_learner):
    stage = Stage(name="head", precompute=True)
    learner = make_learner(stage)
    generator = torch.Generator().manual_seed(5)
    activations = TensorBatches(torch.randn(20, 6, generator=generator), torch.arange(20) % 3, precomputed=True)
    before = states_of(learner)
    steps = list(fit(learner, stage, activations, activations))
    after = states_of(learner)
    assert [step.kind for step in steps] == ["batch"] * 3 + ["epoch", "cycle"]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("head.") for name in changed)


def test_a_batch_in_parts_is_the_step_of_the_whole_batch(make_learner: MakeLearner):
    frozen = Stage(name="full", train="all", freeze_batchnorm=True)
    rows = pixels(16)
    inputs, targets = rows.gather(torch.arange(16), None)
    states = []
    for parts in (1, 3):
        learner = make_learner(frozen, accumulate=parts, name="sgd")
        learner.set_lrs(1.0)
        learner.network.eval()  # no dropout, and the head's batch norm sees the same statistics
        learner.train_batch(inputs, targets, rows)
        states.append(states_of(learner))
    for name, weights in states[0].items():
        torch.testing.assert_close(states[1][name], weights, rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_to_the_norm(make_learner: MakeLearner):
    stage = Stage(name="full", train="all")
    rows = pixels(8)
    learner = make_learner(stage, clip_norm=1e-3, name="sgd", weight_decay=0)
    learner.base_lrs = [1.0] * len(learner.base_lrs)
    learner.set_lrs(1.0)
    before = {name: each.detach().clone() for name, each in learner.network.named_parameters()}
    learner.train_batch(*rows.gather(torch.arange(8), None), rows)
    moved = torch.cat([(each.detach() - before[name]).flatten() for name, each in learner.network.named_parameters()])
    assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("patience", [None, 3])
def test_a_validation_loss_that_is_no_number_ends_the_training(make_learner, bad, patience):
    stage = Stage(name="fragile", cycles=3, patience=patience)
    learner = make_learner(stage, 0.03)
    validate, calls = learner.validate, []

    def validated(batches: object) -> dict[str, float]:
        calls.append(1)
        return {**validate(batches), **({"loss": bad} if len(calls) == 2 else {})}

    learner.validate = validated
    wanted = r"'fragile': the validation loss is not finite after step \d+, at lr 0.03;.* --recipe.fragile.lr 0.003"
    with pytest.raises(DivergedError, match=wanted):
        run(learner, stage)
