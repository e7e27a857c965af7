"""Mean of the target by category, and how many rows of a category it takes to trust that mean.

After Micci-Barreca, "A preprocessing scheme for high-cardinality categorical attributes", 2001. A category's mean is
shrunk towards the overall mean, more so if its rows are few or categories hardly differ. Trees use it for columns with
too many categories to split by; embeddings are shrunk likewise. Training rows get means from other folds only, so
their own target does not leak into a feature.
"""

from collections.abc import Iterable, Iterator

import numpy as np

FOLDS = 5
TRUSTED = (1.0, 50.0)
MOST_CLASSES = 10
"""With more classes there are no means; there would be one per category and class."""


def values_of(targets: np.ndarray, classes: int) -> Iterator[np.ndarray]:
    """Yield the values to average, (N,) float64 each: every target of (N, T), or an indicator per class of (N,).

    Of two classes only the second is used.
    """
    if targets.ndim == 2:
        yield from (column.astype(np.float64) for column in targets.T)
    elif classes <= MOST_CLASSES:
        yield from ((targets == number).astype(np.float64) for number in range(1 if classes == 2 else 0, classes))


def trusted_rows(codes: np.ndarray, values: Iterable[np.ndarray], size: int) -> float:
    """Number of rows at which a category's mean and the overall mean get equal weight.

    The variance of values within codes over that between them, summed over all `values` (see `values_of`), clipped to
    `TRUSTED`, whose upper end is for categories that do not differ.
    """
    parts = [_variances(codes, each, size) for each in values]
    within, between = (sum(each) for each in zip(*parts, strict=True)) if parts else (1.0, 0.0)
    low, high = TRUSTED
    return min(max(within / between, low), high) if between > 0 else high


def shrunk_means(codes: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """Mean of values (N,) by code (N,), shrunk; (size,) float64.

    The mean of a code with n rows has weight n / (n + m), the overall mean the rest. m is the variance within codes
    over that between them; without variance between codes every mean is the overall mean.
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
    """Shrunk mean of each row's (N,) code over the other folds, which are drawn by `seed`."""
    folds = np.random.default_rng(seed).permutation(len(codes)) % FOLDS
    means = np.full(len(codes), values.mean())
    for fold in range(FOLDS):
        inside = folds == fold
        if inside.any() and not inside.all():
            means[inside] = shrunk_means(codes[~inside], values[~inside], size)[codes[inside]]
    return means


def _by_code(codes: np.ndarray, values: np.ndarray, size: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Overall mean, and rows and mean of each code, (size,) float64."""
    overall, counts = float(values.mean()), np.bincount(codes, minlength=size).astype(np.float64)
    sums = np.bincount(codes, weights=values, minlength=size)
    return overall, counts, np.divide(sums, counts, out=np.full(size, overall), where=counts > 0)


def _variances(codes: np.ndarray, values: np.ndarray, size: int) -> tuple[float, float]:
    """Variance of values within codes, and between codes: estimates by analysis of variance, at least 0.

    For groups of unequal size, see Searle, Casella and McCulloch, "Variance components", 1992, section 3.6.
    """
    overall, counts, means = _by_code(codes, values, size)
    rows, groups = len(values), np.count_nonzero(counts)
    if groups < 2 or groups == rows:
        return float(values.var()), 0.0
    within = float(np.square(values - means[codes]).sum()) / (rows - groups)
    between = float((counts * np.square(means - overall)).sum()) - (groups - 1) * within
    return within, max(between / (rows - float(np.square(counts).sum()) / rows), 0.0)
