"""Mean of the target by category: what trees are told of a column whose categories are too many to split by.

After Micci-Barreca, "A preprocessing scheme for high-cardinality categorical attributes", 2001. A category's mean is
shrunk towards that of all rows, as far as its rows are few and categories hardly differ; a training row gets it from
rows of other folds alone, or its own target would be part of what it is predicted from.
"""

from collections.abc import Iterator

import numpy as np

FOLDS = 5
MOST_CLASSES = 10
"""With more classes there are no means: there would be one per category and class."""


def values_of(targets: np.ndarray, classes: int) -> Iterator[np.ndarray]:
    """What is averaged, one (N,) float64 after another: every target (N, T), or of classes (N,) whether it is the k-th.

    Of two classes only the second counts.
    """
    if targets.ndim == 2:
        yield from (column.astype(np.float64) for column in targets.T)
    elif classes <= MOST_CLASSES:
        yield from ((targets == number).astype(np.float64) for number in range(1 if classes == 2 else 0, classes))


def shrunk_means(codes: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """Mean of values (N,) by code (N,), shrunk; (size,) float64.

    A code with n rows counts n / (n + m), the rest is the mean of all rows. m is the variance within codes over that
    between them, as the analysis of variance estimates it for groups of unequal size (Searle, Casella and McCulloch,
    "Variance components", 1992, equation 3.27); without variance between codes every mean is that of all rows.
    """
    overall, rows = values.mean(), len(values)
    counts = np.bincount(codes, minlength=size).astype(np.float64)
    means = np.divide(
        np.bincount(codes, weights=values, minlength=size), counts, out=np.full(size, overall), where=counts > 0
    )
    groups = np.count_nonzero(counts)
    if groups < 2 or groups == rows:
        return np.full(size, overall)
    within = np.square(values - means[codes]).sum() / (rows - groups)
    between = (counts * np.square(means - overall)).sum() - (groups - 1) * within
    between /= rows - np.square(counts).sum() / rows
    if between <= 0:
        return np.full(size, overall)
    known = counts * between
    share = np.divide(known, known + within, out=np.zeros(size), where=counts > 0)
    shrunk: np.ndarray = overall + share * (means - overall)
    return shrunk


def means_of_others(codes: np.ndarray, values: np.ndarray, size: int, seed: int) -> np.ndarray:
    """For every row (N,) the shrunk mean of its code in the other folds, which are drawn by `seed`."""
    folds = np.random.default_rng(seed).permutation(len(codes)) % FOLDS
    means = np.full(len(codes), values.mean())
    for fold in range(FOLDS):
        inside = folds == fold
        if inside.any() and not inside.all():
            means[inside] = shrunk_means(codes[~inside], values[~inside], size)[codes[inside]]
    return means
