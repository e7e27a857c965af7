"""The shape of a network, from one run that costs nothing: what it returns, its strides and its parameter groups."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from timm.models import group_parameters
from torch import Tensor, nn

from unfreeze.models.errors import UserError

_CONTAINERS = {"features", "layers", "blocks", "stages", "trunk_output", "encoder", "transformers", "dense_stages"}


@dataclass(frozen=True)
class Trace:
    """What one run of a network showed.

    Attributes
    ----------
    output : Any
        What ``forward_features`` returned, without content.
    sides : dict of str to int or None
        Side of the output of each module that ran, in the order of completion.
    used : set of str
        Parameters that the output depends on.
    """

    output: Any
    sides: dict[str, int | None]
    used: set[str]


def trace(network: nn.Module, size: int) -> Trace:
    """Run the network once on the meta device, where tensors have a shape but no content, so that it costs nothing.

    On a copy, for hooks and whatever a network keeps from a pass must not stay behind.
    """
    twins: dict[int, Any] = {}
    for parameter in network.parameters():
        twins[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"))
    for buffer in network.buffers():
        twins[id(buffer)] = torch.empty_like(buffer, device="meta")
    twin = copy.deepcopy(network, twins)
    sides: dict[str, int | None] = {}

    def remember(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            sides.pop(name, None)
            sides[name] = _side(output)

        return hook

    for name, module in twin.named_modules():
        module.register_forward_hook(remember(name))
    with torch.enable_grad():
        output = twin.forward_features(torch.zeros(2, 3, size, size, device="meta"))  # type: ignore[operator]
    leaves = _leaves_above(output) if isinstance(output, Tensor) else set()
    return Trace(output, sides, {name for name, parameter in twin.named_parameters() if id(parameter) in leaves})


def _leaves_above(output: Tensor) -> set[int]:
    """Identities of the parameters that `output` was computed from: a walk up its graph, without a backward pass."""
    leaves: set[int] = set()
    seen: set[Any] = set()
    ahead: list[Any] = [output.grad_fn]
    while ahead:
        step = ahead.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        if hasattr(step, "variable"):
            leaves.add(id(step.variable))
        ahead += [above for above, _ in step.next_functions]
    return leaves


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
    """Take the parameters that are not in `used` out of the network, and modules that have no others."""
    for name, child in list(network.named_children()):
        names = {parameter for parameter, _ in child.named_parameters()}
        used_here = {parameter.removeprefix(f"{name}.") for parameter in used if parameter.startswith(f"{name}.")}
        if names and not used_here:
            setattr(network, name, nn.Identity())
        elif names - used_here:
            remove_unused(child, used_here)
    for name, _ in list(network.named_parameters(recurse=False)):
        if name not in used:
            network.register_parameter(name, None)


def output_layout(network: nn.Module, output: Any) -> tuple[Literal["NCHW", "NHWC", "tokens"], int]:
    """Order of the output's axes, and its number of channels."""
    if isinstance(output, Tensor) and output.ndim == 3:
        return "tokens", output.shape[2]
    if isinstance(output, Tensor) and output.ndim == 4:
        if str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC"):
            return "NHWC", output.shape[3]
        return "NCHW", output.shape[1]
    kind = f"an output of shape {tuple(output.shape)}" if isinstance(output, Tensor) else "several outputs"
    raise UserError(f"it ends in {kind} instead of one feature map; choose another backbone")


def prefix_tokens(network: nn.Module) -> tuple[int, bool]:
    """How many tokens precede those of the patches, and whether the first of them is a class token."""
    leaves = {name.rsplit(".", 1)[-1] for name, _ in network.named_parameters()}
    has_class_token = bool(leaves & {"cls_token", "class_token"})
    return int(cast(int, getattr(network, "num_prefix_tokens", has_class_token))), has_class_token


def parameter_groups(network: nn.Module) -> list[list[str]]:
    """Names of parameters per block, in forward order."""
    try:
        matcher = cast(Callable[..., Any], network.group_matcher)(coarse=True)
    except (AttributeError, AssertionError):  # torchvision, and the few timm models without groups of their own
        return _groups_by_position(network)
    groups = [list(names) for names in group_parameters(network, matcher).values()]
    return groups if len(groups) > 1 else _groups_by_position(network)


def _groups_by_position(network: nn.Module) -> list[list[str]]:
    groups: list[list[str]] = []
    for name, unit in _units(network):
        parameters = [(f"{name}.{own}", parameter) for own, parameter in unit.named_parameters()]
        if not parameters:
            continue
        names = [own for own, _ in parameters]
        only_scales = all(parameter.ndim < 2 for _, parameter in parameters)
        if groups and only_scales:  # a norm belongs to the layer whose output it scales
            groups[-1] += names
        else:
            groups.append(names)
    placed = {name for group in groups for name in group}
    groups[0] = [name for name, _ in network.named_parameters() if name not in placed] + groups[0]
    return groups


def _units(network: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, child in network.named_children():
        if name in _CONTAINERS or isinstance(child, nn.ModuleList):
            yield from _units(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def block_names(groups: list[list[str]]) -> list[str]:
    """``stem``, then for each group the shortest module name that no other group has a part of."""
    parts_of = [[name.split(".") for name in names] for names in groups]
    names = ["stem"]
    for position, own in enumerate(parts_of[1:], start=1):
        others = [parts for place, group in enumerate(parts_of) if place != position for parts in group]
        depth = 1
        while depth < len(own[0]) - 1 and any(parts[:depth] == own[0][:depth] for parts in others):
            depth += 1
        names.append(".".join(own[0][:depth]))
    return names


def reductions(groups: list[list[str]], trace: Trace, size: int) -> list[int | None]:
    """Output stride per block, taken where the last of its modules ends."""
    block_of = {name: position for position, names in enumerate(groups) for name in names}
    blocks_in: dict[str, set[int]] = {}
    for name, position in block_of.items():
        parts = name.split(".")
        for depth in range(len(parts)):
            blocks_in.setdefault(".".join(parts[:depth]), set()).add(position)
    strides: list[int | None] = [None] * len(groups)
    # A module ends after the modules within it, so the largest one that lies in a single block has the last word.
    for module, side in trace.sides.items():
        if side and len(positions := blocks_in.get(module, set())) == 1:
            strides[next(iter(positions))] = 2 ** round(math.log2(size / side))
    return strides
