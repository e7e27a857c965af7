"""Encode columns as network inputs by the training rows: category codes, normal scores of numbers, and targets.

Missing numbers are filled and flagged as in fastai 0.7 (``proc_df``, ``fix_missing``), which also sets the embedding
widths. After Guo and Berkhahn, "Entity Embeddings of Categorical Variables", 2016.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import ndtri

from unfreeze.models.errors import UserError
from unfreeze.models.settings.tables import CATEGORY_VALUES, TableDataSpec
from unfreeze.models.tables.columns.dates import elapsed_name
from unfreeze.models.tables.columns.kinds import (
    codes_of,
    count_categories,
    has_fractions,
    kind_of,
    numbers_of,
    whole_numbers_of,
    without_categories,
)
from unfreeze.models.tables.columns.target_means import trusted_rows, values_of
from unfreeze.models.tables.reading.frames import count_up_to, in_chunks, require
from unfreeze.models.targets import Category, Numbers, SingleLabel, Target

REGRESSION_VALUES = 20
"""A target of whole numbers with more values than this is a regression unless the spec says otherwise."""
MOST_CATEGORIES = 10_000
"""Categories per column; beyond it the rarest are merged."""
MOST_QUANTILES, ROWS_PER_QUANTILE = 1001, 30
TAIL = 1e-4
"""Share of the rows at which normal scores are clipped: 3.7 deviations."""
LARGEST = 1e18
"""Limit of a target; the square of a larger one overflows float32."""
_NO_VALUE = "there is no value; drop such rows"
_KIND_NAMES = {"text": "text", "bool": "true or false", "number": "numbers"}


@dataclass(frozen=True)
class Encoded:
    """The network's inputs: `categorical` (N, K) int32, 0 for missing or unseen, and `continuous` (N, M) float32."""

    categorical: np.ndarray
    continuous: np.ndarray

    def __len__(self) -> int:
        return len(self.categorical)

    def rows(self, rows: np.ndarray) -> "Encoded":
        """Select rows by number (B,) int64 or mask (N,) bool."""
        return Encoded(self.categorical[rows], self.continuous[rows])


