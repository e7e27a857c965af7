"""Summary of a network layer by layer, as a stage trains it (the course's ``learn.summary()``)."""

from typing import Any

import torch
from torch import nn

from unfreeze.models.settings import Stage
from unfreeze.models.training.batches import Inputs
from unfreeze.models.training.learner import Learner
from unfreeze.models.training.network import layer_groups


def summarise_layers(
    learner: Learner, stage: Stage, position: int, lr: float | None, inputs: Inputs
) -> list[dict[str, Any]]:
    """List every layer in the order of computation.

    Parameters
    ----------
    learner
        Gets prepared for the stage.
    stage, position
        The stage and its number.
    lr
        The head's; None if the finder will suggest it.
    inputs
        A few rows to measure shapes with.

    Returns
    -------
    list of dict
        ``layer``, ``kind``, ``output`` (shape without the rows), ``parameters``, ``group``, ``trains`` (``yes``, ``no``
        or empty for a layer without parameters) and ``lr`` (of the group, or relative to the head's; empty where
        nothing trains).
    """
    learner.prepare(stage, position, 1.0 if lr is None else lr)
    network = learner.network
    count = len(stage.lrs) if stage.lrs else 3
    group_of = {name: group.name for group in layer_groups(network, count) for name in group.parameters}
    lrs = dict(zip((group.name for group in learner.groups), learner.base_lrs, strict=True))
    shapes = _output_shapes(network, inputs)
    layers = dict(network.named_modules())
    ordered = [*shapes, *(name for name in layers if name not in shapes)]
    rows = []
    for name in ordered:
        layer = layers[name]
        own = dict(layer.named_parameters(prefix=name, recurse=False))
        if not own and (name not in shapes or next(layer.children(), None) is not None):
            continue  # a container: its layers have their own rows
        group = group_of.get(next(iter(own), ""), "")
        trains = any(parameter.requires_grad for parameter in own.values())
        rows.append(
            {
                "layer": name,
                "kind": type(layer).__name__,
                "output": shapes.get(name, ""),
                "parameters": sum(parameter.numel() for parameter in own.values()),
                "group": group,
                "trains": ("yes" if trains else "no") if own else "",
                "lr": _shown(lrs[group], lr, stage) if trains else "",
            }
        )
    return rows


def _output_shapes(network: nn.Module, inputs: Inputs) -> dict[str, str]:
    """Layer name -> output shape without the rows, in the order of computation."""
    shapes: dict[str, str] = {}

    def look(name: str) -> Any:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            is_tensor = isinstance(output, torch.Tensor)
            shapes[name] = "x".join(map(str, output.shape[1:])) if is_tensor else ""

        return keep

    hooks = [layer.register_forward_hook(look(name)) for name, layer in network.named_modules() if name]
    try:
        network.eval()
        with torch.no_grad():
            network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def _shown(lr: float, head: float | None, stage: Stage) -> str:
    """Format the lr, as a share of the head's if the finder has yet to suggest that."""
    if head is not None or stage.lrs:
        return f"{lr:.3g}"
    return "head's" if lr == 1 else f"head's / {1 / lr:.3g}"
