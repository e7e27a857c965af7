"""Which rows train and which validate."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype as is_number

from unfreeze.models.errors import UserError
from unfreeze.models.specs.tables import TableDataSpec
from unfreeze.models.split_words import part_of
from unfreeze.models.tables.reading import in_chunks, unknown_column

_VALIDATES: dict[str | None, bool] = {
    **dict.fromkeys(("1", "true", "valid"), True),
    **dict.fromkeys(("0", "false", "train"), False),
}


def split_rows(frame: pd.DataFrame, data: TableDataSpec, identity: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Positions of training and of validation rows, ascending: int64.

    `last_days`: the calendar days up to the last of the first date column validate; rows without a date train. With
    `fold` the validation ends that many times `valid_days` earlier, and no later row is used. `random`: a share of the
    rows, chosen by a hash of their values, so that more data never moves a row, and equal rows stay together.
    `group`: all rows of some values of `split_column`, chosen likewise by a hash of the value; rows without a value
    train. `column`: the value of `split_column` in each row.

    Parameters
    ----------
    frame
        The rows, dates already parsed.
    identity
        Columns that a random split goes by; none: all.

    Raises UserError where a column is absent or has other values, or where nothing is left to train or to validate.
    """

    def column(name: str, where: str) -> pd.Series:
        if name not in frame.columns:
            raise unknown_column(name, frame.columns, where)
        return frame[name]

    kind = data.split if data.split != "auto" else "last_days" if data.date else "random"
    if kind == "last_days":
        dates = column(data.date[0], "date")
        if data.fold:
            return time_fold(dates, data.fold, data.valid_days)
        day = dates.dt.normalize()
        validates = (day > _last_day(day) - pd.Timedelta(days=data.valid_days)).to_numpy()
        advice = f"valid_days is {data.valid_days}"
    elif kind == "random":
        validates = _random(frame, list(identity or frame.columns), data.valid_fraction, data.split_seed)
        advice = f"valid_fraction is {data.valid_fraction:g}"
    else:
        told = column(str(data.split_column), "split_column")
        if kind == "group":
            codes, values = pd.factorize(told)
            chosen = [_share(_text(value), data.split_seed) < data.valid_fraction for value in values]
            validates = np.array([*chosen, False])[codes]  # code -1: missing
            advice = f"{told.name} has {told.nunique()} values; change split_seed or valid_fraction"
        else:
            validates, advice = _as_stated(told), f"see column {told.name}"
    for part, rows in (("train", ~validates), ("validate", validates)):
        if not rows.any():
            raise UserError(f"split {kind}: none of {len(frame)} rows is left to {part}; {advice}")
    return np.flatnonzero(~validates), np.flatnonzero(validates)


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


def _random(frame: pd.DataFrame, identity: list[str], fraction: float, seed: int) -> np.ndarray:
    validates = np.concatenate([shares < fraction for shares in _shares(frame, identity, seed)])
    if len(frame) > 1 and validates.all() | ~validates.any():
        # Both parts get a row if there are two; copies of that row go with it.
        shares = np.concatenate(list(_shares(frame, identity, seed)))
        validates ^= shares == (shares.max() if validates.all() else shares.min())
    return validates


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
            places = _mixed(places ^ np.where(column.isna(), np.uint64(0), hashed))
        yield places / 2**64


def _mixed(numbers: np.ndarray) -> np.ndarray:
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
    stated = [_VALIDATES.get(part_of(word) or word) for word in words]
    if None in stated:
        raise UserError(
            f"split_column {column.name}: {values[stated.index(None)]!r} is neither train, 0, false nor valid, 1, true"
        )
    return np.array(stated, dtype=bool)[codes]
