"""What the network has to beat: means by group and gradient-boosted trees, on the rows and features it gets."""

import functools
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from models.tables.encoding import Encoded, TableEncoder

JUDGED_SHARE = 0.2
"""Share of the training rows on which the columns to group by are chosen."""
MOST_JUDGED = 100_000
"""Rows for that at most."""
MOST_CODES = 5_000
"""Columns with as many codes are not grouped by: too few rows would be left in a group."""
BEST_COLUMNS = 10
"""How many of the best columns are tried in pairs."""
MOST_ENTRIES = 50_000_000
"""Groups times classes in a table of frequencies, at most (400 MB)."""
BOOSTED_CODES = 255
"""What scikit-learn's trees take as categories at most; a column with more codes is a number to them."""
SET_ASIDE = 0.1
"""Share of the training rows on which trees are judged while they are added."""
PATIENCE = 20
"""No tree is added after so many that did not help the rows set aside."""

Columns = tuple[int, ...]
"""Positions of categorical columns; none: all rows are one group."""


@dataclass(frozen=True)
class GroupMean:
    """Columns grouped by, and predictions: values (N, T) in the target's own scale, or frequencies (N, C)."""

    columns: list[str]
    predictions: np.ndarray


def group_mean(encoder: TableEncoder, train: Encoded, targets: np.ndarray, valid: Encoded, seed: int) -> GroupMean:
    """Mean of the target, or frequency of each class, by the one or two columns that predict it best.

    Columns are chosen on a random fifth of the training rows by the squared error (of classes: the Brier score). A
    group without training rows gets the mean of all. So that no frequency is 0, a classification counts in every group
    one more row, which has the frequencies of all. Of a target trained as a logarithm, the logarithm is averaged.

    Parameters
    ----------
    encoder
        Fitted on the training rows.
    train, targets
        Training rows, and `TableEncoder.targets` of them: (N, T) float32 or (N,) int64.
    valid
        Rows to predict; their number is that of the predictions.
    seed
        Chooses the fifth.
    """
    names, sizes = list(encoder.categorical), [size for _, size in encoder.sizes()]
    classes = len(encoder.classes)
    columns = _best_columns(sizes, classes, train.categorical, targets, valid.categorical, seed)
    table = _table(train.categorical, targets, columns, sizes, classes)
    predictions = table.means[_keys(valid.categorical, columns, sizes)]
    return GroupMean([names[column] for column in columns], encoder.predictions(predictions))


def gradient_boosting(
    encoder: TableEncoder, train: Encoded, targets: np.ndarray, valid: Encoded, seed: int, rounds: int = 600
) -> np.ndarray:
    """Predictions of scikit-learn's histogram gradient boosting.

    Parameters
    ----------
    encoder
        Fitted on the training rows.
    train, targets
        Training rows, and `TableEncoder.targets` of them: (N, T) float32 or (N,) int64.
    valid
        Rows to predict.
    seed
        Chooses the rows set aside to stop early.
    rounds
        Trees (per class) at most.

    Returns
    -------
    numpy.ndarray
        Values (N, T) in the target's own scale, or probabilities (N, C); float64.
    """
    # Without ten rows of every class there might be none of one among those set aside.
    fewest = int(np.unique(targets, return_counts=True)[1].min()) if encoder.classes else len(targets)
    settings = {
        "max_iter": rounds,
        "categorical_features": _boosted_categories(encoder),
        "early_stopping": fewest >= 1 / SET_ASIDE,
        "validation_fraction": SET_ASIDE,
        "n_iter_no_change": PATIENCE,
        "random_state": seed,
    }
    rows, wanted = _features(train), _features(valid)
    if encoder.classes:
        classifier = HistGradientBoostingClassifier(**settings).fit(rows, targets)
        probabilities = np.zeros((len(valid), len(encoder.classes)))
        probabilities[:, classifier.classes_] = classifier.predict_proba(wanted)
        return probabilities
    models = [HistGradientBoostingRegressor(**settings).fit(rows, target) for target in targets.T]
    return encoder.predictions(np.stack([model.predict(wanted) for model in models], axis=1))


