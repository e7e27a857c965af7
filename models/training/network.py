"""Networks for fine-tuning: a body of blocks, and a head."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import xxhash
from torch import nn

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
