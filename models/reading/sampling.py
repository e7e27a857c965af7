"""Random samples of rows, and stratified splits."""

from collections.abc import Sequence

import numpy as np


def sample_rows(rows: np.ndarray, most: int) -> np.ndarray:
    """Draw at most `most` of the rows at random with a fixed seed; returns them in ascending order.

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
    """Assign rows to the sides of a split, stratified by label.

    Iterative stratification: the label with the fewest remaining rows is assigned first, each row to the side with the
    largest deficit of that label; rows without a label fill up the sides. Single rows are then moved while that brings
    the sides closer to their shares. Each side gets at least one row of every label, unless there are too few rows or
    labels conflict.

    Parameters
    ----------
    labels
        Labels of every row, (N, L) bool, or counts. Rows with the same labels are assigned in their order.
    shares
        Share of every side, above 0 and adding up to 1; ties go to the first side.
    fixed
        Side of every row with a fixed assignment, (N,) int64; -1 for rows to assign.
    sizes
        Weight of every row, such as the number of images in a group, (N,) int64; 1 if not given.

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
    # Deficit of each side per label and, in the last column, over all rows: (sides, L + 1).
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
    """Move the row that helps most until no move helps; changes `sides` and `lacks`.

    The objective is the sum of squared deficits per side and label, each divided by the label's row count.
    """
    kinds, kind_of = np.unique(counted, axis=0, return_inverse=True)
    kind_of = kind_of.reshape(-1)
    counts = np.stack(
        [np.bincount(kind_of[free & (sides == side)], minlength=len(kinds)) for side in range(len(lacks))]
    )
    weighed = kinds / np.maximum(totals, 1)
    own = (weighed * kinds).sum(1)
    for _ in range(len(counted)):
        # Giving away a row of kind k changes the sum by 2 * lacking[side, k], receiving one by minus that.
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
