"""A network's parameters in blocks, in forward order, and what one run without content shows of it."""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from timm.models import group_parameters
from torch import Tensor, nn

_GROUPS = {"stem": r"^(?:stem|patch_embed|pos_embed|cls_token)", "blocks": r"^\D*(\d+)"}
"""Of the few timm models without groups of their own: by the first number in a parameter's name."""


class Trace(NamedTuple):
    """What one run of a network showed."""

    output: Any
    """What ``forward_features`` returned, without content."""
    sides: dict[str, int | None]
    """Side of the output of each module that ran, in the order of completion."""
    used: set[str]
    """Parameters that the output depends on."""


def trace(network: nn.Module, size: int) -> Trace:
    """Run the network on the meta device, where tensors have a shape but no content.

    On a copy, because hooks and whatever a network keeps from a pass must not stay behind.
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
    # Up the graph of the output, which is much faster than a backward pass.
    ahead, steps = [getattr(output, "grad_fn", None)], set[Any]()
    while ahead:
        if (step := ahead.pop()) is not None and step not in steps:
            steps.add(step)
            ahead += [above for above, _ in step.next_functions]
    leaves = {step.variable for step in steps if hasattr(step, "variable")}
    return Trace(output, sides, {name for name, parameter in twin.named_parameters() if parameter in leaves})


def _side(output: Any) -> int | None:
    """Side of a feature map (shape[2] is one in NCHW and in NHWC), or of the square that tokens make up."""
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    if not isinstance(output, Tensor) or output.ndim not in (3, 4):
        return None
    if output.ndim == 4:
        return output.shape[2]
    return math.isqrt(output.shape[1]) if output.shape[1] > 1 else None  # one token is a class token


def remove_unused(network: nn.Module, used: set[str]) -> None:
    """Remove the parameters that are not in `used`, and the content of modules that have no others."""
    kept = {parameter for name, parameter in network.named_parameters() if name in used}
    for name, module in reversed(list(network.named_modules())):
        parameters = set(module.parameters())
        if parameters and not parameters & kept:
            network.set_submodule(name, nn.Identity())
    for name in {name for name, _ in network.named_parameters()} - used:
        module, _, own = name.rpartition(".")
        network.get_submodule(module).register_parameter(own, None)


def parameter_groups(network: nn.Module) -> list[list[str]]:
    """Names of parameters per block, in forward order."""
    matcher: Any = _GROUPS
    if hasattr(network, "group_matcher"):
        matcher = cast(Callable[..., Any], network.group_matcher)(coarse=True)
    groups = group_parameters(network, matcher)
    return [list(names) for names in (groups if len(groups) > 1 else group_parameters(network, _GROUPS)).values()]


def block_names(groups: list[list[str]]) -> list[str]:
    """``stem``, then for each group the shortest module name that no other group has a part of."""
    names = ["stem"]
    for position, (first, *_) in enumerate(groups[1:], start=1):
        others = [name for place, group in enumerate(groups) if place != position for name in group]
        parts = first.split(".")
        prefixes = [".".join(parts[:depth]) for depth in range(1, len(parts))] or [first]
        unshared = (prefix for prefix in prefixes if not any(f"{name}.".startswith(f"{prefix}.") for name in others))
        names.append(next(unshared, prefixes[-1]))
    return names


def reductions(groups: list[list[str]], trace: Trace, size: int) -> list[int | None]:
    """Output stride per block, taken where the last of its modules ends."""
    strides: list[int | None] = [None] * len(groups)
    # A module ends after the modules within it, so the largest one that lies in a single block has the last word.
    for module, side in trace.sides.items():
        within = [any(name.startswith(f"{module}.") for name in names) for names in groups]
        if side and within.count(True) == 1:
            strides[within.index(True)] = 2 ** round(math.log2(size / side))
    return strides
