"""Batch norms that no longer learn become part of the convolutions before them: a third less work to predict."""

from collections import Counter
from functools import partial
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from unfreeze.models.images.networks.backbones import Body

TOLERANCE = 1e-3
"""Largest change of the activations, as a share of the largest of them: more than rounding makes of deep networks."""


def fold_batch_norms(body: Body, size: int) -> int:
    """Multiply batch norms' scales into the convolutions whose output they alone take; returns how many there were.

    Pairs are found by watching one pass. If another pass does not give the same activations except for rounding,
    everything is put back: a network may use its layers in ways that a pass does not show.

    `body` is changed in place; it must be in evaluation mode on the CPU. `size` is the side of its images in pixels.
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
    """Names of convolutions and of batch norms that take their output, each of both running once; the activations."""
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
    """What a batch norm does besides: timm's also activates."""
    return nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
