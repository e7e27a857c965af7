"""What makes a result too good to be true: columns that tell the target, and rows on both sides of the split."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_datetime64_any_dtype, is_numeric_dtype
from scipy.stats import binom
from sklearn.tree import DecisionTreeClassifier

from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.tables.columns.column_names import is_entity
from unfreeze.models.tables.columns.encoding import Encoded, TableEncoder
from unfreeze.models.tables.preparing.splits import Split, mixed
from unfreeze.models.tables.reading.frames import CHUNK_ROWS

FEWEST_ROWS = 29
"""Rows that a warning needs: a column that is right in nine rows of ten is right in 29 of 29 once in 20 tables."""
_LEAK_CORRELATION = 0.98
_HONEST_CORRELATION = 0.9  # of ranks; below it Pearson's is that of a few outliers
_LEAK_SHARE = 0.985  # of the rows
_STRONG_SHARE, _CHANCE = 0.9, 0.05  # what a strong predictor tells, and how often one may be reported by chance
_FEWEST_OTHERS = 5  # rows that are not of the commonest class, or not of the commonest value
_MOST_LEAVES = 100
_MOST_UNEXPLAINED = {"sum": 1e-5, "product": 1e-3}
"""Share of the target's variance that a sum of columns leaves (rounded cents leave less), or of its logarithm's that a
product leaves (percents without decimals leave less)."""
_MOST_COMBINED = 50  # columns that the target may be a sum or product of
_SMALLEST_SHARE = 0.01  # of the target's deviation that a column of a sum moves
_ENTITY_VALUES = 10  # of fewer shops or machines all are known
_ENTITY_ROWS = 20_000
_MOST_COPIES = 0.01
_COPIES_BY_CHANCE = 10
_ADVICE = "if it is known only afterwards, exclude it"


def leaks(sample: pd.DataFrame, features: Sequence[str], target: str, *, classes: bool) -> list[str]:
    """A sentence for each column, or sum or product of columns, that tells the target almost alone.

    Of a class target: a column whose value tells it in 98.5 % of the rows and with a tenth of the mistakes of always
    guessing the commonest class, so often that a column which tells nine rows of ten right would be reported in at
    most one of 20 tables. Of numbers: a correlation above 0.98, which a column that correlates by 0.95 has in one of
    100 tables of 40 rows, and in fewer of more. The gaps of a column, and its commonest value against all others, are
    judged in the same way.
    """
    found = {name: _leak(sample[name], sample[target], classes=classes) for name in features}
    if not any(found.values()) and not classes:
        found[target] = _combination(sample, features, target)
    return [warning for warning in found.values() if warning is not None]


def _leak(column: pd.Series, target: pd.Series, *, classes: bool) -> str | None:
    name, missing = column.name, column.isna()
    told = None if is_datetime64_any_dtype(column) else _told(column[~missing], target[~missing], classes=classes)
    if told:
        return f"{name} tells {target.name} almost alone ({told}): {_ADVICE} (drop: [{name}])."
    marks = {"is missing": missing}
    if not _is_number(column) and not missing.all():
        value = column.mode().iloc[0]
        marks[f"is {value}"] = column == value
    # Such as an amount that is 0 unless something happened
    outcome = target if classes else (target == target.mode().iloc[0])
    for mark, marked in marks.items():
        if told := _told(marked, outcome, classes=True):
            return f"Whether {name} {mark} tells {target.name} almost alone ({told}): {_ADVICE} (drop: [{name}])."
    return None


def _is_number(column: pd.Series) -> bool:
    return is_numeric_dtype(column) and not is_bool_dtype(column)


def _told(column: pd.Series, target: pd.Series, *, classes: bool) -> str | None:
    """How well a column alone tells the target, if suspiciously well."""
    if len(column) < FEWEST_ROWS:
        return None
    if not classes:
        numbers = column if _is_number(column) else _means_of_others(column, target)
        known = numbers.notna()
        if known.sum() < FEWEST_ROWS or known.mean() < 1 / 2:
            return None
        strength = _correlation(numbers[known], target[known])
        return f"correlation {strength:.3f}" if strength > _LEAK_CORRELATION else None
    labels = pd.factorize(target)[0]
    rows, others = len(labels), len(labels) - int(np.bincount(labels).max())
    if others < _FEWEST_OTHERS:
        return None
    wrong = _wrong_by_value(column, labels)
    if _is_number(column):
        wrong = min(wrong, _wrong_by_thresholds(column, labels))
    if wrong > min((1 - _LEAK_SHARE) * rows, others / 10) or binom.cdf(wrong, rows, 1 - _STRONG_SHARE) > _CHANCE:
        return None
    return f"its value alone tells the class of {rows - wrong:,} of {rows:,} rows"


def _wrong_by_value(column: pd.Series, labels: np.ndarray) -> int:
    """Rows of another class than most of the other rows with their value."""
    codes, classes = pd.factorize(column)[0], int(labels.max()) + 1
    counts = np.sort(
        np.bincount(codes * classes + labels, minlength=(int(codes.max()) + 1) * classes).reshape(-1, classes), axis=1
    )
    right = counts[:, -1][counts[:, -1] - 1 > (counts[:, -2] if counts.shape[1] > 1 else 0)]
    return len(labels) - int(right.sum())


def _wrong_by_thresholds(column: pd.Series, labels: np.ndarray) -> int:
    """Rows that a decision tree of few leaves is wrong about: one leaf for each class, or for 50 rows."""
    rows, classes = len(labels), int(labels.max()) + 1
    leaves = max(3, classes, rows // 50)
    if leaves > _MOST_LEAVES or classes > rows / 2:  # hardly any class has two rows
        return rows
    tree = DecisionTreeClassifier(max_leaf_nodes=leaves, min_samples_leaf=max(1, rows // 100), random_state=0)
    # Ranks, because trees take float32, which cannot tell large numbers apart.
    ranks = column.rank(method="dense").to_numpy(np.float64)[:, None]
    return int((tree.fit(ranks, labels).predict(ranks) != labels).sum())


def _correlation(column: pd.Series, target: pd.Series) -> float:
    """The larger of Pearson's and Spearman's correlation, without sign."""
    pairs = ((column.astype(float), target.astype(float)), (column.rank(), target.rank()))
    values, ranks = (float(np.nan_to_num(abs(one.corr(other)), posinf=0.0)) for one, other in pairs)  # NaN: constant
    return max(values, ranks) if ranks > _HONEST_CORRELATION else ranks


def _means_of_others(column: pd.Series, target: pd.Series) -> pd.Series:
    """Mean of the target over the other rows with a row's value; NaN where there is no other."""
    numbers = target.astype(float)
    groups = numbers.groupby(column.to_numpy())
    others: pd.Series = (groups.transform("sum") - numbers) / (groups.transform("size") - 1).replace(0, np.nan)
    return others