def _features(encoded: Encoded) -> np.ndarray:
    """Codes and numbers side by side, (N, K + M) float64: the type that scikit-learn's trees work with."""
    return np.concatenate([encoded.categorical, encoded.continuous], axis=1, dtype=np.float64)


def _boosted_categories(encoder: TableEncoder) -> np.ndarray:
    """Which features (K + M,) bool are categories to the trees."""
    return np.array([size <= BOOSTED_CODES for _, size in encoder.sizes()] + [False] * len(encoder.continuous))


@dataclass(frozen=True)
class _Table:
    """Means (G, T) or frequencies (G, C) by group, and how many rows (G,) each group has."""

    means: np.ndarray
    counts: np.ndarray


def _keys(codes: np.ndarray, columns: Columns, sizes: list[int]) -> np.ndarray:
    """Number of each row's group, (N,) int64; without columns all rows are one group."""
    keys = np.zeros(len(codes), np.int64)
    for column in columns:
        keys = keys * sizes[column] + codes[:, column]
    return keys


def _groups(columns: Columns, sizes: list[int]) -> int:
    return int(np.prod([sizes[column] for column in columns], dtype=np.int64))


def _table(codes: np.ndarray, targets: np.ndarray, columns: Columns, sizes: list[int], classes: int) -> _Table:
    groups, keys = _groups(columns, sizes), _keys(codes, columns, sizes)
    counts = np.bincount(keys, minlength=groups)
    if classes:
        sums = np.bincount(keys * classes + targets, minlength=groups * classes).reshape(groups, classes)
        overall = np.bincount(targets, minlength=classes) / len(targets)
        return _Table((sums + overall) / (counts + 1)[:, None], counts)
    sums = np.stack([np.bincount(keys, weights=target, minlength=groups) for target in targets.T], axis=1)
    overall = targets.mean(axis=0, dtype=np.float64)
    return _Table(np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], overall), counts)


def _best_columns(
    sizes: list[int], classes: int, codes: np.ndarray, targets: np.ndarray, valid_codes: np.ndarray, seed: int
) -> Columns:
    order = np.random.default_rng(seed).permutation(len(codes))
    judged, fitted = np.split(order, [min(int(JUDGED_SHARE * len(codes)), MOST_JUDGED)])
    if not len(judged):
        return ()
    codes, judged_codes, targets, judged_targets = codes[fitted], codes[judged], targets[fitted], targets[judged]

    @functools.cache
    def error(columns: Columns) -> float:
        table = _table(codes, targets, columns, sizes, classes)
        error_of_groups = _error(table.means[_keys(judged_codes, columns, sizes)], judged_targets)
        # The random fifth shares days and groups with the other rows, the validation rows may not: what those cannot
        # be looked up by must not seem good.
        unseen = float((table.counts[_keys(valid_codes, columns, sizes)] == 0).mean()) if len(valid_codes) else 0.0
        return error_of_groups if unseen == 0 else (1 - unseen) * error_of_groups + unseen * error(())

    singles: list[Columns] = [(column,) for column, size in enumerate(sizes) if size < MOST_CODES]
    best = sorted(sorted(singles, key=error)[:BEST_COLUMNS])
    pairs = [first + second for first, second in combinations(best, 2)]
    candidates = [(), *best, *(pair for pair in pairs if _fits(pair, sizes, classes, len(fitted)))]
    return min(candidates, key=error)


def _fits(columns: Columns, sizes: list[int], classes: int, rows: int) -> bool:
    """Whether groups have at least a row each, if all occur, and their means fit in memory."""
    groups = _groups(columns, sizes)
    return groups <= rows and groups * max(classes, 1) <= MOST_ENTRIES


def _error(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Mean squared error in units of each target's variance, or the Brier score."""
    if targets.ndim == 2:
        variances = np.maximum(targets.var(axis=0, dtype=np.float64), np.finfo(np.float64).tiny)
        return float((np.square(predictions - targets) / variances).mean())
    hits = predictions[np.arange(len(targets)), targets]
    return float((np.square(predictions).sum(axis=1) - 2 * hits + 1).mean())
