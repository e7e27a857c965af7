import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.damage import DAMAGES
from tests.models.conftest import MakeLearner, assert_same, optimizer_states, pixels, states_of
from unfreeze.models.errors import UserError
from unfreeze.models.settings import Stage
from unfreeze.models.training.checkpoints import (
    Checkpoint,
    DamagedCheckpointError,
    capture,
    load_checkpoint,
    restore,
    restore_between_stages,
    save_checkpoint,
    without_initial,
)
from unfreeze.models.training.learner import Learner
from unfreeze.models.training.loop import Event, fit

RECIPE = [
    Stage(name="head", cycles=2),
    Stage(name="full", train="all", ratio=3, cycles=2, cycle_mult=2, patience=5),
]
LRS = [0.02, 0.05]
VALID = pixels(11, seed=1)
STAGE_WITH_PATIENCE = Stage(name="head", cycles=2, patience=5)
YIELDS = (3 + 2) * 2 + (3 + 2) + (6 + 3)
"""Of the whole recipe, should it run to its end."""


def train(learner: Learner, position: int) -> Iterator[Event]:
    """The rest of the recipe, from a learner prepared for (or restored into) stage `position`."""
    for number, stage in enumerate(RECIPE[position:], start=position):
        if number > position:
            learner.prepare(stage, number, LRS[number])
        yield from fit(learner, stage, pixels(20), VALID)


def told(step: Event) -> tuple[object, ...]:
    return (step.kind, step.step, step.epoch, step.cycle, step.lrs, float(step.loss), step.metrics)


def with_other_random_numbers(learner: Learner) -> Learner:
    torch.manual_seed(99)
    learner.generator.manual_seed(99)
    return learner


def saved(learner: Learner) -> Checkpoint:
    return without_initial(capture(learner), learner.initial_body)


def everything(learner: Learner) -> dict[str, torch.Tensor]:
    state = {f"optimizer/{name}": value for name, value in optimizer_states(learner).items()}
    random = {"torch": torch.get_rng_state(), "learner": learner.generator.get_state()}
    return {**states_of(learner), **state, **random}


@pytest.fixture(scope="module", params=["adamw", "sgd"])
def optimizer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, tuple[list[tuple[object, ...]], dict[str, torch.Tensor]]]:
    return {}


def whole_run(
    make_learner: MakeLearner,
    optimizer: str,
    uninterrupted: dict[str, tuple[list[tuple[object, ...]], dict[str, torch.Tensor]]],
) -> tuple[list[tuple[object, ...]], dict[str, torch.Tensor]]:
    if optimizer not in uninterrupted:
        learner = make_learner(RECIPE[0], LRS[0], name=optimizer)
        steps = [told(step) for step in train(learner, 0)]
        uninterrupted[optimizer] = steps, everything(learner)
    return uninterrupted[optimizer]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stop=st.integers(1, YIELDS))
def test_a_run_that_was_interrupted_anywhere_ends_as_if_it_had_not_been(
    make_learner, optimizer, uninterrupted, tmp_path, stop
):
    expected_steps, expected = whole_run(make_learner, optimizer, uninterrupted)
    learner = make_learner(RECIPE[0], LRS[0], name=optimizer)
    stop = min(stop, len(expected_steps))
    for _, _step in zip(range(stop), train(learner, 0), strict=False):
        pass
    save_checkpoint(learner, tmp_path / "state.safetensors")
    del learner

    checkpoint = load_checkpoint(tmp_path / "state.safetensors")
    resumed = with_other_random_numbers(make_learner(name=optimizer))
    resumed.prepare(RECIPE[checkpoint.stage], checkpoint.stage, LRS[checkpoint.stage])
    restore(resumed, checkpoint)
    steps = [told(step) for step in train(resumed, checkpoint.stage)]
    if expected_steps[stop - 1][0] == "epoch":  # the cycle's end was done with the epoch's
        stop += stop < len(expected_steps) and expected_steps[stop][0] == "cycle"
    assert steps == expected_steps[stop:]
    assert_same(everything(resumed), expected)


