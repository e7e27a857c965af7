from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn

from tests.models.conftest import TensorBatches
from unfreeze.models.images.distance import UNLIKE, distance_to_pretraining, read_distance, with_ratios, write_distance
from unfreeze.models.specs import Stage, TrainImages


def normed(mean: float = 0.0, deviation: float = 1.0) -> nn.Sequential:
    """A body whose pretraining had channels of this mean and standard deviation."""
    norm = nn.BatchNorm2d(3, eps=0)
    norm.running_mean.fill_(mean)
    norm.running_var.fill_(deviation**2)
    return nn.Sequential(norm)


def images(mean: float = 0.0, deviation: float = 1.0, count: int = 40) -> TensorBatches:
    """Images whose pixels have exactly this mean and standard deviation."""
    pixels = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    deviations, means = torch.std_mean(pixels, dim=(0, 2, 3), correction=0, keepdim=True)
    return TensorBatches(((pixels - means) / deviations * deviation + mean).float(), torch.zeros(count))


@given(st.floats(-3, 3), st.floats(0.2, 4), st.floats(-3, 3), st.floats(0.2, 4))
def test_it_is_the_divergence_of_normal_distributions(mean, deviation, known_mean, known_deviation):
    one = torch.distributions.Normal(torch.tensor(mean, dtype=torch.float64), deviation)
    other = torch.distributions.Normal(torch.tensor(known_mean, dtype=torch.float64), known_deviation)
    divergence = torch.distributions.kl_divergence
    expected = float(divergence(one, other) + divergence(other, one)) / 2
    found = distance_to_pretraining(normed(known_mean, known_deviation), images(mean, deviation))
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_it_does_not_change_the_body():
    body = normed(0.5, 2).train()
    before = {name: tensor.clone() for name, tensor in body.state_dict().items()}
    distance_to_pretraining(body, images(3))
    assert all(torch.equal(tensor, before[name]) for name, tensor in body.state_dict().items())
    assert not body[0]._forward_pre_hooks


def test_a_body_without_batch_norms_has_none():
    assert distance_to_pretraining(nn.Sequential(nn.GroupNorm(1, 3)), images()) is None


def test_the_ratio_follows_from_it_unless_a_stage_has_one(tmp_path: Path):
    training = TrainImages(
        recipe=[Stage(name="own", train="all", ratio=5, lr=1), Stage(name="open", train="all", lr=1)]
    )
    for distance, ratio in ((None, 10), (UNLIKE * 0.99, 10), (UNLIKE, 3), (np.pi, 3)):
        write_distance(tmp_path / "distance.json", distance)
        measured = read_distance(str(tmp_path / "distance.json"))
        assert measured == distance
        assert [stage.ratio for stage in with_ratios(training, measured).recipe] == [5, ratio]
