"""What makes a result too good to be true: columns that give the target away, and rows on both sides of the split."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_datetime64_any_dtype, is_numeric_dtype

from unfreeze.models.specs.tables import TableDataSpec
from unfreeze.models.tables.column_names import is_id
from unfreeze.models.tables.encoding import Encoded
from unfreeze.models.tables.reading import CHUNK_ROWS
from unfreeze.models.tables.splits import Split, mixed

FEWEST_ROWS = 20
"""Rows with a value, or without one, that a warning needs at least."""
_LEAK_CORRELATION = 0.98
_LEAK_ACCURACY = 0.98
_ROWS_PER_VALUE = 10  # categories with fewer rows each say nothing about whether they give the target away
_BINS = 50
_MOST_UNEXPLAINED = 1e-5  # share of the target's variance that a sum of columns leaves; rounded cents leave less
_MOST_SUMMED = 50  # columns that may add up to the target
_SUMMED_ROWS = 5_000
_SMALLEST_SHARE = 0.01  # of the target's deviation that a column of a sum moves
_ENTITY_VALUES = 20  # of fewer shops or machines all are known
_ENTITY_ROWS = 20_000
_MOST_COPIES = 0.01
_ADVICE = "if it is known only afterwards, exclude it"


def leaks(sample: pd.DataFrame, features: Sequence[str], target: str, *, classes: bool) -> list[str]:
    """A sentence for each column, or sum of columns, that nearly gives the target away by its values or its gaps."""
    found = [_leak(sample[name], sample[target], classes=classes) for name in features]
    if not any(found) and not classes:
        found.append(_sum(sample, features, target))
    found += [_leaking_gaps(sample[name], sample[target], classes=classes) for name in features]
    return [warning for warning in found if warning is not None]


def _leak(column: pd.Series, target: pd.Series, *, classes: bool) -> str | None:
    both = column.notna() & target.notna()
    if is_datetime64_any_dtype(column) or both.sum() < FEWEST_ROWS:
        return None
    told = _tells(column[both], target[both], classes=classes)
    return told and f"{column.name} nearly gives {target.name} away ({told}): {_ADVICE} (drop: [{column.name}])."


def _leaking_gaps(column: pd.Series, target: pd.Series, *, classes: bool) -> str | None:
    """Where the gaps of a column tell the target: what is filled in afterwards, such as the day of a cancellation."""
    missing = column.isna()
    if min(missing.sum(), (~missing).sum()) < FEWEST_ROWS:
        return None
    told = _tells(missing, target, classes=classes)
    return told and (
        f"Whether {column.name} is missing nearly gives {target.name} away ({told}): {_ADVICE} (drop: [{column.name}])."
    )


def _tells(column: pd.Series, target: pd.Series, *, classes: bool) -> str | None:
    """How well a column alone tells the target, if suspiciously well."""
    numbers = is_numeric_dtype(column) and not is_bool_dtype(column)
    if classes:
        accuracy = _accuracy_by_value(_bins(column) if numbers else column, target)
        return None if accuracy is None else f"its value alone tells the class of {accuracy:.1%} of the rows"
    strength = _correlation(column, target) if numbers else _correlation_of_means(column, target)
    return f"correlation {strength:.3f}" if strength > _LEAK_CORRELATION else None


def _sum(sample: pd.DataFrame, features: Sequence[str], target: str) -> str | None:
    """Whether columns add up to the target, with any weights, on rows that these are not fitted to."""
    numbers = [name for name in features if is_numeric_dtype(sample[name]) and not is_bool_dtype(sample[name])]
    rows = sample[[*numbers, target]].iloc[:_SUMMED_ROWS].astype(float)
    rows = rows.drop(columns=[name for name in numbers if rows[name].isna().mean() > 1 / 2]).dropna()
    spread = rows.std()
    names = [name for name in rows.columns[:-1] if spread[name] > 0]
    names = rows[names].corrwith(rows[target]).abs().nlargest(_MOST_SUMMED).index.tolist()
    if len(names) < 2 or len(rows) < max(2 * FEWEST_ROWS, 10 * len(names)) or not spread[target] > 0:
        return None
    inputs = ((rows[names] - rows[names].mean()) / spread[names]).to_numpy()
    wanted = ((rows[target] - rows[target].mean()) / spread[target]).to_numpy()
    inputs = np.column_stack([inputs, np.ones(len(inputs))])
    weights = np.linalg.lstsq(inputs[::2], wanted[::2], rcond=None)[0]
    if not np.var(wanted[1::2] - inputs[1::2] @ weights) < _MOST_UNEXPLAINED:
        return None
    parts = {name: weight for name, weight in zip(names, weights, strict=False) if abs(weight) > _SMALLEST_SHARE}
    shown = " + ".join(f"{weight * spread[target] / spread[name]:.3g} * {name}" for name, weight in parts.items())
    return (
        f"{target} is a sum of other columns ({shown}): if these are known only afterwards, exclude them "
        f"(drop: [{', '.join(parts)}])."
    )


def _bins(column: pd.Series) -> pd.Series:
    """Number of the quantile that a value is in; equal values share one."""
    return column if column.nunique() <= _BINS else (column.rank(pct=True) * _BINS).astype(int)


def _accuracy_by_value(column: pd.Series, target: pd.Series) -> float | None:
    """How often the commonest class of a value is right; None where that is not suspicious.

    A row is taken off every value, as one row alone always agrees with itself. Where nearly all rows are of one class
    anyway, the column must make a tenth of the mistakes of the commonest class.
    """
    counts = pd.crosstab(column.to_numpy(), target.to_numpy()).to_numpy()
    rows, values = counts.sum(), len(counts)
    if values < 2 or values * _ROWS_PER_VALUE > rows:
        return None
    accuracy = float((counts.max(axis=1).sum() - values) / (rows - values))
    commonest = float(counts.sum(axis=0).max() / rows)
    suspicious = accuracy > _LEAK_ACCURACY and (1 - accuracy) <= (1 - commonest) / 10 and commonest < 1
    return accuracy if suspicious else None


def _correlation(column: pd.Series, target: pd.Series) -> float:
    """The larger of Pearson's and Spearman's correlation, without sign."""
    pairs = ((column.astype(float), target.astype(float)), (column.rank(), target.rank()))
    return max(float(np.nan_to_num(abs(one.corr(other)), posinf=0.0)) for one, other in pairs)  # NaN of a constant


def _correlation_of_means(column: pd.Series, target: pd.Series) -> float:
    """Correlation of the target with its mean by value of the column (0 for too many values to tell)."""
    if not 2 <= column.nunique() <= len(column) / _ROWS_PER_VALUE:
        return 0.0
    numbers = target.astype(float)
    return _correlation(numbers.groupby(column.to_numpy()).transform("mean"), numbers)


def shared_entities(
    frame: pd.DataFrame, features: Sequence[str], train: np.ndarray, valid: np.ndarray, data: TableDataSpec
) -> list[str]:
    """Where a random split has rows of the same customer or machine on both sides, by ids that occur several times."""
    if data.split != "random":
        return []
    found, rows = [], valid[:: max(1, len(valid) // _ENTITY_ROWS)]
    for name in (name for name in features if name in data.group or is_id(name)):
        known = frame[name].iloc[train].dropna().unique()
        shared = frame[name].iloc[rows].isin(known).mean()
        if len(known) >= _ENTITY_VALUES and shared > 1 / 2:
            found.append(
                f"{shared:.0%} of the validation rows are of a {name} that is in the training as well: if predictions "
                f"are for new ones, validate whole ones (split: group, split_column: {name}), or the result is too "
                "good."
            )
    return found


def copies(encoded: Encoded, targets: np.ndarray, split: Split) -> list[str]:
    """Where validation rows have the very features of training rows.

    Tables of categories alone are left out: there equal rows are the rule.
    """
    if not encoded.continuous.shape[1]:
        return []
    features = _hashed(encoded)
    equal = _among(features, split)
    if equal.mean() <= _MOST_COPIES:
        return []
    labels = targets.reshape(len(targets), -1).astype(np.float32)
    same = int(_among(_mixed_in(features, labels), split).sum())
    warning = (
        f"{int(equal.sum()):,} of {len(equal):,} validation rows have the features of a training row to the last "
        f"value, {same:,} of them its target as well: remove copies, or validate whole groups of rows (split: group), "
        "or the result is too good."
    )
    return [warning]


def _among(hashes: np.ndarray, split: Split) -> np.ndarray:
    """Which validation rows are equal to a training row; the table of hashes is of the fewer ones, those that match."""
    train, valid = pd.Series(hashes[split.train]), pd.Series(hashes[split.valid])
    return valid.isin(train[train.isin(valid)]).to_numpy()


def _hashed(encoded: Encoded) -> np.ndarray:
    """A number (N,) uint64 for what each row holds."""
    return _mixed_in(_mixed_in(np.zeros(len(encoded), np.uint64), encoded.categorical), encoded.continuous)


def _mixed_in(hashes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Hashes (N,) uint64, in place, of before and of values (N, K) of 4 bytes each."""
    for start in range(0, len(hashes), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        for column in values[rows].T:
            # + 0: -0.0 is 0, and a column of a matrix becomes an array of its own.
            hashes[rows] = mixed(
                hashes[rows] ^ (column + column.dtype.type(0)).view(np.uint32) ^ np.uint64(len(values.T))
            )
    return hashes
