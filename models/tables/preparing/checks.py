"""Checks of a table: unusable rows and columns, and leaks that make results too good to be true."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_datetime64_any_dtype, is_float_dtype, is_numeric_dtype
from scipy.stats import binom
from sklearn.tree import DecisionTreeClassifier

from unfreeze.models.errors import UserError
from unfreeze.models.reading.sampling import sample_rows
from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.tables.columns.column_names import is_entity
from unfreeze.models.tables.columns.encoding import Encoded, TableEncoder, is_quantity
from unfreeze.models.tables.columns.formats import is_text
from unfreeze.models.tables.columns.number_texts import is_missing
from unfreeze.models.tables.preparing.splits import Split
from unfreeze.models.tables.reading.frames import CHUNK_ROWS, count_up_to, in_chunks, require

FEWEST_ROWS = 29
"""Least rows for a warning: a column that is right in nine of ten rows is right in 29 of 29 once in 20 tables."""
_LEAK_CORRELATION = 0.98
_HONEST_CORRELATION = 0.9  # of ranks; below it Pearson's is due to a few outliers
_LEAK_SHARE = 0.985  # of the rows
_STRONG_SHARE, _CHANCE = 0.9, 0.05  # accuracy of a strong predictor, and how often one may be reported by chance
_FEWEST_OTHERS = 5  # rows outside the commonest class or value
_MOST_LEAVES = 100
_ENTITY_VALUES = 10  # with fewer shops or machines all are known
_ENTITY_ROWS = 20_000
_MOST_COPIES = 0.01
_COPIES_BY_CHANCE = 10
_ADVICE = "if it is known only afterwards, exclude it"
MIN_ROWS = 20  # fewer usable rows are an error
SAMPLE_ROWS = 5_000
"""Rows sampled to detect leaks."""


def leaks(sample: pd.DataFrame, features: Sequence[str], target: str, *, classes: bool) -> list[str]:
    """Warn of each column that nearly determines the target alone.

    For classes: the column predicts 98.5 % of the rows with a tenth of the errors of always guessing the commonest
    class, at a significance where a column that is right in nine of ten rows is reported in at most one of 20 tables.
    For numbers: a correlation above 0.98, which a column with a true correlation of 0.95 reaches in one of 100 tables
    of 40 rows, and less often with more rows. A column's gaps, and its commonest value against all others, are tested
    likewise.
    """
    found = (_leak(sample[name], sample[target], classes=classes) for name in features)
    return [warning for warning in found if warning is not None]


def _leak(column: pd.Series, target: pd.Series, *, classes: bool) -> str | None:
    name, missing = column.name, column.isna()
    told = None if is_datetime64_any_dtype(column) else _told(column[~missing], target[~missing], classes=classes)
    if told:
        return f"{name} tells {target.name} almost alone ({told}): {_ADVICE} (drop: [{name}])."
    marks = {"is missing": missing}
    if not _is_number(column) and not missing.all():
        value = column.mode().iloc[0]
        marks[f"is {value}"] = column == value
    # such as an amount that is 0 unless something happened
    outcome = target if classes else (target == target.mode().iloc[0])
    for mark, marked in marks.items():
        if told := _told(marked, outcome, classes=True):
            return f"Whether {name} {mark} tells {target.name} almost alone ({told}): {_ADVICE} (drop: [{name}])."
    return None


def _is_number(column: pd.Series) -> bool:
    return is_numeric_dtype(column) and not is_bool_dtype(column)


def _told(column: pd.Series, target: pd.Series, *, classes: bool) -> str | None:
    """How well a column alone predicts the target, if suspiciously well."""
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
    """Number of rows whose class differs from the majority of the other rows with their value."""
    codes, classes = pd.factorize(column)[0], int(labels.max()) + 1
    pairs = np.bincount(codes * classes + labels, minlength=(int(codes.max()) + 1) * classes)
    counts = np.sort(pairs.reshape(-1, classes), axis=1)
    right = counts[:, -1][counts[:, -1] - 1 > (counts[:, -2] if counts.shape[1] > 1 else 0)]
    return len(labels) - int(right.sum())


def _wrong_by_thresholds(column: pd.Series, labels: np.ndarray) -> int:
    """Number of rows misclassified by a small decision tree: one leaf per class, or per 50 rows."""
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
    """Mean of the target over the other rows with a row's value; NaN if there are no others."""
    numbers = target.astype(float)
    groups = numbers.groupby(column.to_numpy())
    others: pd.Series = (groups.transform("sum") - numbers) / (groups.transform("size") - 1).replace(0, np.nan)
    return others


