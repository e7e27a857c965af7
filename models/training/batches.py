"""Batches of rows in memory-mapped files, gathered on demand."""

from collections.abc import Iterable, Iterator
from typing import Protocol

import torch

Inputs = torch.Tensor | tuple[torch.Tensor, ...]
"""Network inputs: one tensor, or several with the same rows (categories and numbers of table rows)."""
WHOLE = slice(None)
"""All rows of a batch."""


class Batches(Protocol):
    """Rows with random access: images, precomputed activations or tables."""

    batch_size: int
    """Maximum rows per training batch."""
    forward_size: int
    """Rows per inference batch; affects results only by rounding."""
    epoch: int
    """Current epoch of the stage, from 0; set by the loop for views that depend on it."""
    precomputed: bool
    """Whether inputs are the head's (activations) rather than the network's."""

    def __len__(self) -> int:
        """Number of rows."""

    def gather(
        self, rows: torch.Tensor, generator: torch.Generator | None, share: slice = WHOLE
    ) -> tuple[Inputs, torch.Tensor]:
        """Gather inputs and targets of a `share` of `rows` (B,) int64 on the training device.

        Random views are drawn from `generator`, for all rows so that every rank's generator advances alike; without
        one the plain view is returned.
        """


def split_into_batches(order: torch.Tensor, batch_size: int) -> list[torch.Tensor]:
    """Cut `order` (N,) into the fewest batches of at most `batch_size` rows, of nearly equal size.

    Nearly equal sizes avoid a final batch of one row, on which batch norm fails, without dropping rows.
    """
    count = -(-len(order) // batch_size)
    return list(torch.tensor_split(order, count))


def in_order(batches: Batches, wanted: torch.Tensor | None = None) -> Iterator[tuple[Inputs, torch.Tensor]]:
    """Yield the plain view of the `wanted` rows (N,) int64, by default of all in the data set's order."""
    for rows in split_into_batches(torch.arange(len(batches)) if wanted is None else wanted, batches.forward_size):
        yield batches.gather(rows, None)


def put_together(parts: Iterable[tuple[torch.Tensor, ...]], rows: int) -> tuple[torch.Tensor, ...]:
    """Concatenate parts (B, ...) into preallocated CPU tensors (N, ...) with N = `rows`.

    Parts kept separately between the buffers of forward passes would fragment and grow the heap.
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
    """Cut inputs into parts of at most `size` rows, or of the listed sizes."""
    if isinstance(inputs, torch.Tensor):
        return list(inputs.split(size))
    return list(zip(*(tensor.split(size) for tensor in inputs), strict=True))


def split_rows(inputs: Inputs, targets: torch.Tensor, parts: int) -> list[tuple[Inputs, torch.Tensor]]:
    """Cut a batch into at most `parts` parts of nearly equal size, at least two rows each."""
    if parts == 1:
        return [(inputs, targets)]
    sizes = [len(rows) for rows in torch.arange(len(targets)).tensor_split(max(min(parts, len(targets) // 2), 1))]
    return list(zip(split_inputs(inputs, sizes), targets.split(sizes), strict=True))