def _combination(sample: pd.DataFrame, features: Sequence[str], target: str) -> str | None:
    """Whether columns add up to the target, with any weights, or it is a product or ratio of some."""
    names = [name for name in features if _is_number(sample[name]) or is_datetime64_any_dtype(sample[name])]
    rows = pd.DataFrame({name: _numbers(sample[name]) for name in [*names, target]})
    rows = rows.drop(columns=[name for name in names if rows[name].isna().mean() > 1 / 2]).dropna()
    if parts := _linear(rows, target, _MOST_UNEXPLAINED["sum"]):
        what, shown = "sum", " + ".join(f"{weight:.3g} * {name}" for name, weight in parts.items())
    else:
        positive = rows[[name for name in rows if (rows[name] > 0).mean() > 1 / 2 or name == target]]
        logs = positive[(positive > 0).all(axis=1)].apply(np.log)
        parts = _linear(logs, target, _MOST_UNEXPLAINED["product"])
        what, shown = "product", " * ".join(f"{name}^{power:.3g}" for name, power in parts.items())
    if not parts:
        return None
    return (
        f"{target} is a {what} of other columns ({shown}): if these are known only afterwards, exclude them "
        f"(drop: [{', '.join(parts)}])."
    )


def _numbers(column: pd.Series) -> pd.Series:
    """Numbers as they are, dates as days."""
    if is_datetime64_any_dtype(column):
        return pd.Series((column - column.min()) / pd.Timedelta(days=1))
    numbers: pd.Series = column.astype(float)
    return numbers