def is_copy(column: pd.Series, target: pd.Series, *, classes: bool) -> bool:
    """Whether a column is the target itself: the same number in every row, or one value for each class.

    Rows without a value in the column are ignored if they are fewer than half.
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
    """Warn of customers, machines and the like on both sides of a random split."""
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
    """Warn where validation or test rows copy the features of training rows far more often than by chance.

    Ids may differ. The chance level assumes independent columns, as equal rows are common in tables of few categories.
    """
    both = encoder.categorical, encoder.continuous
    categorical, continuous = ([not is_entity(name) for name in names] for names in both)
    encoded = Encoded(encoded.categorical[:, categorical], encoded.continuous[:, continuous])
    features = _hashed(encoded.categorical, encoded.continuous)
    whole = _hashed(features[:, None], targets.reshape(len(targets), -1))
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
    """Expected share of rows equal to a training row if columns were independent, at most 1."""
    share = float(len(train))
    for column in (*encoded.categorical.T, *encoded.continuous.T):
        counts = np.unique(column[train], return_counts=True)[1]
        share *= float(np.square(counts / len(train)).sum())
    return min(share, 1.0)


def _among(hashes: np.ndarray, train: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Mask of rows equal to a training row; the hash table holds only the fewer, matching ones."""
    trained, others = pd.Series(hashes[train]), pd.Series(hashes[rows])
    return others.isin(trained[trained.isin(others)]).to_numpy()


def _hashed(*matrices: np.ndarray) -> np.ndarray:
    """Hash (N,) uint64 of each row of matrices (N, K)."""
    parts = []
    for start in range(0, len(matrices[0]), CHUNK_ROWS):
        chunks = [each[start : start + CHUNK_ROWS] for each in matrices]
        columns = [column + 0 for each in chunks for column in each.T]  # + 0: -0.0 is 0
        frame = pd.DataFrame(dict(enumerate([np.zeros(len(chunks[0])), *columns])))
        parts.append(pd.util.hash_pandas_object(frame, index=False).to_numpy())
    return np.concatenate(parts)


def check_table(
    frame: pd.DataFrame, targets: list[str], train: np.ndarray, valid: np.ndarray, data: TableDataSpec
) -> list[str]:
    """Warn, a sentence each, of anything that makes results too good to be true.

    Columns that determine the target (see `leaks`, on a sample of all rows), classes only in validation, a random split
    of dated rows, and entities on both sides of the split.

    Parameters
    ----------
    frame
        The rows, dates already parsed.
    train, valid
        Positions of each part's rows.
    """
    not_features = {*targets, *([data.split_column] if data.split == "column" else [])}
    features = [str(column) for column in frame.columns if column not in not_features and column not in data.drop]
    sample = frame.iloc[sample_rows(np.arange(len(frame)), SAMPLE_ROWS)]
    found: list[str | None] = [_random_split_of_dates(frame, features, data)]
    found += shared_entities(frame, features, train, valid, data)
    for target in targets:
        if classes := is_class(frame[target], data):
            found.append(_unseen_classes(frame[target], train, valid))
        found += leaks(sample, features, target, classes=classes)
    return [warning for warning in found if warning is not None]


