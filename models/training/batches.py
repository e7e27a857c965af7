"""Batches: rows in memory-mapped files, gathered as the training loop asks for them."""

from collections.abc import Iterable, Iterator
from typing import Protocol

import torch

Inputs = torch.Tensor | tuple[torch.Tensor, ...]
"""What a network takes: one tensor, or several with the same rows (a table's categories and numbers)."""


class Batches(Protocol):
    """A set of rows that can be visited in any order; images, precomputed activations and tables are such sets."""

    batch_size: int
    """Rows of a training batch, at most."""
    forward_size: int
    """Rows of a batch that is only predicted; has no influence on results beyond rounding."""
    epoch: int
    """The stage's epoch under way, from 0; set by the loop for views that depend on it."""
    precomputed: bool
    """Whether inputs are the head's (activations) rather than the network's."""

    def __len__(self) -> int:
        """Number of rows."""

    def gather(self, rows: torch.Tensor, generator: torch.Generator | None) -> tuple[Inputs, torch.Tensor]:
        """Inputs and targets of `rows` (B,) int64 on the training device.

        Random views are drawn from `generator`; without one the plain view is returned.
        """


def split_into_batches(order: torch.Tensor, batch_size: int) -> list[torch.Tensor]:
    """Cut `order` (N,) into the fewest batches of at most `batch_size` rows, of nearly equal size.

    Equal sizes keep every row in every epoch without ever making a batch of one row, on which batch norm fails.
    """
    count = -(-len(order) // batch_size)
    return list(torch.tensor_split(order, count))


def in_order(batches: Batches) -> Iterator[tuple[Inputs, torch.Tensor]]:
    """Every row's plain view once, in the data set's order."""
    for rows in split_into_batches(torch.arange(len(batches)), batches.forward_size):
        yield batches.gather(rows, None)


def put_together(parts: Iterable[tuple[torch.Tensor, ...]], rows: int) -> tuple[torch.Tensor, ...]:
    """Tensors (N, ...) on the CPU of the `rows` rows whose parts (B, ...) come in turn, each written to its place.

    Kept one by one between the buffers of forward passes, the parts would split the heap, which would grow.
    """
    wholes: tuple[torch.Tensor, ...] = ()
    done = 0
    for part in parts:
        wholes = wholes or tuple(torch.empty(rows, *each.shape[1:], dtype=each.dtype) for each in part)
        for whole, each in zip(wholes, part, strict=True):
            whole[done : done + len(each)] = each
        done += len(part[0])
    return wholes


def split_inputs(inputs: Inputs, size: int | list[int]) -> list[Inputs]:
    """Cut inputs into parts of at most `size` rows, or of the sizes given."""
    if isinstance(inputs, torch.Tensor):
        return list(inputs.split(size))
    return list(zip(*(tensor.split(size) for tensor in inputs), strict=True))


def split_rows(inputs: Inputs, targets: torch.Tensor, parts: int) -> list[tuple[Inputs, torch.Tensor]]:
    """Cut a batch into at most `parts` parts of nearly equal size, two rows each at least."""
    if parts == 1:
        return [(inputs, targets)]
    sizes = [len(rows) for rows in torch.arange(len(targets)).tensor_split(max(min(parts, len(targets) // 2), 1))]
    return list(zip(split_inputs(inputs, sizes), targets.split(sizes), strict=True))
