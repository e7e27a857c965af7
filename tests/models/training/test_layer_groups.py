import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn

from tests.models.conftest import MakeLearner, assert_same, pixels, states_of, tiny_network
from unfreeze.models.settings import Stage
from unfreeze.models.training.loop import fit
from unfreeze.models.training.network import Network, freeze_all_but, group_lrs, layer_groups, set_modes, trained_groups


def deep_network(blocks: int) -> Network:
    layers = [nn.Linear(2, 2) for _ in range(blocks)]
    names = [[f"{number}.weight", f"{number}.bias"] for number in range(blocks)]
    return Network(nn.Sequential(*layers), nn.Linear(2, 2), names, early_blocks=1)


def blocks_in(group: tuple[str, ...]) -> list[int]:
    return sorted({int(name.split(".")[1]) for name in group})


@given(lr=st.floats(1e-6, 1), ratio=st.floats(1, 100), count=st.integers(1, 8))
def test_each_earlier_group_learns_more_slowly_by_the_ratio(lr, ratio, count):
    lrs = group_lrs(lr, ratio, count)
    assert lrs == pytest.approx([lr / ratio ** (count - 1 - group) for group in range(count)])
    assert lrs[-1] == lr


def test_three_groups_are_the_early_blocks_the_late_blocks_and_the_head():
    early, late, head = layer_groups(tiny_network())
    assert [early.name, late.name, head.name] == ["early", "late", "head"]
    assert {name.split(".")[2] for name in early.parameters} == {"0", "1", "2"}
    assert {name.split(".")[2] for name in late.parameters} == {"3"}
    assert all(name.startswith("head.") for name in head.parameters)


@given(blocks=st.integers(2, 12), count=st.integers(2, 13))
def test_every_parameter_is_in_exactly_one_group(blocks, count):
    network = deep_network(blocks)
    if count - 1 > blocks:
        with pytest.raises(ValueError, match=f"{blocks} blocks"):
            layer_groups(network, count)
        return
    groups = layer_groups(network, count)
    assert len(groups) == count
    assert all(group.parameters for group in groups)
    names = [name for group in groups for name in group.parameters]
    assert sorted(names) == sorted(name for name, _ in network.named_parameters())


@given(blocks=st.integers(3, 12), parts=st.integers(3, 12))
def test_more_rates_are_spread_evenly_over_the_body_in_order(blocks, parts):
    parts = min(parts, blocks)
    body = [blocks_in(group.parameters) for group in layer_groups(deep_network(blocks), parts + 1)[:-1]]
    assert [block for group in body for block in group] == list(range(blocks))
    assert max(map(len, body)) - min(map(len, body)) <= 1


def test_one_rate_for_the_body_makes_two_groups():
    assert [group.name for group in layer_groups(tiny_network(), 2)] == ["body", "head"]


def test_less_than_two_groups_are_refused():
    with pytest.raises(ValueError):
        layer_groups(tiny_network(), 1)


@pytest.mark.parametrize(
    ("train", "expected"), [("head", ["head"]), ("late", ["late", "head"]), ("all", ["early", "late", "head"])]
)
def test_a_stage_trains_the_groups_it_names(train, expected):
    network = tiny_network()
    groups = trained_groups(layer_groups(network), train)
    assert [group.name for group in groups] == expected
    freeze_all_but(network, groups)
    trainable = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trainable == {name for group in groups for name in group.parameters}


def test_the_late_half_of_four_parts_is_two_parts():
    names = [group.name for group in trained_groups(layer_groups(deep_network(4), 5), "late")]
    assert names == ["body-2", "body-3", "head"]


def test_a_list_of_rates_maps_one_to_one(make_learner):
    learner = make_learner(Stage(name="a", train="all", lrs=[1e-4, 2e-4, 5e-4, 1e-3]))
    assert learner.set_lrs(1) == {"body-0": 1e-4, "body-1": 2e-4, "body-2": 5e-4, "head": 1e-3}


def test_a_list_of_rates_for_the_head_alone_gives_it_the_last(make_learner):
    assert make_learner(Stage(name="a", train="head", lrs=[1e-4, 2e-4, 1e-3])).set_lrs(1) == {"head": 1e-3}


