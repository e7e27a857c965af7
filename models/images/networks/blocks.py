"""Parameter blocks of a network in forward order, and shape tracing."""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from timm.models import group_parameters
from torch import Tensor, nn

_GROUPS = {"stem": r"^(?:stem|patch_embed|pos_embed|cls_token)", "blocks": r"^\D*(\d+)"}
"""Fallback for timm models without a group matcher: by the first number in a parameter's name."""


class Trace(NamedTuple):
    """Shapes and parameters seen in one forward pass."""

    output: Any
    """Output of ``forward_features``, on the meta device."""
    sides: dict[str, int | None]
    """Output side of each module that ran, in the order of completion."""
    used: set[str]
    """Parameters that the output depends on."""


def trace(network: nn.Module, size: int) -> Trace:
    """Run a copy of the network on the meta device, where tensors have a shape but no content.

    The copy keeps hooks and cached state out of the original.
    """
    twin = copy.deepcopy(network).to("meta")
    sides: dict[str, int | None] = {}

    def remember(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        sides.pop(name, None)
        sides[name] = _side(output)

    for name, module in twin.named_modules():
        module.register_forward_hook(partial(remember, name))
    with torch.enable_grad():
        output = twin.forward_features(torch.zeros(2, 3, size, size, device="meta"))  # type: ignore[operator]
    # Walk up the autograd graph: much faster than a backward pass.
    ahead, steps = [getattr(output, "grad_fn", None)], set[Any]()
    while ahead:
        if (step := ahead.pop()) is not None and step not in steps:
            steps.add(step)
            ahead += [above for above, _ in step.next_functions]
    leaves = {step.variable for step in steps if hasattr(step, "variable")}
    return Trace(output, sides, {name for name, parameter in twin.named_parameters() if parameter in leaves})


def _side(output: Any) -> int | None:
    """Side of a feature map (shape[2] in both NCHW and NHWC), or of the square that tokens form."""
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    if not isinstance(output, Tensor) or output.ndim not in (3, 4):
        return None
    if output.ndim == 4:
        return output.shape[2]
    return math.isqrt(output.shape[1]) if output.shape[1] > 1 else None  # a single token is a class token


def remove_unused(network: nn.Module, used: set[str]) -> None:
    """Remove parameters not in `used`, and empty the modules left without parameters."""
    kept = {parameter for name, parameter in network.named_parameters() if name in used}
    for name, module in reversed(list(network.named_modules())):
        parameters = set(module.parameters())
        if parameters and not parameters & kept:
            network.set_submodule(name, nn.Identity())
    for name in {name for name, _ in network.named_parameters()} - used:
        module, _, own = name.rpartition(".")
        network.get_submodule(module).register_parameter(own, None)


def parameter_groups(network: nn.Module) -> list[list[str]]:
    """Parameter names per block, in forward order."""
    matcher: Any = _GROUPS
    if hasattr(network, "group_matcher"):
        matcher = cast(Callable[..., Any], network.group_matcher)(coarse=True)
    groups = group_parameters(network, matcher)
    return [list(names) for names in (groups if len(groups) > 1 else group_parameters(network, _GROUPS)).values()]


def block_names(groups: list[list[str]]) -> list[str]:
    """``stem``, then for each group the shortest module name that is unique to it."""
    names = ["stem"]
    for position, (first, *_) in enumerate(groups[1:], start=1):
        others = [name for place, group in enumerate(groups) if place != position for name in group]
        parts = first.split(".")
        prefixes = [".".join(parts[:depth]) for depth in range(1, len(parts))] or [first]
        unshared = (prefix for prefix in prefixes if not any(f"{name}.".startswith(f"{prefix}.") for name in others))
        names.append(next(unshared, prefixes[-1]))
    return names


def reductions(groups: list[list[str]], trace: Trace, size: int) -> list[int | None]:
    """Output stride per block, measured at its last module."""
    strides: list[int | None] = [None] * len(groups)
    # A module completes after its children, so the largest module within a single block is recorded last.
    for module, side in trace.sides.items():
        within = [any(name.startswith(f"{module}.") for name in names) for names in groups]
        if side and within.count(True) == 1:
            strides[within.index(True)] = 2 ** round(math.log2(size / side))
    return strides