def _linear(rows: pd.DataFrame, target: str, most_unexplained: float) -> dict[str, float]:
    """Weights by column of a sum that is the target, on rows that they are not fitted to; empty if none is."""
    spread = rows.std()
    names = [name for name in rows.columns if spread[name] > 0 and name != target]
    # At least twice as many rows to fit the weights to as weights
    names = rows[names].corrwith(rows[target]).abs().nlargest(min(_MOST_COMBINED, len(rows) // 4 - 1)).index.tolist()
    if len(names) < 2 or len(rows) < FEWEST_ROWS or not spread[target] > 0:
        return {}
    inputs = ((rows[names] - rows[names].mean()) / spread[names]).to_numpy()
    wanted = ((rows[target] - rows[target].mean()) / spread[target]).to_numpy()
    inputs = np.column_stack([inputs, np.ones(len(inputs))])
    weights = np.linalg.lstsq(inputs[::2], wanted[::2], rcond=None)[0]
    if not np.var(wanted[1::2] - inputs[1::2] @ weights) < most_unexplained:
        return {}
    return {
        name: weight * spread[target] / spread[name]
        for name, weight in zip(names, weights, strict=False)
        if abs(weight) > _SMALLEST_SHARE
    }


def is_copy(column: pd.Series, target: pd.Series, *, classes: bool) -> bool:
    """Whether a column is the target itself: the same number in every row, or one value for each class.

    Rows without a value of the column are left out, if they are fewer than half.
    """
    present = column.notna()
    column, target = column[present], target[present]
    if len(column) < FEWEST_ROWS or present.mean() < 1 / 2:
        return False
    if not classes:
        return _is_number(column) and bool((column.to_numpy(float) == target.to_numpy(float)).all())
    labels = pd.factorize(target)[0]
    if len(labels) - np.bincount(labels).max() < _FEWEST_OTHERS:
        return False
    values = pd.factorize(column)[0]
    pairs = len(np.unique(np.stack([labels, values], axis=1), axis=0))
    return pairs == labels.max() + 1 == values.max() + 1 and pairs <= len(column) / 5


def shared_entities(
    frame: pd.DataFrame, features: Sequence[str], train: np.ndarray, valid: np.ndarray, data: TableDataSpec
) -> list[str]:
    """Where a random split has rows of the same customer or machine on both sides, by ids that occur several times."""
    if data.split != "random":
        return []
    found, rows = [], valid[:: max(1, len(valid) // _ENTITY_ROWS)]
    for name in (name for name in features if name in data.group or is_entity(name)):
        known = frame[name].iloc[train].dropna().unique()
        shared = frame[name].iloc[rows].isin(known).mean()
        if len(known) >= _ENTITY_VALUES and shared > 1 / 2:
            found.append(
                f"{shared:.0%} of the validation rows are of a {name} that is in the training as well: if predictions "
                f"are for new ones, validate whole ones (split: group, split_column: {name}), or the result is too "
                "good."
            )
    return found


def copies(encoder: TableEncoder, encoded: Encoded, targets: np.ndarray, split: Split) -> list[str]:
    """Where rows that validate or test have the very features of training rows, far more often than by chance.

    Ids may differ. Chance is that of columns that have nothing to do with each other: in tables of few categories equal
    rows are the rule.
    """
    both = encoder.categorical, encoder.continuous
    categorical, continuous = ([not is_entity(name) for name in names] for names in both)
    encoded = Encoded(encoded.categorical[:, categorical], encoded.continuous[:, continuous])
    features = _hashed(encoded)
    whole = _mixed_in(features.copy(), targets.reshape(len(targets), -1).astype(np.float32))
    expected, found = _share_by_chance(encoded, split.train), []
    for name, rows in (("validation", split.valid), ("test", split.test)):
        equal = int(_among(features, split.train, rows).sum())
        if equal <= max(_MOST_COPIES, _COPIES_BY_CHANCE * expected) * len(rows):
            continue
        same = int(_among(whole, split.train, rows).sum())
        if same * 2 >= equal:
            means = "The result is too good: remove copies, or keep them on one side"
        else:
            means = "Nothing tells the others apart: if they are of one case, keep them on one side"
        found.append(
            f"{equal:,} of {len(rows):,} {name} rows are copies of training rows in all but ids, {same:,} of them with "
            f"the same target. {means} (split: group, without split_column)."
        )
    return found


def _share_by_chance(encoded: Encoded, train: np.ndarray) -> float:
    """Share of rows that would equal a training row if the columns were independent; 1 at most."""
    share = float(len(train))
    for column in (*encoded.categorical.T, *encoded.continuous.T):
        counts = np.unique(column[train], return_counts=True)[1]
        share *= float(np.square(counts / len(train)).sum())
    return min(share, 1.0)


def _among(hashes: np.ndarray, train: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Which rows equal a training row; the table of hashes is of the fewer ones, those that match."""
    trained, others = pd.Series(hashes[train]), pd.Series(hashes[rows])
    return others.isin(trained[trained.isin(others)]).to_numpy()


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
