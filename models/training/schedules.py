"""Learning-rate schedules: pure functions from a batch number to a multiple of the base lrs."""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]
"""Batch number, counted from 0 over the whole stage -> factor of every group's base lr."""


def cycle_ends(cycles: int, cycle_len: int, cycle_mult: int) -> list[int]:
    """Epochs after which each cycle has ended.

    Parameters
    ----------
    cycles, cycle_len, cycle_mult
        Number of cycles, epochs of the first one, and how many times longer each is than the one before.

    Returns
    -------
    list of int
        One number per cycle: ``cycle_ends(3, 1, 2) == [1, 3, 7]``.
    """
    ends, length, total = [], cycle_len, 0
    for _ in range(cycles):
        total += length
        ends.append(total)
        length *= cycle_mult
    return ends


def cycle_at(epoch: int, cycle_len: int, cycle_mult: int) -> tuple[int, int]:
    """The cycle that an epoch is in, from 1, and the epoch after which it ends.

    >>> [cycle_at(epoch, 1, 2) for epoch in range(4)]
    [(1, 1), (2, 3), (2, 3), (3, 7)]
    """
    cycle, length, end = 1, cycle_len, cycle_len
    while epoch >= end:
        cycle, length = cycle + 1, length * cycle_mult
        end += length
    return cycle, end


def cosine_restarts(cycle_batches: int, cycle_mult: int = 1) -> Schedule:
    """SGDR: a half cosine from the base lr towards zero in every cycle, then a restart.

    Within a cycle of n batches, batch i runs at ``(1 + cos(pi i / n)) / 2``; the first n/20 batches of the very
    first cycle run at 1/100 to let a fresh optimizer settle.

    Parameters
    ----------
    cycle_batches
        Batches of the first cycle.
    cycle_mult
        Each cycle has this many times the batches of the one before.

    References
    ----------
    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2016; the start at 1/100 is that
    of fastai 0.7 (``sgdr.CosAnneal``).
    """

    def factor(batch: int) -> float:
        if batch < cycle_batches / 20:
            return 0.01
        start, length = _cycle_of(batch, cycle_batches, cycle_mult)
        return (1 + math.cos(math.pi * (batch - start) / length)) / 2

    return factor


def one_cycle(cycle_batches: int, cycle_mult: int = 1) -> Schedule:
    """One-cycle: in every cycle a half cosine from 1/25 up to the base lr over a quarter, then one down to 1/100,000.

    References
    ----------
    Smith, "A disciplined approach to neural network hyper-parameters: Part 1", 2018; shares and divisors are those of
    fastai 2 (``callback.schedule.fit_one_cycle``).
    """

    def factor(batch: int) -> float:
        start, length = _cycle_of(batch, cycle_batches, cycle_mult)
        share = (batch - start) / length
        low, position = (1 / 25, share / 0.25) if share < 0.25 else (1e-5, (1 - share) / 0.75)
        return low + (1 - low) * (1 - math.cos(math.pi * position)) / 2

    return factor


def _cycle_of(batch: int, cycle_batches: int, cycle_mult: int) -> tuple[int, int]:
    """First batch and length of the cycle that a batch is in."""
    start, length = 0, cycle_batches
    while batch >= start + length:
        start += length
        length *= cycle_mult
    return start, length


def exponential(start: float, end: float, steps: int) -> Schedule:
    """From `start` at batch 0 to `end` at batch ``steps - 1``, by the same factor at every batch.

    References
    ----------
    Smith, "Cyclical Learning Rates for Training Neural Networks", 2015; fastai 0.7 (``sgdr.LR_Finder``).
    """
    growth = (end / start) ** (1 / (steps - 1))
    return lambda batch: start * growth**batch


SCHEDULES: dict[str, Callable[[int, int], Schedule]] = {"cosine": cosine_restarts, "one_cycle": one_cycle}
"""Name in a stage's `schedule` -> what makes it of the first cycle's batches and of `cycle_mult`."""
