"""What is wrong with a table: rows and columns that cannot be used, and warnings about those that should not."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_datetime64_any_dtype, is_float_dtype, is_numeric_dtype

from unfreeze.models.errors import UserError
from unfreeze.models.reading.sampling import sample_rows
from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.tables.columns.encoding import is_quantity
from unfreeze.models.tables.columns.formats import is_text
from unfreeze.models.tables.columns.number_texts import MISSING_WORDS
from unfreeze.models.tables.preparing.leaks import leaks, shared_entities
from unfreeze.models.tables.reading.frames import count_up_to, in_chunks, unknown_column

MIN_ROWS = 20  # fewer usable rows are an error
SAMPLE_ROWS = 5_000
"""Rows that leaks are looked for in."""
_OWN_CATEGORY = 0.9


def check_table(
    frame: pd.DataFrame, targets: list[str], train: np.ndarray, valid: np.ndarray, data: TableDataSpec
) -> list[str]:
    """Warn, a sentence each, of what makes a result too good to be true, or a column useless.

    Looks at a sample of all rows for columns that tell the target (see `leaks`), and at the training rows for constant
    and empty columns, and text of which nearly every row is a category of its own. Also: classes that occur in
    validation only, a random split of rows that have a date, and entities on both sides of the split.

    Parameters
    ----------
    frame
        The rows, dates already parsed.
    train, valid
        Positions of the rows of each part.
    """
    not_features = {*targets, *([data.split_column] if data.split == "column" else [])}
    features = [str(column) for column in frame.columns if column not in not_features and column not in data.drop]
    sample = frame.iloc[sample_rows(np.arange(len(frame)), SAMPLE_ROWS)]
    found: list[str | None] = [_random_split_of_dates(frame, features, data)]
    found += shared_entities(frame, features, train, valid, data)
    for target in targets:
        classes = is_class(frame[target], data)
        if classes:
            found.append(_unseen_classes(frame[target], train, valid))
        found += leaks(sample, features, target, classes=classes)
    # A column at a time: all training rows at once would be a second table.
    found += [_useless(frame[column].iloc[train], column in data.continuous) for column in features]
    return [warning for warning in found if warning is not None]


def gaps(written: pd.Series, read: pd.Series) -> str:
    """A warning of the rows that a target leaves out, with what is written there; empty where there are none.

    Words for a missing value that are classes are named as well.

    Parameters
    ----------
    written, read
        The target (N,) as the file has it, and as it was read.
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
    if (
        is_text(read)
        and (words := read[read.astype("str").str.strip().str.lower().isin(MISSING_WORDS)].value_counts()).size
    ):
        named = ", ".join(f"{word!r} in {count:,} rows" for word, count in words.head(5).items())
        return f"{read.name}: {named} is a class like others; leave these rows out by data.where if it means no value."
    return ""


def drop_unusable_rows(frame: pd.DataFrame, targets: list[str]) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Exclude rows without a value of each of the `targets`. Infinite numbers count as missing.

    Returns the table, with the index of its rows, and what was rejected: dicts of what (`rows`, or a column's name),
    reason, and rows (how many it concerns).

    Raises UserError where a target is absent or constant, or fewer than 20 rows are left.
    """
    for target in targets:
        if target not in frame.columns:
            raise unknown_column(target, frame.columns, "target")
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
    """Exclude columns that are constant or empty; one with one value and gaps stays: the gaps may mean something.

    Columns in `keep` stay in any case: targets, and those that dates, groups or the split come from. Returns the table,
    and what was rejected, as `drop_unusable_rows` does.
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
        if name in data.date or _holds_dates(frame[name]):
            return (
                f"Rows are split at random although {name} holds dates: if the future is to be predicted, validate the "
                f"last days (date: [{name}], split: last_days), or the result is too good."
            )
    return None


def _holds_dates(column: pd.Series) -> bool:
    if is_numeric_dtype(column) or is_datetime64_any_dtype(column):
        return is_datetime64_any_dtype(column)
    first = column.dropna().head(100).astype(str)
    return len(first) > 0 and bool(first.str.match(r"\d{4}-\d{2}-\d{2}(\D|$)").all())


def is_class(target: pd.Series, data: TableDataSpec) -> bool:
    """Whether a target's values are classes, where the settings leave that open."""
    if data.task != "auto":
        return data.task == "classification"
    return not is_numeric_dtype(target) or is_bool_dtype(target) or not is_quantity(target)


def _unseen_classes(target: pd.Series, train: np.ndarray, valid: np.ndarray) -> str | None:
    unseen = sorted(set(map(str, target.iloc[valid].unique())) - set(map(str, target.iloc[train].unique())))
    return f"{', '.join(unseen[:3])} of {target.name} occurs in validation but never in training." if unseen else None


def _useless(column: pd.Series, continuous: bool) -> str | None:
    present = int(column.count())
    if not present:
        return f"{column.name} has no value in any training row."
    if present == len(column) and count_up_to(column, 2) == 1:
        return f"{column.name} has the same value in every training row."
    text = not is_numeric_dtype(column) and not is_datetime64_any_dtype(column)
    if text and not continuous and present >= MIN_ROWS and (values := column.nunique()) > _OWN_CATEGORY * present:
        return (
            f"{column.name} is text with {values} values in {present} rows: nearly every row is a category of its "
            f"own, which teaches nothing (drop: [{column.name}])."
        )
    return None