@dataclass(frozen=True)
class TableEncoder:
    """Statistics of the training rows by column, learned by `fit`.

    Attributes
    ----------
    log_target
        Whether the network is trained on log(1 + target).
    classes
        Sorted; empty for regression.
    target_means, target_deviations
        Of the training targets in a regression, per target, after the logarithm.
    categorical
        Column -> its categories, sorted; the category at position i has code i + 1. Flags of missing numbers
        (``<name>_na``) come last.
    counts, trusted_rows
        Categorical column -> training rows of each code (missing and unseen first), and how many rows it takes to
        trust a category, see `unfreeze.models.tables.columns.target_means`.
    continuous
        Column -> its quantiles at even shares, an odd number: the middle one is the median. A column of a few whole
        numbers is ordered, so it is both here and among the categories unless the spec names it as a category.
    flags, kinds, rejected
        Flag -> the column whose missing values it marks; column -> ``text``, ``bool`` or ``number``, which later tables
        must match; column without information -> the reason.
    """

    task: Literal["regression", "classification"]
    target_names: list[str]
    log_target: bool
    classes: list[Category]
    target_means: list[float]
    target_deviations: list[float]
    categorical: dict[str, list[Category]] = field(default_factory=dict)
    counts: dict[str, list[int]] = field(default_factory=dict)
    trusted_rows: dict[str, float] = field(default_factory=dict)
    continuous: dict[str, list[float]] = field(default_factory=dict)
    flags: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)

    @classmethod
    def fit(cls, frame: pd.DataFrame, train: np.ndarray, data: TableDataSpec) -> "TableEncoder":
        """Learn categories, medians, means and the task from a joined and filtered table with date parts.

        `train` selects the training rows by number (n,) int64 or mask (N,) bool; no other row is used.

        Raises
        ------
        UserError
            If a column named in `data` is missing, a column is neither text nor numbers, or the targets do not fit the
            task.
        """
        _check_names(frame, train, data)
        targets = without_categories(frame[data.target].iloc[train])
        if _is_regression(targets, data):
            values = [_regressed(targets[name], data.log_target) for name in data.target]
            means, deviations = ([float(statistic(each)) for each in values] for statistic in (np.mean, np.std))
            encoder = cls("regression", list(data.target), data.log_target, [], means, deviations)
        else:
            encoder = cls("classification", list(data.target), data.log_target, _classes(targets, data), [], [])
        known = encoder.targets(targets)
        unused = {*data.target, *data.drop, *([data.split_column] if data.split == "column" else [])}
        for name in (name for name in frame if name not in unused):  # all columns at once would copy the table
            encoder._add(without_categories(frame[[name]].iloc[train])[name], data, known)
        if taken := sorted(set(encoder.flags) & set(frame.columns)):
            raise UserError(f"column {', '.join(taken)}: the name is wanted for a flag of missing values; rename it")
        encoder.categorical.update((flag, [False, True]) for flag in encoder.flags)
        if not encoder.categorical and not encoder.continuous:
            raise UserError("no column is left to predict from: all are targets, dropped, empty or constant")
        return encoder

    def _add(self, column: pd.Series, data: TableDataSpec, targets: np.ndarray) -> None:
        """Learn one feature from its training rows and their targets."""
        name, kind = str(column.name), kind_of(column)
        if kind == "empty" or (kind == "number" and np.isnan(numbers_of(column)).all()):
            self.rejected[name] = "no value in the training rows"
            return
        self.kinds[name] = kind
        if _is_category(column, kind, data):
            counts = count_categories(column, kind)
            counts = counts.sort_values(ascending=False, kind="stable")
            kept = counts.iloc[:MOST_CATEGORIES].sort_index()
            self.categorical[name] = kept.index.tolist()
            self.counts[name] = [len(column) - int(kept.sum()), *kept.tolist()]
            codes, values = codes_of(column, self.categorical[name]), values_of(targets, len(self.classes))
            self.trusted_rows[name] = trusted_rows(codes, values, len(kept) + 1)
            if kind == "number" and name not in data.categorical and len(kept) > 2:
                known = numbers_of(column)
                self.continuous[name] = quantiles_of(known[~np.isnan(known)])
            return
        numbers = numbers_of(column)
        missing = np.isnan(numbers)
        if missing.any():
            self.flags[flag := f"{name}_na"] = name
            self.counts[flag] = [0, int((~missing).sum()), int(missing.sum())]
            self.trusted_rows[flag] = trusted_rows(1 + missing, values_of(targets, len(self.classes)), 3)
            numbers = numbers[~missing]
        if numbers.min() < numbers.max():
            self.continuous[name] = quantiles_of(numbers)
        else:
            self.rejected[name] = f"{numbers[0]:g} in every training row"

    def transform(self, frame: pd.DataFrame) -> Encoded:
        """Encode rows with the columns of the training table, in any order; targets may be absent.

        Raises
        ------
        UserError
            If columns are missing, or are text where the training rows were numbers or the reverse.
        """
        frame = frame[require(frame, self.columns(), "rows to encode")]
        codes = np.empty((len(frame), len(self.categorical)), np.int32)
        numbers = np.empty((len(frame), len(self.continuous)), np.float32)
        end = 0
        for part in map(without_categories, in_chunks(frame)):
            for name, column in part.items():
                known, kind = self.kinds[str(name)], kind_of(column)
                if kind != "empty" and (kind == "text") != (known == "text"):
                    raise UserError(
                        f"column {name!r}: the training rows held {_KIND_NAMES[known]}, these hold "
                        f"{_KIND_NAMES[kind]}; read it as the same type"
                    )
            rows = slice(end, end := end + len(part))
            for position, (name, categories) in enumerate(self.categorical.items()):
                if name in self.flags:
                    codes[rows, position] = 1 + np.isnan(numbers_of(part[self.flags[name]]))
                else:
                    codes[rows, position] = codes_of(part[name], categories)
            for position, (name, quantiles) in enumerate(self.continuous.items()):
                numbers[rows, position] = normal_scores(numbers_of(part[name]), quantiles)
        return Encoded(codes, numbers)

    def unseen(self, frame: pd.DataFrame, encoded: Encoded) -> dict[str, np.ndarray]:
        """Column -> rows (n,) int64 whose category no training row has; it is encoded as missing.

        `encoded` is the frame after `transform`; columns without such rows are left out.
        """
        found = {}
        for name, codes in zip(self.categorical, encoded.categorical.T, strict=True):
            if name not in self.flags:
                found[name] = np.flatnonzero((codes == 0) & frame[name].notna().to_numpy())
        return {name: rows for name, rows in found.items() if len(rows)}

    def targets(self, frame: pd.DataFrame) -> np.ndarray:
        """Targets in the network's scale: (N, T) float32 (see `log_target`), or class numbers (N,) int64.

        Raises
        ------
        UserError
            If a target is missing, of the wrong kind, or a class that no training row has.
        """
        columns = without_categories(frame[require(frame, self.target_names, "rows to encode")])
        if self.task == "regression":
            values = (_regressed(columns[name], self.log_target).astype(np.float32) for name in self.target_names)
            return np.column_stack(list(values))
        column = columns[self.target_names[0]]
        _reject_where(column, column.isna(), _NO_VALUE)
        if (kind_of(column) == "text") != isinstance(self.classes[0], str):
            raise UserError(f"target {column.name!r} held values like {self.classes[0]!r} in training; use that type")
        codes = codes_of(column, self.classes)
        problem = "no training row has the class {!r}; drop such rows (data.where) or change the split"
        _reject_where(column, codes == 0, problem)
        return codes - 1

    @property
    def target(self) -> Target:
        """The prediction target."""
        if self.classes:
            return SingleLabel(self.classes)
        return Numbers(self.target_names, self.log_target, self.target_deviations)

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        """Invert the scaling of `targets`: values (N, T) float64 in their own scale; class scores are unchanged."""
        outputs = np.asarray(outputs, dtype=np.float64)
        return np.expm1(outputs) if self.log_target else outputs

    def sizes(self) -> list[tuple[str, int]]:
        """Categorical columns in code order, with their number of codes including missing."""
        return [(name, len(categories) + 1) for name, categories in self.categorical.items()]

    def columns(self) -> list[str]:
        """Columns read by `transform`, in the order of the training table."""
        return [name for name in self.kinds if name not in self.rejected or name in self.flags.values()]

    def to_json(self) -> str:
        """Serialise for `from_json`."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "TableEncoder":
        """Restore an encoder from `to_json`."""
        return cls(**json.loads(text))


def quantiles_of(numbers: np.ndarray) -> list[float]:
    """Quantiles of numbers (N,) float64 at even shares, an odd count: one per 30 numbers, from 11 to 1,001."""
    count = min(max(len(numbers) // ROWS_PER_QUANTILE, 10), MOST_QUANTILES) | 1
    quantiles: list[float] = np.quantile(numbers, np.linspace(0, 1, count)).tolist()
    return quantiles


def normal_scores(numbers: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """Map numbers (N,) float64 to standard normal values of the same rank; missing ones become the median.

    The share of the rows below a number is interpolated between the quantiles; equal quantiles count half. This tames
    long tails and outliers (the rank-based transformation of Gorishniy et al., "Revisiting deep learning models for
    tabular data", 2021). Numbers outside the training range are clipped to it.
    """
    known, shares = np.asarray(quantiles), np.linspace(0, 1, len(quantiles))
    numbers = np.nan_to_num(numbers, nan=known[len(known) // 2])
    below = np.interp(numbers, known, shares)
    above = np.interp(-numbers, -known[::-1], shares)
    scores: np.ndarray = ndtri(np.clip((below + 1 - above) / 2, TAIL, 1 - TAIL))
    return scores


def embedding_width(categories: int) -> int:
    """Width of an embedding by the rule of fastai 0.7."""
    return min(50, (categories + 1) // 2)


def _check_names(frame: pd.DataFrame, train: np.ndarray, data: TableDataSpec) -> None:
    for field_name in ("target", "categorical", "continuous"):
        require(frame, getattr(data, field_name), f"data.{field_name}")
    if doubled := sorted({str(name) for name in frame.columns[frame.columns.duplicated()]}):
        raise UserError(f"column {', '.join(doubled)}: there are several of that name; rename all but one")
    if both := sorted(set(data.categorical) & set(data.continuous)):
        raise UserError(f"data.categorical and data.continuous: both name {', '.join(both)}; keep it in one")
    if not (train.any() if train.dtype == bool else len(train)):
        raise UserError("there is no training row; check data.where and data.split")


def _is_category(column: pd.Series, kind: str, data: TableDataSpec) -> bool:
    if column.name in data.continuous:
        if kind == "text":
            raise UserError(f"data.continuous: column {column.name!r} is text; remove it from the list")
        return False
    if kind in ("text", "bool") or column.name in data.categorical:
        return True
    if str(column.name) in map(elapsed_name, data.date):  # seconds since 1970 are never a category, even with few days
        return False
    return not has_fractions(column) and count_up_to(whole_numbers_of(column), CATEGORY_VALUES + 1) <= CATEGORY_VALUES


def _is_regression(targets: pd.DataFrame, data: TableDataSpec) -> bool:
    if data.task != "auto":
        return data.task == "regression"
    if len(data.target) > 1:
        return True
    column = targets[data.target[0]]
    return kind_of(column) == "number" and is_quantity(column)


def is_quantity(target: pd.Series) -> bool:
    """Whether a numeric target is a regression by default: it has many values, or fractions."""
    return count_up_to(target, REGRESSION_VALUES + 1) > REGRESSION_VALUES or has_fractions(target)


def _classes(targets: pd.DataFrame, data: TableDataSpec) -> list[Category]:
    """Sorted classes of the single target."""
    if len(data.target) > 1:
        raise UserError(f"data.target: {', '.join(data.target)} cannot be classified together; name one target")
    name, column = data.target[0], targets[data.target[0]]
    if data.log_target:
        raise UserError(
            f"data.log_target is for regression, but {name!r} is classified as it is text or has few values; "
            "set data.task to regression or data.log_target to false"
        )
    _reject_where(column, column.isna(), _NO_VALUE)
    classes: list[Category] = count_categories(column, kind_of(column)).index.tolist()
    if len(classes) < 2:
        raise UserError(f"target {name!r} is {classes[0]!r} in every training row; it cannot be learnt")
    return classes


def require_numbers(column: pd.Series) -> None:
    """Raise `UserError` if a target to regress is text."""
    if kind_of(column) == "text":
        raise UserError(f"target {column.name!r} is text, which cannot be regressed; set data.task to classification")


def _regressed(column: pd.Series, log: bool) -> np.ndarray:
    """Targets (N,) float64, as logarithms if `log`."""
    require_numbers(column)
    numbers = numbers_of(column)
    _reject_where(column, np.isnan(numbers), _NO_VALUE)
    _reject_where(column, np.abs(numbers) > LARGEST, "{:g} is too large to train on; write it in larger units")
    if log:
        _reject_where(column, numbers < 0, "{:g} is negative, which has no logarithm; set data.log_target to false")
    return np.log1p(numbers) if log else numbers


def _reject_where(column: pd.Series, invalid: np.ndarray | pd.Series, problem: str) -> None:
    """Raise `UserError` for the first invalid target, with its value in the `problem`."""
    if invalid.any():
        place = int(invalid.argmax())
        raise UserError(f"target {column.name!r}, row {column.index[place]}: {problem.format(column.iloc[place])}")