@pytest.mark.parametrize("stop", [1, 3, 4, 5])
def test_a_checkpoint_equals_what_it_was_captured_from(make_learner, tmp_path, stop):
    learner = make_learner(RECIPE[1], LRS[1])
    for _, _step in zip(range(stop), fit(learner, RECIPE[1], pixels(20), VALID), strict=False):
        pass
    captured = capture(learner)
    save_checkpoint(learner, tmp_path / "state.safetensors")
    loaded = load_checkpoint(tmp_path / "state.safetensors")
    assert_same(loaded.tensors, captured.tensors)
    assert loaded.position == captured.position
    assert (loaded.stage, loaded.finished) == (0, False)
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


def test_a_checkpoint_does_not_change_when_training_continues(make_learner):
    learner = make_learner(RECIPE[1], LRS[1])
    steps = fit(learner, RECIPE[1], pixels(20), VALID)
    next(steps)
    checkpoint = capture(learner)
    copies = {name: tensor.clone() for name, tensor in checkpoint.tensors.items()}
    next(steps)
    assert_same(checkpoint.tensors, copies)


def test_what_learns_and_in_which_groups_is_held(make_learner, tmp_path):
    stage = Stage(name="late", train="late", freeze_batchnorm=True, lrs=[1e-4, 1e-3, 3e-3, 1e-2])
    learner = make_learner(stage)
    save_checkpoint(learner, tmp_path / "state.safetensors")
    position = load_checkpoint(tmp_path / "state.safetensors").position
    assert [group["name"] for group in position["groups"]] == ["body-2", "head"]
    assert position["base_lrs"] == [3e-3, 1e-2]
    resumed = make_learner(stage)
    resumed.network.requires_grad_(True)
    restore(resumed, load_checkpoint(tmp_path / "state.safetensors"))
    trainable = {name for name, parameter in resumed.network.named_parameters() if parameter.requires_grad}
    assert trainable == {name for name, parameter in learner.network.named_parameters() if parameter.requires_grad}
    assert "body.blocks.3.0.weight" in trainable
    assert "body.blocks.3.1.weight" not in trainable


