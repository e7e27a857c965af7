"""Batch norms that no longer learn become part of the convolutions before them: a third less work to predict."""

from collections.abc import Callable
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from unfreeze.models.images.backbones import Body

TOLERANCE = 1e-3
"""Largest change of the activations, as a share of the largest of them: more than rounding makes of deep networks."""


def fold_batch_norms(body: Body, size: int) -> int:
    """Multiply batch norms' scales into the convolutions whose output they alone take; returns how many there were.

    A batch norm in evaluation mode is a scale and a shift per channel, for which the activations would have to be read
    and written once more. Pairs are found by watching one pass. If another pass does not give the same activations
    except for rounding, everything is put back: a network may use its layers in ways that a pass does not show.

    Parameters
    ----------
    body
        In evaluation mode on the CPU; changed in place.
    size
        Side of the images that it will see, in pixels.
    """
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        pairs, before = _watched(body, images)
    kept = [(conv.weight, conv.bias) for conv, _, _ in pairs]
    for conv, norm, name in pairs:
        conv.weight, conv.bias = _folded(conv, norm)
        body.set_submodule(name, _rest_of(norm))
    with torch.inference_mode():
        same = _are_close(body(images), before)
    if same:
        return len(pairs)
    for (conv, norm, name), (weight, bias) in zip(pairs, kept, strict=True):
        conv.weight, conv.bias = weight, bias
        body.set_submodule(name, norm)
    return 0


Pair = tuple[nn.Conv2d, nn.BatchNorm2d, str]
"""A convolution, the batch norm that takes its output, and the name of the latter."""


def _watched(body: Body, images: Tensor) -> tuple[list[Pair], Tensor]:
    """Which batch norms take a convolution's output, each of both running once; and the activations."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # the tensor is kept, so that its id stays its own
    calls: dict[nn.Module, int] = {}
    found: list[Pair] = []

    def conv_ran(conv: nn.Module, _inputs: Any, output: Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        calls[conv] = calls.get(conv, 0) + 1
        made[id(output)] = (conv, output)

    def norm_runs(name: str) -> Callable[[nn.Module, Any], None]:
        def hook(norm: nn.Module, inputs: Any) -> None:
            calls[norm] = calls.get(norm, 0) + 1
            conv, _ = made.get(id(inputs[0]), (None, None))
            if conv is not None and isinstance(norm, nn.BatchNorm2d):
                found.append((conv, norm, name))

        return hook

    hooks = []
    for name, module in body.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(conv_ran))
        elif type(module) in (nn.BatchNorm2d, BatchNormAct2d) and isinstance(module.running_mean, Tensor):
            hooks.append(module.register_forward_pre_hook(norm_runs(name)))
    try:
        activations = body(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [pair for pair in found if calls[pair[0]] == 1 == calls[pair[1]]], activations


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[nn.Parameter, nn.Parameter]:
    """Weight and bias of the two in one, computed in double precision."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    if conv.bias is not None:
        shift = shift + conv.bias.double() * scale
    weight = (conv.weight.double() * scale.view(-1, 1, 1, 1)).to(conv.weight.dtype)
    return nn.Parameter(weight.detach(), False), nn.Parameter(shift.to(conv.weight.dtype).detach(), False)


def _rest_of(norm: nn.BatchNorm2d) -> nn.Module:
    """What a batch norm does besides: timm's also activates."""
    return nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()


def _are_close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= TOLERANCE * other.abs().max())
