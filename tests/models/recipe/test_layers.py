import pytest
import torch

from unfreeze.models.recipe.summary import summarise_layers
from unfreeze.models.settings import Stage

IMAGES = torch.zeros(2, 3, 32, 32)


def summary(tiny_recipe, **settings):
    learner, stage = tiny_recipe.learner(), Stage(name="x", find_lr=True, **settings)
    rows = summarise_layers(learner, stage, 0, stage.lr, IMAGES)
    return learner.network, rows


def test_every_parameter_is_counted_once_and_layers_are_in_their_order(tiny_recipe):
    network, rows = summary(tiny_recipe, train="all")
    assert sum(row["parameters"] for row in rows) == sum(parameter.numel() for parameter in network.parameters())
    assert rows[0]["output"].count("x") == 2
    assert rows[-1]["layer"].startswith("head.")
    assert rows[-1]["output"] == str(network(IMAGES).shape[1])


def test_a_frozen_body_has_no_lr_and_its_head_the_stages(tiny_recipe):
    _, rows = summary(tiny_recipe, train="head", lr=0.01)
    with_weights = [row for row in rows if row["parameters"]]
    assert {(row["group"], row["trains"], row["lr"]) for row in with_weights} == {
        ("early", "no", ""),
        ("late", "no", ""),
        ("head", "yes", "0.01"),
    }
    assert all(row["trains"] == "" for row in rows if not row["parameters"])


def test_an_lr_that_is_to_be_found_is_shown_relative_to_the_heads(tiny_recipe):
    _, rows = summary(tiny_recipe, train="all", ratio=10)
    assert {(row["group"], row["lr"]) for row in rows if row["trains"]} == {
        ("early", "head's / 100"),
        ("late", "head's / 10"),
        ("head", "head's"),
    }


@pytest.mark.parametrize("lrs", [[1e-4, 1e-3], [1e-5, 1e-4, 1e-3, 1e-2]])
def test_explicit_lrs_are_shown_as_they_are(tiny_recipe, lrs):
    _, rows = summary(tiny_recipe, train="all", lrs=lrs)
    assert {float(row["lr"]) for row in rows if row["trains"]} == set(lrs)


def test_frozen_batch_norm_does_not_train(tiny_recipe):
    _, rows = summary(tiny_recipe, train="all", freeze_batchnorm=True)
    norms = [row for row in rows if "BatchNorm" in row["kind"] and row["layer"].startswith("body.")]
    assert norms
    assert {row["trains"] for row in norms} == {"no"}