def test_one_rate_and_a_ratio_give_every_parameter_its_rate(make_learner):
    learner = make_learner(Stage(name="a", train="all", ratio=10), lr=0.1)
    assert learner.set_lrs(0.5) == pytest.approx({"early": 0.0005, "late": 0.005, "head": 0.05})
    lr_of = {parameter: group["lr"] for group in learner.optimizer.param_groups for parameter in group["params"]}
    by_name = {name: lr_of[parameter] for name, parameter in learner.network.named_parameters()}
    assert by_name["body.blocks.0.0.weight"] == by_name["body.blocks.2.1.bias"] == pytest.approx(0.0005)
    assert by_name["body.blocks.3.0.weight"] == pytest.approx(0.005)
    assert by_name["head.1.weight"] == pytest.approx(0.05)


def test_weight_decay_leaves_norms_and_biases_alone(make_learner):
    learner = make_learner(Stage(name="a", train="all"), weight_decay=0.3)
    decay_of = {
        parameter: group["weight_decay"] for group in learner.optimizer.param_groups for parameter in group["params"]
    }
    by_name = {name: decay_of[parameter] for name, parameter in learner.network.named_parameters()}
    assert {name for name, decay in by_name.items() if decay == 0.3} == {
        *(f"body.blocks.{number}.0.weight" for number in range(4)),
        "head.1.weight",
        "head.4.weight",
    }
    assert set(by_name.values()) == {0.0, 0.3}


def test_training_the_head_leaves_the_body_and_its_statistics_untouched(make_learner):
    stage = Stage(name="head", cycles=1)
    learner = make_learner(stage)
    before = states_of(learner)
    for _ in fit(learner, stage, pixels(24), pixels(10, seed=1)):
        pass
    after = states_of(learner)
    assert_same(*({name: value for name, value in state.items() if "body" in name} for state in (before, after)))
    assert not torch.equal(before["head.0.running_mean"], after["head.0.running_mean"])
    assert not torch.equal(before["head.4.weight"], after["head.4.weight"])


def test_training_the_late_half_leaves_early_statistics_untouched(make_learner):
    stage = Stage(name="late", train="late")
    learner = make_learner(stage)
    before = states_of(learner)
    for _ in fit(learner, stage, pixels(24), pixels(10, seed=1)):
        pass
    after = states_of(learner)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "body.blocks.3.1.running_mean" in changed
    assert not any(name.startswith(f"body.blocks.{number}.") for name in changed for number in (0, 1, 2))


def test_frozen_batch_norms_keep_weights_and_statistics_in_unfrozen_layers(make_learner):
    stage = Stage(name="all", train="all", freeze_batchnorm=True)
    learner = make_learner(stage)
    before = states_of(learner)
    for _ in fit(learner, stage, pixels(24), pixels(10, seed=1)):
        pass
    after = states_of(learner)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any(name.startswith("body.") and name.split(".")[3] == "1" for name in changed)
    assert {f"body.blocks.{number}.0.weight" for number in range(4)} <= changed
    assert "head.0.running_mean" in changed


def test_what_is_frozen_is_in_evaluation_mode():
    network = tiny_network()
    freeze_all_but(network, trained_groups(layer_groups(network), "late"))
    set_modes(network.eval())
    modes = {name: module.training for name, module in network.named_modules()}
    assert modes["body.blocks.0.1"] is modes["body.blocks.2"] is False
    assert modes["body.blocks.3.1"] is modes["head.0"] is modes["head.3"] is True


def test_dropout_in_a_frozen_body_is_off_and_in_a_learning_one_on():
    body = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.5)))
    network = Network(body, nn.Linear(2, 2), [["0.weight", "0.bias"]], 1)
    for train, expected in (("head", False), ("all", True)):
        freeze_all_but(network, trained_groups(layer_groups(network, 2), train))
        set_modes(network)
        assert body[1].training is body[1][0].training is expected
        assert network.head.training


def test_layer_decay_gives_every_block_a_share_of_the_next_ones_lr(make_learner: MakeLearner):
    learner = make_learner(Stage(name="full", train="all", layer_decay=0.5), lr=0.08)
    assert [group.name for group in learner.groups] == ["block-0", "block-1", "block-2", "block-3", "head"]
    assert learner.base_lrs == [0.005, 0.01, 0.02, 0.04, 0.08]
    late = make_learner(Stage(name="late", train="late", layer_decay=0.5), lr=0.08)
    assert late.base_lrs == [0.02, 0.04, 0.08]
