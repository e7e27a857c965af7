import math

import pytest
import torch
from torch import nn

from tests.models.conftest import TINY_MODEL
from unfreeze.models.images.networks.classifier import build_classifier, build_head, normalise
from unfreeze.models.images.networks.weights import Preprocessing


def test_the_head_is_the_courses():
    head = build_head(features=40, classes=7)
    kinds = [nn.BatchNorm1d, nn.Dropout, nn.Linear, nn.ReLU, nn.BatchNorm1d, nn.Dropout, nn.Linear]
    assert [type(layer) for layer in head] == kinds
    assert (head[0].num_features, head[1].p, head[2].in_features, head[2].out_features) == (40, 0.25, 40, 512)
    assert (head[4].num_features, head[5].p, head[6].in_features, head[6].out_features) == (512, 0.5, 512, 7)


def test_width_and_dropout_of_the_head_follow_the_spec():
    head = build_classifier(
        TINY_MODEL.model_copy(update={"head_width": 24, "dropout": 0.2}), 3, seed=0, sizes=[32]
    ).head
    assert isinstance(head, nn.Sequential)
    assert [layer.p for layer in head if isinstance(layer, nn.Dropout)] == [0.1, 0.2]
    assert [layer.out_features for layer in head if isinstance(layer, nn.Linear)] == [24, 3]


def test_the_weights_of_the_head_are_drawn_as_he_et_al_do():
    torch.manual_seed(0)
    hidden = build_head(features=1000, classes=2)[2]
    assert float(hidden.weight.detach().std()) == pytest.approx(math.sqrt(2 / 1000), rel=0.02)
    assert float(hidden.weight.detach().mean()) == pytest.approx(0, abs=1e-3)
    assert not hidden.bias.any()


def test_a_seed_decides_the_new_weights_and_nothing_else_does():
    states = []
    for own, seed in ((1, 5), (2, 5), (1, 6)):
        torch.manual_seed(own)
        states.append(build_classifier(TINY_MODEL, 3, seed, [32]).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["head.6.weight"], states[2]["head.6.weight"])


def test_building_leaves_the_global_random_numbers_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    build_classifier(TINY_MODEL, 3, seed=5, sizes=[32])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_classifier_gives_one_logit_per_class():
    network = build_classifier(TINY_MODEL, 4, seed=0, sizes=[32]).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


def test_normalised_pixels_are_what_the_weights_saw():
    preprocessing = Preprocessing((0.5, 0.25, 0.0), (0.5, 0.25, 2.0), "bilinear", 32)
    images = torch.tensor([1.0, 0.5, 1.0]).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    result = normalise(images, preprocessing)
    assert result[0, :, 0, 0].tolist() == [1.0, 1.0, 0.5]
    assert result.is_contiguous(memory_format=torch.channels_last)
