"""Mean of the target by category, and how many rows of a category it takes to trust that mean.

After Micci-Barreca, "A preprocessing scheme for high-cardinality categorical attributes", 2001. A category's mean is
shrunk towards that of all rows, as far as its rows are few and categories hardly differ. Trees get it for a
column with too many categories to split by; embeddings are shrunk likewise. A training row gets the mean from rows
of other folds alone, or its own target would be part of what it is predicted from.
"""

from collections.abc import Iterable, Iterator

import numpy as np

FOLDS = 5
TRUSTED = (1.0, 50.0)
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


def trusted_rows(codes: np.ndarray, values: Iterable[np.ndarray], size: int) -> float:
    """Rows with which a category says as much about the target as all other rows do.

    The variance of values within codes over that between them, summed over all `values` (see `values_of`); within
    `TRUSTED`, of which the upper end is for categories that do not differ.
    """
    parts = [_variances(codes, each, size) for each in values]
    within, between = (sum(each) for each in zip(*parts, strict=True)) if parts else (1.0, 0.0)
    low, high = TRUSTED
    return min(max(within / between, low), high) if between > 0 else high


def shrunk_means(codes: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """Mean of values (N,) by code (N,), shrunk; (size,) float64.

    A code with n rows counts n / (n + m), the rest is the mean of all rows. m is the variance within codes over that
    between them; without variance between codes every mean is that of all rows.
    """
    overall, counts, means = _by_code(codes, values, size)
    within, between = _variances(codes, values, size)
    if between == 0:
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


def _by_code(codes: np.ndarray, values: np.ndarray, size: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Mean of all values; rows and mean of each code, (size,) float64."""
    overall, counts = float(values.mean()), np.bincount(codes, minlength=size).astype(np.float64)
    sums = np.bincount(codes, weights=values, minlength=size)
    return overall, counts, np.divide(sums, counts, out=np.full(size, overall), where=counts > 0)


def _variances(codes: np.ndarray, values: np.ndarray, size: int) -> tuple[float, float]:
    """Variance of values within codes, and of codes' means: estimates of the analysis of variance, not below 0.

    For groups of unequal size, see Searle, Casella and McCulloch, "Variance components", 1992, section 3.6.
    """
    overall, counts, means = _by_code(codes, values, size)
    rows, groups = len(values), np.count_nonzero(counts)
    if groups < 2 or groups == rows:
        return float(values.var()), 0.0
    within = float(np.square(values - means[codes]).sum()) / (rows - groups)
    between = float((counts * np.square(means - overall)).sum()) - (groups - 1) * within
    return within, max(between / (rows - float(np.square(counts).sum()) / rows), 0.0)
