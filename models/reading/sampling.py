"""Rows drawn for a figure or a comparison, and dealt to the sides of a split."""

from collections.abc import Sequence

import numpy as np


def sample_rows(rows: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the rows, drawn at random with a fixed seed, ascending.

    Examples
    --------
    >>> sample_rows(np.arange(3), 5)
    array([0, 1, 2])
    """
    return np.sort(np.random.default_rng(0).choice(rows, min(most, len(rows)), replace=False))


def stratify(
    labels: np.ndarray,
    shares: Sequence[float],
    fixed: np.ndarray | None = None,
    sizes: np.ndarray | None = None,
) -> np.ndarray:
    """Deal rows to sides so that each side has its share of the rows of every label.

    Iterative stratification: the label with the fewest rows left is dealt first, each of its rows to the side that
    lacks most of it; rows without a label fill up the sides. Common labels get what the rare ones leave, so single rows
    change sides afterwards as long as that brings the sides closer to their shares. Every side wants at least one row
    of every label, and so gets it where there are enough rows and labels do not stand in each other's way.

    Parameters
    ----------
    labels
        Of every row, (N, L) bool, or how many times it has each. Rows with the same labels are dealt in their order.
    shares
        Of every side, above 0 and adding up to 1; of equals the first takes the row.
    fixed
        Side of every row that is not dealt but counted, (N,) int64; -1 for the others.
    sizes
        What every row counts for, such as the images of a group, (N,) int64; 1 if not given.

    Returns
    -------
    numpy.ndarray
        Side of every row, (N,) int64.

    References
    ----------
    Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data", 2011.
    """
    labels = np.asarray(labels).astype(np.int64)
    sides = np.full(len(labels), -1) if fixed is None else fixed.astype(np.int64)
    wanted = np.array(shares, dtype=np.float64)
    # Of every label (and, in the last column, of all rows) how many each side still lacks: (sides, L + 1).
    counted = np.column_stack([labels, np.ones(len(labels), dtype=np.int64) if sizes is None else sizes])
    totals = counted.sum(0)
    wants = np.maximum(np.outer(wanted, totals), totals >= len(wanted)).astype(np.float64)
    lacks = wants.copy()
    for side in range(len(wanted)):
        lacks[side] -= counted[sides == side].sum(0)
    free = sides < 0
    left = free.copy()
    remaining = counted[left].sum(0)
    while left.any():
        of_labels = np.where(remaining[:-1] > 0, remaining[:-1], totals.max() + 1)
        label = int(of_labels.argmin()) if len(of_labels) and of_labels.min() <= totals.max() else labels.shape[1]
        for row in np.flatnonzero(left & (counted[:, label] > 0)):
            most = np.flatnonzero(lacks[:, label] == lacks[:, label].max())
            side = most[lacks[most, -1].argmax()]
            sides[row], left[row] = side, False
            lacks[side] -= counted[row]
            remaining -= counted[row]
    _settle(counted, sides, free, lacks, totals)
    return sides


def _settle(counted: np.ndarray, sides: np.ndarray, free: np.ndarray, lacks: np.ndarray, totals: np.ndarray) -> None:
    """Move the row that helps most to another side, until none does; changes `sides` and `lacks`.

    What is lowered is the sum of squares of what the sides lack of every label, each divided by the label's rows: a row
    of a rare label counts most.
    """
    kinds, kind_of = np.unique(counted, axis=0, return_inverse=True)
    kind_of = kind_of.reshape(-1)
    counts = np.stack(
        [np.bincount(kind_of[free & (sides == side)], minlength=len(kinds)) for side in range(len(lacks))]
    )
    weighed = kinds / np.maximum(totals, 1)
    own = (weighed * kinds).sum(1)
    for _ in range(len(counted)):
        # To give a row of kind k away changes the sum by twice `lacking[side, k]`, and to get one by minus that.
        lacking = lacks @ weighed.T
        change = 2 * (lacking[:, None] - lacking[None]) + 2 * own
        change[np.broadcast_to(counts[:, None] == 0, change.shape)] = np.inf
        giver, taker, kind = np.unravel_index(int(change.argmin()), change.shape)
        if change[giver, taker, kind] > -1e-9:
            return
        row = np.flatnonzero(free & (sides == giver) & (kind_of == kind))[-1]
        sides[row] = taker
        counts[giver, kind] -= 1
        counts[taker, kind] += 1
        lacks[giver] += kinds[kind]
        lacks[taker] -= kinds[kind]
