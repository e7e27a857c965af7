"""From columns to what a network takes: categories by number, standardised numbers, targets; learnt from training rows.

Missing numbers are filled and flagged as in fastai 0.7 (``proc_df``, ``fix_missing``), and so are the widths of
embeddings. After Guo and Berkhahn, "Entity Embeddings of Categorical Variables", 2016.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import pandas as pd

from unfreeze.models.errors import UserError
from unfreeze.models.specs.tables import TableDataSpec
from unfreeze.models.tables.reading import CHUNK_ROWS, count_up_to, in_chunks
from unfreeze.models.target import Category, Numbers, SingleLabel, Target

Task = Literal["regression", "classification"]
Kind = Literal["text", "bool", "number", "empty"]

REGRESSION_VALUES = 20
"""A target of numbers with more values than this is to be regressed unless the spec says otherwise."""
_NAMES_OF_KINDS = {"text": "text", "bool": "true or false", "number": "numbers"}
_KINDS_OF_OBJECTS: dict[str, Kind] = {
    "string": "text",
    "boolean": "bool",
    "integer": "number",
    "floating": "number",
    "mixed-integer-float": "number",
    "decimal": "number",
    "empty": "empty",
}


@dataclass(frozen=True)
class Encoded:
    """Rows as a network takes them.

    Attributes
    ----------
    categorical : numpy.ndarray
        Codes (N, K) int32; 0 is a missing or unseen category.
    continuous : numpy.ndarray
        Standardised numbers (N, M) float32.
    """

    categorical: np.ndarray
    continuous: np.ndarray

    def __len__(self) -> int:
        return len(self.categorical)

    def rows(self, rows: np.ndarray) -> "Encoded":
        """Some of the rows, by number (B,) int64 or by a mask (N,) bool."""
        return Encoded(self.categorical[rows], self.continuous[rows])


@dataclass(frozen=True)
class TableEncoder:
    """What the training rows say about every column; make one with `fit`.

    Attributes
    ----------
    categorical : dict of list
        Column -> its categories, sorted; the category at position i has code i + 1. Flags of missing numbers
        (``<name>_na``) come last.
    continuous : dict of dict
        Column -> ``median``, ``mean`` and ``std`` of the training rows, the latter two with missing values filled.
    flags : dict of str
        Flag -> the column whose missing values it marks.
    kinds : dict of str
        Column -> ``text``, ``bool`` or ``number``: what later tables must hold there too.
    rejected : dict of str
        Column that tells nothing -> why.
    task : str
        ``regression`` or ``classification``.
    target_names : list of str
        Columns to predict.
    classes : list
        Classes, sorted; empty for regression.
    log_target : bool
        Whether targets are log(1 + value).
    target_extremes : tuple of float
        Lowest and highest training target, after the logarithm; zeros for classification.
    """

    categorical: dict[str, list[Category]]
    continuous: dict[str, dict[str, float]]
    flags: dict[str, str]
    kinds: dict[str, str]
    rejected: dict[str, str]
    task: Task
    target_names: list[str]
    classes: list[Category]
    log_target: bool
    target_extremes: tuple[float, float]

    @classmethod
    def fit(cls, frame: pd.DataFrame, train: np.ndarray, data: TableDataSpec) -> "TableEncoder":
        """Learn categories, medians, means and the task.

        Parameters
        ----------
        frame
            All rows, joined and filtered, with the parts of dates. Only the training rows are looked at.
        train
            Which rows train: numbers (n,) int64, or a mask (N,) bool.
        data
            Reads the names of targets and columns, `task`, `log_target` and the limits of categories.

        Raises
        ------
        UserError
            If a column named in `data` is not there, a column is neither text nor numbers, or the targets do not fit
            the task.
        """
        _check_names(frame, train, data)
        fitted = _Columns({}, {}, {}, {}, {})
        for name in _features(frame, data):  # a column at a time: all training rows would be a second table
            fitted.add(_plain(frame[name].iloc[train]), data)
        if taken := sorted(set(fitted.flags) & set(frame.columns)):
            raise UserError(f"column {', '.join(taken)}: the name is wanted for a flag of missing values; rename it")
        fitted.categorical.update((flag, [False, True]) for flag in fitted.flags)
        if not fitted.categorical and not fitted.continuous:
            raise UserError("no column is left to predict from: all are targets, dropped, empty or constant")
        task, classes, extremes = _fit_targets(frame[data.target].iloc[train], data)
        return cls(
            **vars(fitted),
            task=task,
            target_names=list(data.target),
            classes=classes,
            log_target=data.log_target,
            target_extremes=extremes,
        )

    def transform(self, frame: pd.DataFrame) -> Encoded:
        """Encode any rows, such as new ones to predict.

        Parameters
        ----------
        frame
            Rows with the columns of the training table, in any order; targets may be absent.

        Raises
        ------
        UserError
            If columns are missing, or a column holds text where the training rows held numbers or the reverse.
        """
        codes = np.empty((len(frame), len(self.categorical)), np.int32)
        numbers = np.empty((len(frame), len(self.continuous)), np.float32)
        for start, part in _numbered_chunks(frame):
            self._check(part)
            self._encode(part, codes[start : start + len(part)], numbers[start : start + len(part)])
        return Encoded(codes, numbers)

    def _encode(self, frame: pd.DataFrame, codes: np.ndarray, numbers: np.ndarray) -> None:
        """Write rows' codes (n, K) and numbers (n, M) into their places."""
        for position, (name, categories) in enumerate(self.categorical.items()):
            if name in self.flags:
                codes[:, position] = 1 + np.isnan(_numbers(_plain(frame[self.flags[name]])))
            else:
                codes[:, position] = _codes(_plain(frame[name]), categories)
        for position, (name, statistics) in enumerate(self.continuous.items()):
            values = _numbers(_plain(frame[name]))
            values[np.isnan(values)] = statistics["median"]
            numbers[:, position] = (values - statistics["mean"]) / statistics["std"]

    def targets(self, frame: pd.DataFrame) -> np.ndarray:
        """Targets as the network is trained on them.

        Parameters
        ----------
        frame
            Rows with the target columns.

        Returns
        -------
        numpy.ndarray
            (N, T) float32 for regression, of the logarithm if so trained; class numbers (N,) int64 otherwise.

        Raises
        ------
        UserError
            If a target is missing, of the wrong kind, or a class that no training row has.
        """
        _require(frame, self.target_names)
        if self.task == "regression":
            values = np.empty((len(frame), len(self.target_names)), np.float32)
            for start, part in _numbered_chunks(frame[self.target_names]):
                values[start : start + len(part)] = _regressed(part, self.target_names, self.log_target)
            return values
        column = _plain(frame[self.target_names[0]])
        _check_present(column)
        if (_kind(column) == "text") != isinstance(self.classes[0], str):
            raise UserError(
                f"target {column.name!r} held values like {self.classes[0]!r} in training; make it that type"
            )
        codes = _codes(column, self.classes)
        if (unseen := codes == 0).any():
            place = int(unseen.argmax())
            raise UserError(
                f"target {column.name!r}, row {frame.index[place]}: no training row has the class "
                f"{column.iloc[place]!r}; drop such rows (data.where) or change the split"
            )
        return codes.astype(np.int64) - 1

    @property
    def target(self) -> Target:
        """What is predicted."""
        return (
            SingleLabel(self.classes) if self.task == "classification" else Numbers(self.target_names, self.log_target)
        )

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        """Values (N, T) float64 in their own scale, from those that `targets` gives; class scores stay as they are."""
        outputs = np.asarray(outputs, dtype=np.float64)
        return np.expm1(outputs) if self.log_target else outputs

    def target_range(self) -> tuple[float, float]:
        """Lowest and highest output for a regression, with a margin of a fifth as in the course.

        The low end is 0 unless a training target is negative. A range that ends at or below 0 gets a fifth of the
        targets' spread as its margin.
        """
        low, high = self.target_extremes
        top = 1.2 * high if high > 0 else high + 0.2 * (high - low)
        return (0.0 if low >= 0 else 1.2 * low), top

    def sizes(self) -> list[tuple[str, int]]:
        """Categorical columns in the order of the codes, and how many codes each has, that of missing included."""
        return [(name, len(categories) + 1) for name, categories in self.categorical.items()]

    def columns(self) -> list[str]:
        """Columns that `transform` reads, in the order of the training table."""
        return [name for name in self.kinds if self._reads(name)]

    def to_json(self) -> str:
        """Everything as a text that `from_json` reads."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "TableEncoder":
        """The encoder that `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "target_extremes": tuple(fields["target_extremes"])})

    def _reads(self, name: str) -> bool:
        return name not in self.rejected or name in self.flags.values()

    def _check(self, frame: pd.DataFrame) -> None:
        names = self.columns()
        _require(frame, names)
        for name in names:
            kind = _kind(_plain(frame[name]))
            if kind != "empty" and (kind == "text") != (self.kinds[name] == "text"):
                raise UserError(
                    f"column {name!r}: the training rows held {_NAMES_OF_KINDS[self.kinds[name]]}, these hold "
                    f"{_NAMES_OF_KINDS[kind]}; read it as the same type"
                )


@dataclass
class _Columns:
    """What is known of the columns so far; see `TableEncoder`."""

    categorical: dict[str, list[Category]]
    continuous: dict[str, dict[str, float]]
    flags: dict[str, str]
    kinds: dict[str, str]
    rejected: dict[str, str]

    def add(self, column: pd.Series, data: TableDataSpec) -> None:
        name, kind = str(column.name), _kind(column)
        if kind == "empty" or (kind == "number" and all(np.isnan(_numbers(part)).all() for part in in_chunks(column))):
            self.rejected[name] = "no value in the training rows"
            return
        self.kinds[name] = kind
        if _is_category(column, kind, data):
            self.categorical[name] = _categories(column, data)
        else:
            self._add_numbers(name, _numbers(column))

    def _add_numbers(self, name: str, numbers: np.ndarray) -> None:
        missing = np.isnan(numbers)
        if missing.any():
            self.flags[f"{name}_na"] = name
        statistics = _statistics(numbers, missing)
        if statistics["std"] > 0:
            self.continuous[name] = statistics
        else:
            self.rejected[name] = f"{statistics['median']:g} in every training row"


def embedding_width(categories: int, rule: str) -> int:
    """Width of an embedding.

    Parameters
    ----------
    categories
        Number of categories and one for missing.
    rule
        ``course``: min(50, (c + 1) // 2), fastai 0.7; ``later``: min(600, round(1.6 c^0.56)), fastai 1 and 2
        (``emb_sz_rule``).
    """
    if rule == "course":
        return min(50, (categories + 1) // 2)
    return min(600, round(1.6 * categories**0.56))


def _numbered_chunks(frame: pd.DataFrame) -> Iterator[tuple[int, pd.DataFrame]]:
    """Chunks of rows, each with the position of its first row."""
    return zip(range(0, max(len(frame), 1), CHUNK_ROWS), in_chunks(frame), strict=True)


def _check_names(rows: pd.DataFrame, train: np.ndarray, data: TableDataSpec) -> None:
    _require(rows, data.target)
    if doubled := sorted({str(name) for name in rows.columns[rows.columns.duplicated()]}):
        raise UserError(f"column {', '.join(doubled)}: there are several of that name; rename all but one")
    if both := sorted(set(data.categorical) & set(data.continuous)):
        raise UserError(f"data.categorical and data.continuous: both name {', '.join(both)}; keep it in one")
    for field, names in (("categorical", data.categorical), ("continuous", data.continuous)):
        if unknown := [name for name in names if name not in rows]:
            there = ", ".join(map(str, rows.columns))
            raise UserError(f"data.{field}: there is no column {', '.join(unknown)}; there are {there}")
    if not (train.any() if train.dtype == bool else len(train)):
        raise UserError("there is no training row; check data.where and data.split")


def _require(frame: pd.DataFrame, names: Sequence[str]) -> None:
    if missing := [name for name in names if name not in frame]:
        there = ", ".join(map(str, frame.columns)) or "none"
        raise UserError(f"the table has no column {', '.join(missing)}; add what is missing. There are: {there}")


def _features(rows: pd.DataFrame, data: TableDataSpec) -> list[str]:
    """Columns to predict from: neither targets nor the column that says which rows validate."""
    others = {*data.target, *data.drop, *([data.split_column] if data.split == "column" else [])}
    return [name for name in rows.columns if name not in others]


def _plain(column: pd.Series) -> pd.Series:
    """The column without pandas' own categories: what counts is the type of its values."""
    return column.astype(object) if isinstance(column.dtype, pd.CategoricalDtype) else column


def _kind(column: pd.Series) -> Kind:
    types = pd.api.types
    if types.is_bool_dtype(column.dtype):
        return "empty" if column.isna().all() else "bool"
    if types.is_numeric_dtype(column.dtype) and not types.is_complex_dtype(column.dtype):
        return "empty" if column.isna().all() else "number"
    inferred = types.infer_dtype(column, skipna=True)
    if inferred in _KINDS_OF_OBJECTS:
        return "empty" if column.isna().all() else _KINDS_OF_OBJECTS[inferred]
    if inferred.startswith(("date", "time", "period")):
        raise UserError(f"column {column.name!r} holds dates or times; name it in data.date or data.drop")
    raise UserError(
        f"column {column.name!r} holds values of several types or of none that can be used ({inferred}); make them all "
        "text or all numbers, or name it in data.drop"
    )


def _numbers(column: pd.Series) -> np.ndarray:
    """Values (N,) float64, a copy; missing and infinite ones, and those beyond float32, are NaN."""
    values = column.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
    values[np.abs(values) > np.finfo(np.float32).max] = np.nan
    return values


def _whole(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Values (N,) int64, and where (N,) bool they are whole numbers; elsewhere values are 0."""
    if pd.api.types.is_signed_integer_dtype(column.dtype):  # not by way of floats: these end at 2^53
        return column.to_numpy(dtype=np.int64, na_value=0), column.notna().to_numpy(dtype=bool)
    numbers = _numbers(column)
    is_whole = (np.abs(numbers) < 2.0**63) & (np.floor(numbers) == numbers)
    return np.where(is_whole, numbers, 0).astype(np.int64), is_whole


def _is_category(column: pd.Series, kind: Kind, data: TableDataSpec) -> bool:
    if column.name in data.continuous:
        if kind == "text":
            raise UserError(f"data.continuous: column {column.name!r} is text; remove it from the list")
        return False
    if kind in ("text", "bool") or column.name in data.categorical:
        return True
    if str(column.name).endswith("Elapsed"):  # seconds since 1970: few days in a table make it no category
        return False
    whole = np.array([], np.int64)
    for part in in_chunks(column):
        values, is_whole = _whole(part)
        whole = np.union1d(whole, values[is_whole])
        if len(whole) > data.max_category_values or not np.isnan(_numbers(part)[~is_whole]).all():
            return False
    return len(whole) > 0


def _categories(column: pd.Series, data: TableDataSpec) -> list[Category]:
    """Categories that are frequent enough, sorted; of too many the most frequent, and of equally frequent the first."""
    counts = _count_values(column)
    counts = counts[counts >= data.min_count]
    if len(counts) > data.max_categories:
        counts = counts.sort_values(ascending=False, kind="stable")[: data.max_categories].sort_index()
    values: list[Category] = counts.index.tolist()
    return values


def _count_values(column: pd.Series) -> pd.Series:
    """Rows of every value as categories are kept, sorted by value; counted chunk by chunk."""
    kind = _kind(column)
    # Whether numbers are whole is for the column to log_info, not for a chunk of it.
    fractions = kind == "number" and any(_has_fractions(part) for part in in_chunks(column))
    counts = [_category_values(part, kind, fractions).value_counts() for part in in_chunks(column)]
    together = counts[0] if len(counts) == 1 else pd.concat(counts).groupby(level=0).sum()
    return together.sort_index()


def _has_fractions(column: pd.Series) -> bool:
    return not np.isnan(_numbers(column)[~_whole(column)[1]]).all()


def _category_values(column: pd.Series, kind: Kind, fractions: bool) -> pd.Series:
    """Values without missing ones, in the type in which categories are kept: 1.0 becomes 1, but not beside 0.5."""
    if kind in ("text", "empty"):
        return column.dropna().astype(object)
    if kind == "bool":
        return column.dropna().astype(bool)
    if not fractions:
        values, is_whole = _whole(column)
        return pd.Series(values[is_whole])
    numbers = _numbers(column)
    return pd.Series(numbers[~np.isnan(numbers)] + 0.0)  # + 0.0: -0.0 is 0


def _codes(column: pd.Series, categories: Sequence[Category]) -> np.ndarray:
    """Position of every value among the categories, from 1; 0 for others. (N,) int64."""
    if not categories or column.isna().all():
        return np.zeros(len(column), np.int64)
    if isinstance(categories[0], str):
        return np.asarray(pd.Index(categories).get_indexer(pd.Index(column))) + 1
    if isinstance(categories[0], float):
        return np.asarray(pd.Index(categories, dtype=np.float64).get_indexer(pd.Index(_numbers(column)))) + 1
    values, is_whole = _whole(column)
    codes = np.asarray(pd.Index(categories).astype(np.int64).get_indexer(pd.Index(values))) + 1
    return np.where(is_whole, codes, 0)


def _statistics(numbers: np.ndarray, missing: np.ndarray) -> dict[str, float]:
    """Median, mean and deviation of numbers (N,) float64, which are used up: copies of millions would add up."""
    if missing.any():
        median = float(np.median(numbers[~missing], overwrite_input=True))
        numbers[missing] = median
    # The deviation of equal numbers need not come out as exactly 0.
    std = float(numbers.std()) if numbers.min() < numbers.max() else 0.0
    mean = float(numbers.mean())
    if not missing.any():  # last, because it reorders them
        median = float(np.median(numbers, overwrite_input=True))
    return {"median": median, "mean": mean, "std": std}


def _fit_targets(rows: pd.DataFrame, data: TableDataSpec) -> tuple[Task, list[Category], tuple[float, float]]:
    """The task, its classes, and the extremes of regressed targets."""
    if _task(rows, data) == "regression":
        ends = [
            (values.min(), values.max())
            for values in (_regressed(part, data.target, data.log_target) for part in in_chunks(rows))
        ]
        return "regression", [], (float(min(low for low, _ in ends)), float(max(high for _, high in ends)))
    if len(data.target) > 1:
        raise UserError(f"data.target: {', '.join(data.target)} cannot be classified together; name one target")
    if data.log_target:
        raise UserError(
            f"data.log_target is for regression, but {data.target[0]!r} is classified as it is text or has few values; "
            "set data.task to regression or data.log_target to false"
        )
    column = _plain(rows[data.target[0]])
    _check_present(column)
    classes: list[Category] = sorted(_count_values(column).index.tolist())
    if len(classes) < 2:
        raise UserError(f"target {column.name!r} is {classes[0]!r} in every training row; it cannot be learnt")
    return "classification", classes, (0.0, 0.0)


def _task(rows: pd.DataFrame, data: TableDataSpec) -> Task:
    if data.task != "auto":
        return data.task
    columns = [_plain(rows[name]) for name in data.target]
    if len(columns) > 1:
        return "regression"
    if _kind(columns[0]) != "number" or count_up_to(columns[0], REGRESSION_VALUES + 1) <= REGRESSION_VALUES:
        return "classification"
    return "regression"


def _check_present(column: pd.Series) -> None:
    if (missing := column.isna()).any():
        row = column.index[int(missing.to_numpy().argmax())]
        raise UserError(f"target {column.name!r}, row {row}: there is no value; drop such rows")


def _regressed(frame: pd.DataFrame, names: Sequence[str], log: bool) -> np.ndarray:
    """Targets (N, T) float64, after the logarithm if `log`."""
    values = np.empty((len(frame), len(names)))
    for position, name in enumerate(names):
        column = _plain(frame[name])
        if _kind(column) == "text":
            raise UserError(f"target {name!r} is text, which cannot be regressed; set data.task to classification")
        numbers = _numbers(column)
        unusable, problem = np.isnan(numbers), "there is no value; drop such rows"
        if log and not unusable.any():
            unusable, problem = numbers < 0, "is negative, which has no logarithm; set data.log_target to false"
        if unusable.any():
            place = int(unusable.argmax())
            shown = "" if np.isnan(numbers[place]) else f"{numbers[place]:g} "
            raise UserError(f"target {name!r}, row {frame.index[place]}: {shown}{problem}")
        values[:, position] = numbers
    return np.log1p(values) if log else values
