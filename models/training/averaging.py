"""Exponential moving average of the weights under training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from unfreeze.models.training.network import Network


class WeightAverage:
    """Average of a network's trainable weights; buffers stay those of the network.

    Parameters
    ----------
    network
        Its trainable parameters are averaged.
    decay
        Of the average at each step, once there were many: ``min(decay, (1 + n) / (10 + n))`` after n steps, as in
        TensorFlow's `ExponentialMovingAverage`, so that an average of few steps forgets the weights it began with.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self._decay, self.updates = decay, 0
        self._own = {name: each for name, each in network.named_parameters() if each.requires_grad}
        self.values = {name: parameter.detach().clone() for name, parameter in self._own.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the network's weights in."""
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
        """Meanwhile the network has the averages for weights."""
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
