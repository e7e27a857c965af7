import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.models.conftest import MakeLearner, assert_same, optimizer_states, pixels, states_of
from unfreeze.models.errors import UserError
from unfreeze.models.specs import Stage
from unfreeze.models.training.checkpoints import (
    capture,
    load_checkpoint,
    restore,
    restore_between_stages,
    save_checkpoint,
)
from unfreeze.models.training.learner import Learner
from unfreeze.models.training.loop import Step, fit

RECIPE = [
    Stage(name="head", cycles=2),
    Stage(name="full", train="all", ratio=3, cycles=2, cycle_mult=2, patience=5),
]
LRS = [0.02, 0.05]
VALID = pixels(11, seed=1)
YIELDS = (3 + 2) * 2 + (3 + 2) + (6 + 3)
"""Of the whole recipe, should it run to its end."""


def train(learner: Learner, position: int) -> Iterator[Step]:
    """The rest of the recipe, from a learner prepared for (or restored into) stage `position`."""
    for number, stage in enumerate(RECIPE[position:], start=position):
        if number > position:
            learner.prepare(stage, number, LRS[number])
        yield from fit(learner, stage, pixels(20), VALID)


def told(step: Step) -> tuple[object, ...]:
    return (step.kind, step.step, step.epoch, step.cycle, step.lrs, float(step.loss), step.metrics)


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


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    resumed = make_learner(name=optimizer, seed=99)
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
    resumed = make_learner(stage, seed=1)
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
    assert_same(network, states_of(learner))
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

    learner.validate = validate  # type: ignore[method-assign, assignment]
    for step in fit(learner, stage, pixels(20), VALID):
        if step.kind == "cycle" and step.cycle == 2:
            save_checkpoint(learner, tmp_path / "state.safetensors")
    checkpoint = load_checkpoint(tmp_path / "state.safetensors")
    assert checkpoint.finished
    following = make_learner(seed=1)
    restore_between_stages(following, checkpoint)
    assert_same(states_of(following), best[1])
    assert following.progress.step == 6


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_damaged_checkpoint_is_refused(make_learner, tmp_path, content):
    path = tmp_path / "state.safetensors"
    save_checkpoint(make_learner(RECIPE[0]), path)
    path.write_bytes(path.read_bytes()[:-50] if content is None else content)
    with pytest.raises(UserError, match=r"state\.safetensors: not a checkpoint, or damaged"):
        load_checkpoint(path)


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
