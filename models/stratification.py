"""Splits that keep the share of every label, where a row has several of them."""

from collections.abc import Sequence

import numpy as np


def stratify(labels: np.ndarray, shares: Sequence[float], fixed: np.ndarray | None = None) -> np.ndarray:
    """Deal rows to sides so that each side has its share of the rows of every label.

    Iterative stratification: the label with the fewest rows left is dealt first, each of its rows to the side that
    lacks most of it; rows without a label fill up the sides. Every side wants at least one row of every label, and so
    gets it where there are enough rows and labels do not stand in each other's way.

    Parameters
    ----------
    labels
        Of every row, (N, L) bool. Rows with the same labels are dealt in their order.
    shares
        Of every side, above 0 and adding up to 1; of equals the first takes the row.
    fixed
        Side of every row that is not dealt but counted, (N,) int64; -1 for the others.

    Returns
    -------
    numpy.ndarray
        Side of every row, (N,) int64.

    References
    ----------
    Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data", 2011.
    """
    labels = np.asarray(labels, dtype=bool)
    sides = np.full(len(labels), -1) if fixed is None else fixed.astype(np.int64)
    wanted = np.array(shares, dtype=np.float64)
    # Of every label (and, in the last column, of all rows) how many each side still lacks: (sides, L + 1).
    counted = np.column_stack([labels, np.ones(len(labels), dtype=bool)])
    totals = counted.sum(0)
    lacks = np.maximum(np.outer(wanted, totals), totals >= len(wanted)).astype(np.float64)
    for side in range(len(wanted)):
        lacks[side] -= counted[sides == side].sum(0)
    left = sides < 0
    remaining = counted[left].sum(0)
    while left.any():
        of_labels = np.where(remaining[:-1] > 0, remaining[:-1], len(labels) + 1)
        label = int(of_labels.argmin()) if len(of_labels) and of_labels.min() <= len(labels) else labels.shape[1]
        for row in np.flatnonzero(left & counted[:, label]):
            most = np.flatnonzero(lacks[:, label] == lacks[:, label].max())
            side = most[lacks[most, -1].argmax()]
            sides[row], left[row] = side, False
            lacks[side] -= counted[row]
            remaining -= counted[row]
    return sides
