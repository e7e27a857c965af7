"""Folding of frozen batch norms into the preceding convolutions: a third less work per prediction."""

from collections import Counter
from functools import partial
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from unfreeze.models.images.networks.backbones import Body

TOLERANCE = 1e-3
"""Largest relative change of the activations (of their maximum); above the rounding error of deep networks."""


def fold_batch_norms(body: Body, size: int) -> int:
    """Fold batch norms into the convolutions that feed only them; returns the number of folded pairs.

    Pairs are found by hooks in one pass. If a second pass does not reproduce the activations to within rounding,
    everything is restored: a network may use its layers in ways that hooks do not show.

    `body` is changed in place; it must be in evaluation mode on the CPU. `size` is the image side in pixels.
    """
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    modules = dict(body.named_modules())
    with torch.inference_mode():
        pairs, before = _watched(body, images)
    for conv, norm in pairs:
        body.set_submodule(conv, fuse_conv_bn_eval(modules[conv], modules[norm]))
        body.set_submodule(norm, _activation_of(modules[norm]))
    with torch.inference_mode():
        if (body(images) - before).abs().max() <= TOLERANCE * before.abs().max():
            return len(pairs)
    for name in (name for pair in pairs for name in pair):
        body.set_submodule(name, modules[name])
    return 0


def _watched(body: Body, images: Tensor) -> tuple[list[tuple[str, str]], Tensor]:
    """Names of (convolution, batch norm) pairs that each run once, and the activations."""
    calls: Counter[str] = Counter()
    pairs: list[tuple[str, str]] = []

    def conv_ran(name: str, _conv: nn.Module, _inputs: Any, output: Any) -> None:
        calls[name] += 1
        output.made_by = name

    def norm_runs(name: str, _norm: nn.Module, inputs: Any) -> None:
        calls[name] += 1
        pairs.append((getattr(inputs[0], "made_by", ""), name))

    hooks = []
    for name, module in body.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(partial(conv_ran, name)))
        elif type(module) in (nn.BatchNorm2d, BatchNormAct2d) and isinstance(module.running_mean, Tensor):
            hooks.append(module.register_forward_pre_hook(partial(norm_runs, name)))
    try:
        activations = body(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [pair for pair in pairs if calls[pair[0]] == 1 == calls[pair[1]]], activations


def _activation_of(norm: nn.Module) -> nn.Module:
    """The remaining part of a timm batch norm: dropout and activation."""
    return nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
