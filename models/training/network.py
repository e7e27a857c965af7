"""Networks for fine-tuning: a body of blocks and a head, in layer groups that are frozen or have own learning rates."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import xxhash
from torch import nn

from unfreeze.models.errors import UserError

State = Mapping[str, torch.Tensor]
"""Weights and buffers of a network by name."""


class Network(nn.Module):
    """A pretrained body and a new head.

    Parameters
    ----------
    body
        Maps inputs to activations (B, D) float.
    head
        Maps activations to logits (B, C) float.
    blocks
        Parameter names of every body block in forward order, relative to the body.
    early_blocks
        Number of leading blocks in the early half of the body.
    """

    body: nn.Module
    head: nn.Module

    def __init__(self, body: nn.Module, head: nn.Module, blocks: list[list[str]], early_blocks: int) -> None:
        super().__init__()
        self.body, self.head = body, head
        self._blocks, self.early_blocks = blocks, early_blocks

    def forward(self, inputs: Any) -> torch.Tensor:
        """Compute logits (B, C)."""
        logits: torch.Tensor = self.head(self.body(inputs))
        return logits

    def block_parameters(self) -> list[list[str]]:
        """Parameter names of every body block, in forward order."""
        return [[f"body.{name}" for name in block] for block in self._blocks]

    def head_parameters(self) -> list[str]:
        """Parameter names of the head."""
        return [f"head.{name}" for name, _ in self.head.named_parameters()]

    def body_is_trainable(self) -> bool:
        """Whether any layer of the body is unfrozen."""
        return any(parameter.requires_grad for parameter in self.body.parameters())


@dataclass(frozen=True)
class LayerGroup:
    """Parameters that share a learning rate."""

    name: str
    parameters: tuple[str, ...]


def layer_groups(network: Network, count: int = 3) -> list[LayerGroup]:
    """Divide the network into layer groups, the head last.

    Three groups are the network's default: the early blocks, the late blocks and the head (for a resnet the stem with
    layer1 and layer2, layer3 with layer4, and the head). Any other number spreads the first ``count - 1`` evenly over
    the body's blocks, as fastai 0.7 spreads a longer list of lrs.

    Raises
    ------
    UserError
        If the body has fewer blocks than ``count - 1``, or `count` is below 2.
    """
    blocks = network.block_parameters()
    parts = count - 1
    if not 1 <= parts <= len(blocks):
        raise UserError(
            f"{count} learning rates need {parts} parts of the body, but it has {len(blocks)} blocks; "
            f"give 2 to {len(blocks) + 1} lrs in lrs"
        )
    if count == 3:
        borders, names = [0, network.early_blocks, len(blocks)], ["early", "late"]
    else:
        borders = [round(part * len(blocks) / parts) for part in range(parts + 1)]
        names = ["body"] if parts == 1 else [f"body-{part}" for part in range(parts)]
    groups = [
        LayerGroup(name, tuple(parameter for block in blocks[start:end] for parameter in block))
        for name, start, end in zip(names, borders, borders[1:], strict=False)
    ]
    return [*groups, LayerGroup("head", tuple(network.head_parameters()))]


def block_groups(network: Network) -> list[LayerGroup]:
    """Make one layer group per block of the body in forward order, and one for the head."""
    blocks = [LayerGroup(f"block-{place}", tuple(names)) for place, names in enumerate(network.block_parameters())]
    return [*blocks, LayerGroup("head", tuple(network.head_parameters()))]


def group_lrs(lr: float, ratio: float, count: int, early_ratio: float | None = None) -> list[float]:
    """Differential learning rates: group i of n gets ``lr / ratio ** (n - 1 - i)``, so the head gets `lr`.

    `early_ratio` replaces `ratio` between the first two groups.
    """
    lrs = [lr / ratio ** (count - 1 - group) for group in range(count)]
    return lrs if early_ratio is None else [lrs[1] / early_ratio, *lrs[1:]]


def trained_groups(groups: Sequence[LayerGroup], train: str) -> list[LayerGroup]:
    """Select the groups trained by ``head``, ``late`` (with the late half of the body) or ``all``."""
    if train == "all":
        return list(groups)
    return list(groups[-1:] if train == "head" else groups[len(groups) // 2 :])


def freeze_all_but(network: Network, groups: Sequence[LayerGroup]) -> None:
    """Let exactly the parameters of `groups` require gradients."""
    trained = {name for group in groups for name in group.parameters}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in trained)


def set_modes(network: Network) -> None:
    """Set trainable modules to training mode and frozen ones to evaluation mode.

    A module without parameters (dropout, stochastic depth) follows the nearest parent. Frozen batch norms must not
    update their statistics, or precomputed activations would differ from the network's.
    """

    def visit(module: nn.Module, parent_trains: bool) -> None:
        needs = [parameter.requires_grad for parameter in module.parameters()]
        module.training = any(needs) if needs else parent_trains
        for child in module.children():
            visit(child, module.training)

    visit(network, True)


def freeze_batchnorm(body: nn.Module) -> None:
    """Freeze weights and statistics of the body's batch norms; call after `freeze_all_but`."""
    for module in body.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.requires_grad_(False)


def weights_digest(weights: nn.Module | Mapping[str, torch.Tensor]) -> str:
    """BLAKE2b (16 bytes, hexadecimal) over names, shapes, dtypes and bytes of a state dict in the order of names."""
    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    fingerprint = hashlib.blake2b(digest_size=16)
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        fingerprint.update(f"{name}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
        fingerprint.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return fingerprint.hexdigest()


def checksum(tensor: torch.Tensor) -> str:
    """XXH3 (128 bits, hexadecimal) of a tensor's shape, dtype and bytes, independent of device and memory layout."""
    hashed = xxhash.xxh3_128(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
    hashed.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()


class WeightAverage:
    """Exponential moving average of a network's trainable weights; buffers are not averaged.

    Parameters
    ----------
    network
        Its trainable parameters are averaged.
    decay
        Limit of the average's decay, which is ``min(decay, (1 + n) / (10 + n))`` after n steps, as in TensorFlow's
        `ExponentialMovingAverage`: early averages forget the initial weights.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self._decay, self.updates = decay, 0
        self._own = {name: each for name, each in network.named_parameters() if each.requires_grad}
        self.values = {name: parameter.detach().clone() for name, parameter in self._own.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Add the network's current weights to the average."""
        self.updates += 1
        weight = 1 - min(self._decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.values.values()), list(self._own.values()), weight)

    def restore(self, values: dict[str, torch.Tensor], updates: int) -> None:
        """Continue an average of the same parameters."""
        self.updates = updates
        for name, value in self.values.items():
            value.copy_(values[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Temporarily swap in the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._own.items():
            kept = parameter.detach().clone()
            parameter.copy_(self.values[name])
            self.values[name] = kept