def gaps(written: pd.Series, read: pd.Series) -> str:
    """Warn of rows left out for a missing target, quoting their values; else empty.

    Missing-value words that are classes are named too.

    Parameters
    ----------
    written, read
        The target (N,) as in the file, and as read.
    """
    missing = read.isna()
    if is_float_dtype(read):
        missing |= read.isin([np.inf, -np.inf])
    if missing.any():
        texts = written[missing].astype("str").where(written[missing].notna(), "").str.strip()
        counts = texts.map(lambda text: repr(text) if text else "nothing").value_counts()
        named = ", ".join(f"{text} in {count:,}" for text, count in counts.head(5).items())
        more = f" and {len(counts) - 5:,} other texts" if len(counts) > 5 else ""
        return f"{missing.sum():,} rows are left out, as {read.name} has no value there: {named}{more}."
    if is_text(read) and (words := read[is_missing(read.astype("str"))].value_counts()).size:
        named = ", ".join(f"{word!r} in {count:,} rows" for word, count in words.head(5).items())
        return f"{read.name}: {named} is a class like others; leave these rows out by data.where if it means no value."
    return ""


def drop_unusable_rows(frame: pd.DataFrame, targets: list[str]) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Exclude rows without a value of each of the `targets`. Infinite numbers count as missing.

    Returns the table, with its index kept, and the rejected rows: dicts of what (`rows`, or a column's name), reason,
    and rows (the number affected).

    Raises UserError where a target is absent or constant, or fewer than 20 rows are left.
    """
    require(frame, targets, "target")
    rejected: list[dict[str, Any]] = []
    for column in (name for name in frame.columns if is_float_dtype(frame[name])):
        infinite = np.concatenate([part.isin([np.inf, -np.inf]).to_numpy() for part in in_chunks(frame[column])])
        if infinite.any():
            reason = "an infinite value counts as missing"
            rejected.append({"what": column, "reason": reason, "rows": int(infinite.sum())})
            frame = frame.assign(**{column: frame[column].mask(infinite)})
    for target in targets:
        missing = frame[target].isna()
        if missing.any():
            rejected.append({"what": "rows", "reason": f"{target} is missing", "rows": int(missing.sum())})
            frame = frame[~missing]
    if len(frame) < MIN_ROWS:
        raise UserError(
            f"{len(frame)} usable rows with a value of {', '.join(targets)}; at least {MIN_ROWS} are needed"
        )
    for target in targets:
        if count_up_to(frame[target], 2) == 1:
            raise UserError(f"target {target}: {frame[target].iloc[0]!r} in every row; there is nothing to learn")
    return frame, rejected


def drop_unusable_columns(frame: pd.DataFrame, keep: Sequence[str]) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Exclude constant and empty columns; one with a single value and gaps stays, as gaps may be informative.

    Columns in `keep` always stay: targets and the sources of dates, groups or the split. Returns the table and the
    rejected columns, as `drop_unusable_rows` does.
    """
    reasons = {
        column: "no value in any row" if frame[column].isna().all() else "the same value in every row"
        for column in frame.columns
        if column not in keep and count_up_to(frame[column], 2, missing=True) == 1
    }
    rejected = [{"what": column, "reason": reason, "rows": len(frame)} for column, reason in reasons.items()]
    return frame.drop(columns=list(reasons)), rejected


def _random_split_of_dates(frame: pd.DataFrame, features: list[str], data: TableDataSpec) -> str | None:
    if data.split not in ("auto", "random") or (data.split == "auto" and data.date):
        return None
    for name in features:
        if name in data.date or is_datetime64_any_dtype(frame[name]):
            return (
                f"Rows are split at random although {name} holds dates: if the future is to be predicted, validate the "
                f"last days (date: [{name}], split: last_days), or the result is too good."
            )
    return None


def is_class(target: pd.Series, data: TableDataSpec) -> bool:
    """Whether a target's values are classes, if the settings leave that open."""
    if data.task != "auto":
        return data.task == "classification"
    return not is_numeric_dtype(target) or is_bool_dtype(target) or not is_quantity(target)


def _unseen_classes(target: pd.Series, train: np.ndarray, valid: np.ndarray) -> str | None:
    unseen = sorted(set(map(str, target.iloc[valid].unique())) - set(map(str, target.iloc[train].unique())))
    return f"{', '.join(unseen[:3])} of {target.name} occurs in validation but never in training." if unseen else None
