"""Ranks: processes that train one network together, each on its slice of every batch.

Outside of a process group there is one rank, and every function here is the identity. The ranks take the same steps in
the same order, because they have the same data, seeds and numbers: each draws the whole batch's random views, trains on
its own rows, and gets the sum of all gradients and all rows' predictions. Their training equals that of one process to
rounding, except for dropout and for batch norms that are trained, which see a rank's own rows.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

Value = TypeVar("Value")

TIMEOUT = timedelta(days=7)
"""Ranks wait this long for each other, such as for rank 0 to prepare the data; a launcher ends them if one dies."""


def count() -> int:
    """Number of ranks."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Number of this rank, from 0; rank 0 alone logs and writes."""
    return distributed.get_rank() if count() > 1 else 0


def wanted() -> int:
    """Number of ranks that a launcher such as torchrun has started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


@contextmanager
def joined() -> Iterator[None]:
    """Be one of the ranks that a launcher has started while the block runs (``RANK``, ``WORLD_SIZE``, ``MASTER_*``)."""
    is_cuda = torch.cuda.is_available()
    if is_cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    local = int(os.environ.get("LOCAL_WORLD_SIZE") or wanted())
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if is_cuda else "gloo", timeout=TIMEOUT)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def share(rows: int) -> tuple[slice, int]:
    """Slice of a batch that this rank trains on, and the number of rows that all ranks train on.

    Every rank takes the whole of a batch with fewer than two rows for each, because batch norm fails on one row.
    """
    if rows < 2 * count():
        return slice(None), rows * count()
    return slice(rank() * rows // count(), (rank() + 1) * rows // count()), rows


def rows_to_predict(rows: int) -> torch.Tensor:
    """Rows that this rank predicts, (n,) int64: as many on every rank, padded with the last row."""
    each = -(-rows // count())
    return torch.arange(rank() * each, (rank() + 1) * each).clamp_(max=rows - 1)


def gathered(values: torch.Tensor, rows: int) -> torch.Tensor:
    """All `rows` predictions (rows, ...) from each rank's of `rows_to_predict`, on the CPU."""
    if count() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(count())]
    distributed.all_gather(parts, values)
    return torch.cat(parts)[:rows]


def add_up(value: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over the ranks, in place."""
    if count() > 1:
        distributed.all_reduce(value)
    return value


def agree(value: Value) -> Value:
    """Take rank 0's value on every rank; it is pickled."""
    if count() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


def once(compute: Callable[[], Value]) -> Value:
    """Compute a value on rank 0 alone, and return it on every rank."""
    return agree(compute() if rank() == 0 else None)  # type: ignore[return-value]


def wait_for_all() -> None:
    """Wait until every rank is here."""
    agree(None)


class _Loss(nn.Module):
    def __init__(self, network: nn.Module, loss: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, *arguments: Any) -> torch.Tensor:
        return self.loss(*arguments)


def with_summed_gradients(network: nn.Module, loss: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Wrap a loss, so that its backward pass averages the gradients of the network's trainable weights over the ranks.

    Also copies rank 0's weights to all. Wrap again whenever other layers become trainable.
    """
    return loss if count() == 1 else DistributedDataParallel(_Loss(network, loss))
