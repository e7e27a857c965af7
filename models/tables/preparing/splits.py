"""Which rows train, which validate, and which are kept for the test."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype as is_number

from unfreeze.models.errors import UserError
from unfreeze.models.reading.split_words import PARTS, Part, part_of
from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.tables.columns.column_names import is_entity
from unfreeze.models.tables.reading.frames import in_chunks, unknown_column

_TRAIN, _VALID, _TEST, _UNUSED = range(4)
_SAYS: dict[str, Part] = {"1": "valid", "true": "valid", "0": "train", "false": "train"}
"""What a column of a split may say besides the words of `part_of`."""


class Split(NamedTuple):
    """Positions of rows of each part, ascending: int64; `test` may be empty."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def split_rows(frame: pd.DataFrame, data: TableDataSpec, identity: Sequence[str] = ()) -> Split:
    """Decide which rows train, which validate, and which are kept for the test.

    `last_days`: the last `test_days` calendar days of the first date column test, the `valid_days` before them
    validate; rows without a date train. With `fold` the validation ends that many times `valid_days` earlier, and no
    later row is used. `last_rows`: the last share of the rows tests, that before it validates. `random`: shares of the
    rows, chosen by a hash of their values, so that more data never moves a row, and equal rows stay together. `group`:
    all rows of some values of `split_column`, chosen likewise by a hash of the value; rows without a value train;
    without `split_column` rows stay together that differ in nothing but targets, ids and columns left out. `column`:
    the value of `split_column` in each row. Which rows validate does not depend on `test_fraction`, but for
    `last_rows`.

    Parameters
    ----------
    frame
        The rows, dates already parsed.
    identity
        Columns that a random split goes by; none: all.

    Raises UserError where a column is absent or has other values, or where nothing is left to train, to validate, or
    to test although a test was asked for.
    """

    def column(name: str, where: str) -> pd.Series:
        if name not in frame.columns:
            raise unknown_column(name, frame.columns, where)
        return frame[name]

    kind = data.split if data.split != "auto" else "last_days" if data.date else "random"
    if data.test_fraction and kind == "last_days":  # `auto` learns of a date late
        raise UserError("rows are split by their days: the last ones test by data.test_days, not data.test_fraction")
    if data.test_days and kind != "last_days":
        raise UserError(f"split {kind}: data.test_days needs a date to split by; name it in data.date")
    if kind == "last_days":
        parts, advice = _by_days(column(data.date[0], "date"), data)
    elif kind == "random" or (kind == "group" and data.split_column is None):
        names = list(map(str, identity or frame.columns))
        parts = _random(frame, names if kind == "random" else _features(names, data), data)
        advice = f"valid_fraction is {data.valid_fraction:g}"
    elif kind == "last_rows":
        places = (len(frame) - 0.5 - np.arange(len(frame))) / len(frame)  # from the end
        bounds = [places < data.test_fraction, places < data.test_fraction + data.valid_fraction]
        parts, advice = np.select(bounds, [_TEST, _VALID], _TRAIN), f"valid_fraction is {data.valid_fraction:g}"
    else:
        told = column(str(data.split_column), "split_column")
        if kind == "group":
            codes, values = pd.factorize(told)
            shares = np.array([_share(_text(value), data.split_seed) for value in values], dtype=float)
            parts = np.append(_by_share(shares, data), _TRAIN)[codes]  # code -1: missing
            advice = f"{told.name} has {told.nunique()} values; change split_seed or the fractions"
        else:
            parts, advice = _as_stated(told), f"see column {told.name}"
    split = Split(*(np.flatnonzero(parts == part) for part in (_TRAIN, _VALID, _TEST)))
    needed = {"train": split.train, "validate": split.valid}
    if (data.test_fraction or data.test_days) and not data.fold:
        needed["test"] = split.test
    for purpose, rows in needed.items():
        if not len(rows):
            raise UserError(f"split {kind}: none of {len(frame)} rows is left to {purpose}; {advice}")
    return split


def _by_days(dates: pd.Series, data: TableDataSpec) -> tuple[np.ndarray, str]:
    """The part of every row by its day, and what decides."""
    day = dates.dt.normalize()
    tested = _last_day(day) - pd.Timedelta(days=data.test_days)
    days = validation_days(dates, data)
    if data.fold:
        parts = np.full(len(day), _UNUSED, np.int8)
        for part, rows in zip((_TRAIN, _VALID), time_fold(day[day <= tested], data.fold, days), strict=True):
            parts[np.flatnonzero(day <= tested)[rows]] = part
    else:
        validated = tested - pd.Timedelta(days=days)
        parts = np.select([day > tested, day > validated], [_TEST, _VALID], _TRAIN).astype(np.int8)
    return parts, f"valid_days is {days}" + (f", test_days {data.test_days}" if data.test_days else "")


