"""Baseline for every model: the mean of the target by group."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from unfreeze.models.tables.columns.encoding import Encoded, TableEncoder
from unfreeze.models.tables.reading.frames import CHUNK_ROWS

JUDGED_SHARE = 0.2  # of the training rows, held out to choose the columns to group by
MOST_JUDGED = 100_000  # rows held out
MOST_CODES = 5_000
"""Columns with this many codes are not used: their groups would have too few rows."""
BEST_COLUMNS = 10  # columns tried in pairs
MOST_ENTRIES = 50_000_000  # groups times classes of a frequency table (400 MB)
MOST_FITTED = 2_000_000
"""Most training rows used to choose the columns; of more, a random sample."""

Columns = tuple[int, ...]  # positions of categorical columns; if empty, all rows are one group


@dataclass(frozen=True)
class GroupMean:
    """Grouping columns and predictions: values (N, T) in the target's own scale, or frequencies (N, C)."""

    columns: list[str]
    predictions: np.ndarray


def group_mean(encoder: TableEncoder, train: Encoded, targets: np.ndarray, valid: Encoded, seed: int) -> GroupMean:
    """Mean of the target, or frequency of each class, by the one or two columns that predict it best.

    Columns are chosen by the squared error (for classes, the Brier score) on a random fifth of the training rows (by
    `seed`), with means of at most `MOST_FITTED` of the others; the final means use all training rows. A group without
    training rows gets the overall mean. For classes, one pseudo-row with the overall frequencies is added to every
    group, to avoid frequencies of 0. For a target trained as a logarithm, the logarithm is averaged.

    Parameters
    ----------
    train, targets
        Training rows, and their `TableEncoder.targets`: (N, T) float32 or (N,) int64.
    valid
        Rows to predict.
    """
    names, sizes = list(encoder.categorical), [size for _, size in encoder.sizes()]
    classes = len(encoder.classes)
    columns = _best_columns(sizes, classes, train.categorical, targets, valid.categorical, seed)
    means, _ = _group_means(train.categorical, targets, columns, sizes, classes)
    parts = (_keys(valid.categorical[rows], columns, sizes) for rows in _chunks(len(valid)))
    predictions = np.concatenate([means[keys] for keys in parts])
    return GroupMean([names[column] for column in columns], encoder.predictions(predictions))


def _chunks(rows: int) -> Iterator[slice]:
    """Slices of at most `CHUNK_ROWS` rows; keys need several times the memory of their rows."""
    return (slice(start, start + CHUNK_ROWS) for start in range(0, max(rows, 1), CHUNK_ROWS))


def _keys(codes: np.ndarray, columns: Columns, sizes: list[int]) -> np.ndarray:
    """Number of each row's group, (N,) int64."""
    keys = np.zeros(len(codes), np.int64)
    for column in columns:
        keys = keys * sizes[column] + codes[:, column]
    return keys


def _group_means(
    codes: np.ndarray, targets: np.ndarray, columns: Columns, sizes: list[int], classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Means (G, T) or frequencies (G, C) by group, and rows (G,) per group.

    Uses `numpy.bincount`: scikit-learn's TargetEncoder takes 65 times as long, pandas' `groupby` 3 times.
    """
    groups = math.prod(sizes[column] for column in columns)
    counts, sums = np.zeros(groups, np.int64), np.zeros((groups, classes or targets.shape[1]))
    for rows in _chunks(len(codes)):
        keys, part = _keys(codes[rows], columns, sizes), targets[rows]
        counts += np.bincount(keys, minlength=groups)
        if classes:
            sums += np.bincount(keys * classes + part, minlength=sums.size).reshape(sums.shape)
        else:
            sums += np.stack([np.bincount(keys, weights=target, minlength=groups) for target in part.T], axis=1)
    if classes:
        overall = np.bincount(targets, minlength=classes) / len(targets)
        return (sums + overall) / (counts + 1)[:, None], counts
    overall = targets.mean(axis=0, dtype=np.float64)
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], overall), counts


def _best_columns(
    sizes: list[int], classes: int, codes: np.ndarray, targets: np.ndarray, valid_codes: np.ndarray, seed: int
) -> Columns:
    order = np.random.default_rng(seed).permutation(len(codes))
    judged, fitted = np.split(order, [min(int(JUDGED_SHARE * len(codes)), MOST_JUDGED)])
    fitted = fitted[:MOST_FITTED]
    if not len(judged):
        return ()
    codes, judged_codes, targets, judged_targets = codes[fitted], codes[judged], targets[fitted], targets[judged]

    @functools.cache
    def error(columns: Columns) -> float:
        means, counts = _group_means(codes, targets, columns, sizes, classes)
        error_of_groups = _error(means[_keys(judged_codes, columns, sizes)], judged_targets)
        # The random fifth shares days and groups with the other rows, the validation rows may not: penalise columns
        # whose groups do not cover the validation rows.
        parts = (_keys(valid_codes[rows], columns, sizes) for rows in _chunks(len(valid_codes)))
        unseen = sum(int((counts[keys] == 0).sum()) for keys in parts) / max(len(valid_codes), 1)
        return error_of_groups if unseen == 0 else (1 - unseen) * error_of_groups + unseen * error(())

    singles: list[Columns] = [(column,) for column, size in enumerate(sizes) if size < MOST_CODES]
    best = sorted(sorted(singles, key=error)[:BEST_COLUMNS])
    # A pair's groups average at least one row each, and their means fit in memory.
    most = min(len(fitted), MOST_ENTRIES // max(classes, 1))
    pairs = [first + second for first, second in combinations(best, 2)]
    return min([(), *best, *(pair for pair in pairs if sizes[pair[0]] * sizes[pair[1]] <= most)], key=error)


def _error(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Mean squared error in units of each target's variance, or the Brier score."""
    if targets.ndim == 2:
        variances = np.maximum(targets.var(axis=0, dtype=np.float64), np.finfo(np.float64).tiny)
        return float((np.square(predictions - targets) / variances).mean())
    hits = predictions[np.arange(len(targets)), targets]
    return float((np.square(predictions).sum(axis=1) - 2 * hits + 1).mean())