def test_a_checkpoint_is_a_plain_safetensors_file(make_learner, tmp_path):
    learner = make_learner(RECIPE[0])
    save_checkpoint(learner, tmp_path / "state.safetensors")
    tensors = load_file(tmp_path / "state.safetensors")
    network = {name.removeprefix("network/"): value for name, value in tensors.items() if name.startswith("network/")}
    assert_same(network, {name: value for name, value in states_of(learner).items() if name.startswith("head.")})
    with safe_open(tmp_path / "state.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["position"])["epoch"] == 0


def test_a_finished_stage_hands_on_its_best_weights(make_learner, tmp_path):
    stage = Stage(name="all", train="all", cycles=3, patience=1)
    learner = make_learner(stage)
    losses = iter([3.0, 1.0, 2.0])
    best: list[dict[str, torch.Tensor]] = []

    def validate(_: object) -> dict[str, float]:
        best.append(states_of(learner))
        return {"loss": next(losses)}

    learner.validate = validate
    for step in fit(learner, stage, pixels(20), VALID):
        if step.kind == "cycle" and step.cycle == 2:
            save_checkpoint(learner, tmp_path / "state.safetensors")
    checkpoint = load_checkpoint(tmp_path / "state.safetensors")
    assert checkpoint.finished
    following = make_learner(seed=1)
    restore_between_stages(following, checkpoint)
    assert_same(states_of(following), best[1])
    assert following.progress.step == 6


@pytest.mark.parametrize("damage", [*DAMAGES, lambda path: path.write_bytes(b"no checkpoint")])
def test_a_damaged_checkpoint_is_refused(make_learner, tmp_path, damage):
    path = tmp_path / "state.safetensors"
    save_checkpoint(make_learner(RECIPE[0]), path)
    damage(path)
    with pytest.raises(DamagedCheckpointError, match=r"state\.safetensors: not a checkpoint, or damaged"):
        load_checkpoint(path)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_bit_that_flipped_anywhere_is_noticed(make_learner, tmp_path, where, bit):
    path = tmp_path / "state.safetensors"
    if not path.exists():
        save_checkpoint(make_learner(RECIPE[1]), path)
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1 << bit
    flipped = tmp_path / "flipped.safetensors"
    flipped.write_bytes(content)
    with pytest.raises(DamagedCheckpointError):
        load_checkpoint(flipped)


def test_a_checkpoint_leaves_out_the_frozen_body_and_is_whole_again_with_it(make_learner, tmp_path):
    learner = make_learner(STAGE_WITH_PATIENCE)
    for _ in fit(learner, STAGE_WITH_PATIENCE, pixels(20), VALID):
        pass
    checkpoint = saved(learner)
    assert not [name for name in checkpoint.tensors if "body." in name]
    assert_same(checkpoint.whole("network", make_learner().network.state_dict()), states_of(learner))
    resumed = make_learner(STAGE_WITH_PATIENCE)
    restore(resumed, checkpoint)
    assert_same(everything(resumed), everything(learner))


def test_the_best_weights_leave_out_the_frozen_body_as_well(make_learner):
    learner = make_learner(STAGE_WITH_PATIENCE)
    for _, _step in zip(range(9), fit(learner, STAGE_WITH_PATIENCE, pixels(20), VALID), strict=False):
        pass
    best = {name: tensor.clone() for name, tensor in learner.progress.best.items()}
    checkpoint = saved(learner)
    assert checkpoint.part("best")
    assert not [name for name in checkpoint.tensors if "body." in name]
    resumed = make_learner(STAGE_WITH_PATIENCE)
    restore(resumed, checkpoint)
    assert_same(resumed.progress.best, best)


def test_a_body_that_trained_is_held(make_learner):
    stage = Stage(name="late", train="late", freeze_batchnorm=True)
    learner = make_learner(stage, 0.05)
    for _ in fit(learner, stage, pixels(20), VALID):
        pass
    held = {name for name in saved(learner).part("network") if name.startswith("body.")}
    assert "body.blocks.3.0.weight" in held
    assert "body.blocks.0.0.weight" not in held


def test_other_pretrained_weights_than_those_that_were_left_out_are_refused(make_learner):
    checkpoint = saved(make_learner(RECIPE[0]))
    learner = make_learner(RECIPE[0], seed=1)
    before = states_of(learner)
    with pytest.raises(UserError, match=r"initial weights.*blocks\.0.*changed"):
        restore(learner, checkpoint)
    assert_same(states_of(learner), before)


def test_other_safetensors_are_refused(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "weights.safetensors")


def test_a_checkpoint_of_another_format_is_refused(tmp_path):
    position = {"position": json.dumps({"format": 99})}
    save_file({"weight": torch.zeros(2)}, tmp_path / "state.safetensors", metadata=position)
    with pytest.raises(UserError, match="checkpoint format 99"):
        load_checkpoint(tmp_path / "state.safetensors")


@pytest.mark.parametrize("other", [Stage(name="a", train="all"), Stage(name="a", train="late", lrs=[0.1] * 4)])
def test_a_checkpoint_of_other_layer_groups_is_refused(make_learner, other):
    checkpoint = capture(make_learner(Stage(name="a", train="late")))
    learner = make_learner(other, seed=1)
    before = states_of(learner)
    with pytest.raises(ValueError, match="layer groups"):
        restore(learner, checkpoint)
    assert_same(states_of(learner), before)


def test_a_write_that_fails_leaves_the_old_checkpoint(make_learner, tmp_path, monkeypatch):
    path: Path = tmp_path / "state.safetensors"
    learner = make_learner(RECIPE[0])
    save_checkpoint(learner, path)
    content = path.read_bytes()

    def fail(_tensors: object, target: Path, **_: object) -> None:
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("unfreeze.models.training.checkpoints.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(learner, path)
    assert path.read_bytes() == content


def test_no_best_loss_yet_survives_the_file(make_learner, tmp_path):
    save_checkpoint(make_learner(RECIPE[1]), tmp_path / "state.safetensors")
    resumed = make_learner(RECIPE[1])
    restore(resumed, load_checkpoint(tmp_path / "state.safetensors"))
    assert resumed.progress.best_loss == math.inf
    assert resumed.progress.best is None