def validation_days(dates: pd.Series, data: TableDataSpec) -> int:
    """Days that validate: those stated, else a fifth of the time before the test, from one day to a year.

    A hundredth of the rows may be earlier: where nothing is known tables tend to say 1900.
    """
    if data.valid_days is not None:
        return data.valid_days
    day = dates.dt.normalize()
    first = day.quantile(0.01).normalize()
    span = int((_last_day(day) - first).days) + 1 - data.test_days
    return min(max(round(span / 5), 1), 365)


def time_fold(dates: pd.Series, fold: int, days: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions (int64, ascending) of training and of validation rows of one fold of a cross-validation in time.

    Each fold validates that many calendar `days`, fold 0 the last, fold 1 those before, and so on; it trains on what
    comes before. A row without a date is in no fold.

    Raises UserError where the fold has nothing to train or to validate.
    """
    day = dates.dt.normalize()
    last = _last_day(day)
    start, end = last - pd.Timedelta(days=(fold + 1) * days), last - pd.Timedelta(days=fold * days)
    train, valid = np.flatnonzero(day <= start), np.flatnonzero((day > start) & (day <= end))
    if not (len(train) and len(valid)):
        raise UserError(
            f"fold 1 of {fold + 1}: no rows to {'validate' if len(train) else 'train'} with {days} days each; the "
            f"dates go from {day.min().date()} to {last.date()}: take fewer folds or days"
        )
    return train, valid


def _last_day(day: pd.Series) -> pd.Timestamp:
    last = day.max()
    if pd.isna(last):
        raise UserError(f"column {day.name}: no row has a date, so rows cannot be split by time; check its format")
    return pd.Timestamp(last)


def _random(frame: pd.DataFrame, identity: list[str], data: TableDataSpec) -> np.ndarray:
    parts = np.concatenate([_by_share(shares, data) for shares in _shares(frame, identity, data.split_seed)])
    if len(frame) > 1 and not data.test_fraction and (parts == parts[0]).all():
        # Both parts get a row if there are two; copies of that row go with it.
        shares = np.concatenate(list(_shares(frame, identity, data.split_seed)))
        trains = parts[0] == _TRAIN
        parts[shares == (shares.min() if trains else shares.max())] = _VALID if trains else _TRAIN
    return parts


def _features(names: Sequence[str], data: TableDataSpec) -> list[str]:
    """Columns in which copies are equal: no targets, and no ids, which tell one copy from another."""
    return [name for name in names if name not in {*data.target, *data.drop} and not is_entity(name)]


def _by_share(shares: np.ndarray, data: TableDataSpec) -> np.ndarray:
    """The part of every place between 0 and 1: validation from the lower end on, the test at the upper."""
    tests = shares >= 1 - data.test_fraction
    return np.select([shares < data.valid_fraction, tests], [_VALID, _TEST], _TRAIN).astype(np.int8)


def _shares(frame: pd.DataFrame, identity: list[str], seed: int) -> Iterator[np.ndarray]:
    """Place of every row between 0 and 1, chunk by chunk: what is hashed takes many times the table's memory."""
    key = np.uint64(_share(str(seed), seed) * 2**64)
    for part in in_chunks(frame):
        places = np.full(len(part), key)
        for name in identity:
            # As numbers or as text, and a missing value as nothing: one that is missing elsewhere, which makes 7 into
            # 7.0, and a column that is empty so far, whose kind is not known, move no row.
            column = part[name].astype("float64" if is_number(part[name]) else "str")
            hashed = pd.util.hash_pandas_object(column, index=False).to_numpy()
            places = mixed(places ^ np.where(column.isna(), np.uint64(0), hashed))
        yield places / 2**64


def mixed(numbers: np.ndarray) -> np.ndarray:
    """Spread uint64 evenly, each to its own place (the finalizer of splitmix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = numbers ^ (numbers >> np.uint64(31))
    return mixed


def _share(value: str, seed: int) -> float:
    """Spread values evenly from 0 to 1, each always at the same place."""
    digest = hashlib.blake2b(f"{seed}:{value}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _text(value: object) -> str:
    # A missing value elsewhere in the column makes 7 into 7.0: that must not move its group.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _as_stated(column: pd.Series) -> np.ndarray:
    if column.isna().any():
        raise UserError(f"split_column {column.name}: {int(column.isna().sum())} rows have no value; fill them in")
    codes, values = pd.factorize(column)
    words = [_text(value).strip().lower() for value in values]
    stated = [part_of(word) or _SAYS.get(word) for word in words]
    if None in stated:
        raise UserError(
            f"split_column {column.name}: {values[stated.index(None)]!r} is neither train, 0, false nor valid, 1, true "
            "nor test"
        )
    return np.array([PARTS.index(part) for part in stated if part], np.int8)[codes]
