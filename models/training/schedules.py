"""Learning-rate schedules: pure functions from a batch number to a factor on the base lrs."""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]
"""Batch number, counted from 0 over the whole stage -> factor of every group's base lr."""


def cycle_ends(cycles: int, cycle_len: int, cycle_mult: int) -> list[int]:
    """Completed epochs at the end of each cycle.

    Parameters
    ----------
    cycles, cycle_len, cycle_mult
        Number of cycles, epochs of the first, and ratio of each length to the previous.

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
    """Cycle of an epoch, from 1, and completed epochs at its end.

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

    Within a cycle of n batches, batch i runs at ``(1 + cos(pi i / n)) / 2``; the first n/20 batches of the first cycle
    run at 1/100 to let a fresh optimizer settle.

    Parameters
    ----------
    cycle_batches
        Batches of the first cycle.
    cycle_mult
        Ratio of each cycle's length to the previous.

    References
    ----------
    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2016; start at 1/100 from
    fastai 0.7 (``sgdr.CosAnneal``).
    """

    def factor(batch: int) -> float:
        if batch < cycle_batches / 20:
            return 0.01
        start, length = _cycle_of(batch, cycle_batches, cycle_mult)
        return (1 + math.cos(math.pi * (batch - start) / length)) / 2

    return factor


def one_cycle(cycle_batches: int, cycle_mult: int = 1) -> Schedule:
    """One-cycle: per cycle, a half cosine from 1/25 up to the base lr over a quarter, then one down to 1/100,000.

    References
    ----------
    Smith, "A disciplined approach to neural network hyper-parameters: Part 1", 2018; shares and divisors from
    fastai 2 (``callback.schedule.fit_one_cycle``).
    """

    def factor(batch: int) -> float:
        start, length = _cycle_of(batch, cycle_batches, cycle_mult)
        share = (batch - start) / length
        low, position = (1 / 25, share / 0.25) if share < 0.25 else (1e-5, (1 - share) / 0.75)
        return low + (1 - low) * (1 - math.cos(math.pi * position)) / 2

    return factor


def _cycle_of(batch: int, cycle_batches: int, cycle_mult: int) -> tuple[int, int]:
    """First batch and length of a batch's cycle."""
    start, length = 0, cycle_batches
    while batch >= start + length:
        start += length
        length *= cycle_mult
    return start, length


def exponential(start: float, end: float, steps: int) -> Schedule:
    """Grow exponentially from `start` at batch 0 to `end` at batch ``steps - 1``.

    References
    ----------
    Smith, "Cyclical Learning Rates for Training Neural Networks", 2015; fastai 0.7 (``sgdr.LR_Finder``).
    """
    growth = (end / start) ** (1 / (steps - 1))
    return lambda batch: start * growth**batch


SCHEDULES: dict[str, Callable[[int, int], Schedule]] = {"cosine": cosine_restarts, "one_cycle": one_cycle}
"""Name in a stage's `schedule` -> factory from the first cycle's batches and `cycle_mult`."""
