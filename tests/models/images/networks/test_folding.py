import copy

import pytest
import torch
from torch import nn

from unfreeze.models.images.networks import backbones
from unfreeze.models.images.networks.backbones import Body, fold_batch_norms, load_body
from unfreeze.models.settings import ModelSpec


def body_of(backbone: str, size: int = 64) -> Body:
    """A body whose batch norms have something to do."""
    torch.manual_seed(0)
    body = load_body(ModelSpec(backbone=backbone, weights="none"), [size])
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return body


def activations(body: Body, size: int = 64) -> torch.Tensor:
    with torch.inference_mode():
        return body(torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2", "timm/test_resnet", "timm/test_efficientnet"])
def test_every_batch_norm_after_a_convolution_is_folded_and_changes_nothing(backbone):
    body = body_of(backbone)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in body.modules())
    before = activations(body)
    assert fold_batch_norms(body, 64) == norms
    assert not any(isinstance(module, nn.BatchNorm2d) for module in body.modules())
    torch.testing.assert_close(activations(body), before, rtol=1e-4, atol=1e-4)


def test_batch_norms_before_a_convolution_stay():
    body = body_of("densenet121")
    before = activations(body)
    folded = fold_batch_norms(body, 64)
    left = sum(isinstance(module, nn.BatchNorm2d) for module in body.modules())
    assert folded + left == 121
    assert 0 < folded < 121
    torch.testing.assert_close(activations(body), before, rtol=1e-4, atol=1e-4)


def test_a_network_without_batch_norms_is_left_as_it_is():
    body = body_of("timm/test_vit", 160)
    assert fold_batch_norms(body, 160) == 0


def test_everything_is_put_back_where_the_activations_would_change(monkeypatch):
    body = body_of("timm/test_resnet")
    before, state = activations(body), {name: tensor.clone() for name, tensor in body.state_dict().items()}

    def double(conv: nn.Conv2d, _norm: nn.Module) -> nn.Conv2d:
        doubled = copy.deepcopy(conv)
        doubled.weight.data *= 2
        return doubled

    monkeypatch.setattr(backbones, "fuse_conv_bn_eval", double)
    assert fold_batch_norms(body, 64) == 0
    assert torch.equal(activations(body), before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in body.state_dict().items())
