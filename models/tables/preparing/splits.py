"""Split of rows into training, validation and test, at random, by groups or by time."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype, is_numeric_dtype as is_number

from unfreeze.models.errors import UserError
from unfreeze.models.reading.split_words import PARTS, Part, part_of
from unfreeze.models.settings.tables import CATEGORY_VALUES, TableDataSpec
from unfreeze.models.tables.columns.column_names import is_entity
from unfreeze.models.tables.columns.dates import elapsed_name, part_names
from unfreeze.models.tables.columns.roles import Role
from unfreeze.models.tables.reading.frames import count_up_to, in_chunks, require

_TRAIN, _VALID, _TEST, _UNUSED = range(4)
_SAYS: dict[str, Part] = {"1": "valid", "true": "valid", "0": "train", "false": "train"}
"""Values allowed in a split column besides the words of `part_of`."""
_MOST_BACKWARD = 0.05
"""Share of date changes that may go backwards: stacked series step back where the next one begins."""
_MOST_UNEVEN = 0.5
"""Largest deviation of the steps between dates, relative to their mean, of regular dates; it is 1 for random dates."""
_FEWEST_NEIGHBOURS = 100
"""Least rows for a correlation of neighbours not to be chance."""
_FEWEST_MOVES = 20
"""Least changes from row to row; fewer occur between blocks of a sorted table."""
_ALIKE, _ALIKE_TARGET = 0.6, 0.3
"""Least correlation of neighbours in a series, for the median column and every target."""
_FEWEST_WEEKS = 8
_RUNS = 20
MOST_UNSEEN = 0.05
"""Share of the validation rows that may have a date part's value unseen in training."""


class Split(NamedTuple):
    """Positions of rows of each part, ascending: int64; `test` may be empty."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def split_rows(frame: pd.DataFrame, data: TableDataSpec, identity: Sequence[str] = ()) -> Split:
    """Split rows into training, validation and test.

    `last_days`: the last `test_days` calendar days of the first date column are for test, the `valid_days` before them
    for validation, and rows without a date for training. With `fold` the validation ends that many times `valid_days`
    earlier, and later rows are unused. `last_rows`: the last share of the rows is for test, the one before it for
    validation. `random`: shares of the rows by a hash of their values, so added data never moves a row, and equal rows
    stay together. `group`: likewise by a hash of `split_column`'s value; rows without a value are for training; without
    `split_column`, rows that differ only in targets, ids and columns left out stay together. `column`: the value of
    `split_column` in each row. The validation rows depend on `test_fraction` only for `last_rows`.

    Parameters
    ----------
    frame
        The rows, dates already parsed.
    identity
        Columns hashed by a random split; empty: all.

    Raises UserError where a column is absent or has other values, or where the training, the validation or a requested
    test part is empty.
    """
    kind = data.split if data.split != "auto" else "last_days" if data.date else "random"
    if data.test_fraction and kind == "last_days":  # `auto` may only now have a date
        raise UserError("rows are split by their days: the last ones test by data.test_days, not data.test_fraction")
    if data.test_days and kind != "last_days":
        raise UserError(f"split {kind}: data.test_days needs a date to split by; name it in data.date")
    if kind == "last_days":
        parts, advice = _by_days(frame[require(frame, data.date[:1], "date")[0]], data)
    elif kind == "random" or (kind == "group" and data.split_column is None):
        names = list(map(str, identity or frame.columns))
        parts = _random(frame, names if kind == "random" else _features(names, data), data)
        advice = f"valid_fraction is {data.valid_fraction:g}"
    elif kind == "last_rows":
        places = (len(frame) - 0.5 - np.arange(len(frame))) / len(frame)  # from the end
        bounds = [places < data.test_fraction, places < data.test_fraction + data.valid_fraction]
        parts, advice = np.select(bounds, [_TEST, _VALID], _TRAIN), f"valid_fraction is {data.valid_fraction:g}"
    else:
        told = frame[require(frame, [str(data.split_column)], "split_column")[0]]
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
    """Part of every row by its day, and the settings that decide it.

    Fold 0 validates on the last days before the test, fold 1 on those before, and so on; later rows, and rows without a
    date, are in no fold.
    """
    day = dates.dt.normalize()
    tested = _last_day(day) - pd.Timedelta(days=data.test_days)
    days = validation_days(dates, data)
    last = _last_day(day[day <= tested]) if data.fold else tested
    end, start = (last - pd.Timedelta(days=folds * days) for folds in (data.fold, data.fold + 1))
    bounds = [day > tested, day > end, day > start, day.isna() & bool(data.fold)]
    parts = np.select(bounds, [_UNUSED if data.fold else _TEST, _UNUSED, _VALID, _UNUSED], _TRAIN).astype(np.int8)
    tests = f", test_days {data.test_days}" if data.test_days else ""
    return parts, f"valid_days is {days}{tests}" + (f", fold {data.fold}" if data.fold else "")


def validation_days(dates: pd.Series, data: TableDataSpec) -> int:
    """Number of validation days: as stated, else a fifth of the time before the test, from one day to a year.

    The earliest hundredth of the rows is ignored, since tables tend to write unknown dates as 1900.
    """
    if data.valid_days is not None:
        return data.valid_days
    day = dates.dt.normalize()
    first = day.quantile(0.01).normalize()
    span = int((_last_day(day) - first).days) + 1 - data.test_days
    return min(max(round(span / 5), 1), 365)


def _last_day(day: pd.Series) -> pd.Timestamp:
    last = day.max()
    if pd.isna(last):
        raise UserError(f"column {day.name}: no row has a date, so rows cannot be split by time; check its format")
    return pd.Timestamp(last)


def _random(frame: pd.DataFrame, identity: list[str], data: TableDataSpec) -> np.ndarray:
    shares = np.concatenate([*_shares(frame, identity, data.split_seed)])
    parts = _by_share(shares, data)
    if len(frame) > 1 and not data.test_fraction and (parts == parts[0]).all():
        # Each part gets at least one row; its copies go with it.
        trains = parts[0] == _TRAIN
        parts[shares == (shares.min() if trains else shares.max())] = _VALID if trains else _TRAIN
    return parts


def _features(names: Sequence[str], data: TableDataSpec) -> list[str]:
    """Columns in which copies are equal: all but targets and ids, which distinguish copies."""
    return [name for name in names if name not in {*data.target, *data.drop} and not is_entity(name)]


def _by_share(shares: np.ndarray, data: TableDataSpec) -> np.ndarray:
    """Part of every place between 0 and 1: validation at the lower end, test at the upper."""
    tests = shares >= 1 - data.test_fraction
    return np.select([shares < data.valid_fraction, tests], [_VALID, _TEST], _TRAIN).astype(np.int8)


def _shares(frame: pd.DataFrame, identity: list[str], seed: int) -> Iterator[np.ndarray]:
    """Place of every row between 0 and 1, by chunk, because hashing takes many times the table's memory."""
    key = np.uint64(_share(str(seed), seed) * 2**64)
    for part in in_chunks(frame):
        places = np.full(len(part), key)
        for name in identity:
            # Hash numbers or text and skip missing values: neither a gap elsewhere (7 becomes 7.0) nor an empty column
            # of unknown kind moves a row.
            column = part[name].astype("float64" if is_number(part[name]) else "str")
            hashed = pd.util.hash_pandas_object(column, index=False).to_numpy()
            places = _mixed(places ^ np.where(column.isna(), np.uint64(0), hashed))
        yield places / 2**64


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Mix uint64 values bijectively (the finalizer of splitmix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = numbers ^ (numbers >> np.uint64(31))
    return mixed


def _share(value: str, seed: int) -> float:
    """Map a value deterministically to a place, uniform from 0 to 1."""
    digest = hashlib.blake2b(f"{seed}:{value}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _text(value: object) -> str:
    # A gap elsewhere in the column turns 7 into 7.0, which must not move its group.
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


def choose_split(frame: pd.DataFrame, data: TableDataSpec, stated: TableDataSpec) -> tuple[TableDataSpec, Role]:
    """Complete the settings with the split's kind and days, and describe them in a line.

    ``auto`` takes the last days if a date is named, or if the rows are a series by a detected date: in time order, or
    one per time step. Without any date it takes the last rows if they seem to be a series, see `neighbours_alike`.
    Other tables are split at random, because a detected date need not be the time of prediction: it may be a birthday.

    Parameters
    ----------
    frame
        The rows, dates already parsed.
    data, stated
        The settings with and without the findings.
    """
    kind, why = stated.split, "as data.split says"
    if kind == "auto":
        kind, why = ("last_days", "as data.date names a date") if stated.date else ("random", "")
        series = [] if stated.date else [name for name in data.date if is_series(frame[name])]
        if series:
            kind, why = "last_days", f"as the rows are in the order of {series[0]}"
            if not (data.events or data.rolling):  # these use the first date, already read
                data = data.model_copy(update={"date": sorted(data.date, key=lambda name: name != series[0])})
        if kind == "random" and not data.date and (alike := neighbours_alike(frame, data.target)):
            kind, why = "last_rows", alike
    data = data.model_copy(update={"split": kind})
    if kind != "last_days":
        return data, _role(data, why)
    name = data.date[0]
    if data.valid_days is None:
        data = data.model_copy(update={"valid_days": validation_days(frame[name], data)})
        why += ", about a fifth of the time"
    tested = f", but for the {data.test_days} last, which test" if data.test_days else ""
    reason = f"the last {data.valid_days} days of {name} validate{tested}, {why}"
    return data, Role("rows", "split by time", reason, "--data.valid_days DAYS, or --data.split random")


def _role(data: TableDataSpec, why: str) -> Role:
    if data.split == "column":
        return Role("rows", "split", f"as {data.split_column} says in each", "--data.split random")
    tested = f", and {data.test_fraction:.0%} test" if data.test_fraction else ""
    reason = f"{data.valid_fraction:.0%} {'of them' if data.split == 'group' else 'of the rows'} validate{tested}"
    if data.split == "last_rows":
        return Role("rows", "split by their order", f"the last {reason}, {why}", "--data.split random")
    if data.split == "group":
        whole = f"whole values of {data.split_column}" if data.split_column else "equal features"
        return Role("rows", f"split by {whole}", reason, "--data.split random")
    if why:
        return Role("rows", "split at random", f"{reason}, {why}", "--data.split auto")
    if data.date:
        reason += f": {data.date[0]} is a date, but the rows are no series in its order"
        return Role("rows", "split at random", reason, f"--data.date {data.date[0]}: the last days validate")
    return Role("rows", "split at random", f"{reason}: no column holds dates", "--data.valid_fraction SHARE")


def neighbours_alike(frame: pd.DataFrame, targets: Sequence[str]) -> str:
    """Why rows without a date seem to be in time order; empty if they do not.

    The targets and most numeric columns are correlated with the row before (by rank), like hourly measurements. Rows
    sorted by a target do not count, as they are always correlated.
    """
    if len(frame) < _FEWEST_NEIGHBOURS:
        return ""
    columns = {str(name): frame[name] for name in frame if is_numeric_dtype(frame[name]) or name in targets}
    correlations = {name: _serial_correlation(column) for name, column in columns.items()}
    others = [each for name, each in correlations.items() if name not in targets and each is not None]
    own = [correlations[name] for name in targets]
    if not others or any(each is None or each < _ALIKE_TARGET for each in own):
        return ""
    alike = float(np.median(others))
    return f"as rows one after the other are alike (correlation {alike:.2f})" if alike >= _ALIKE else ""


def _serial_correlation(column: pd.Series) -> float | None:
    """Rank correlation of values with the row before; None for constant or sorted columns."""
    values = column if is_numeric_dtype(column) else pd.Series(pd.factorize(column)[0], index=column.index)
    ranks = values.astype("float64").rank().dropna()
    steps = np.diff(ranks.to_numpy())
    moves = steps[steps != 0]
    if len(moves) < _FEWEST_MOVES or min((moves < 0).mean(), (moves > 0).mean()) <= _MOST_BACKWARD:
        return None
    return float(np.corrcoef(ranks.iloc[:-1], ranks.iloc[1:])[0, 1])


def is_series(dates: pd.Series) -> bool:
    """Whether rows are in time order (ascending or descending, perhaps group by group), or one per time step."""
    times = dates.dropna().to_numpy().astype("datetime64[s]").astype(np.int64)
    if len(times) < 2 or times.min() == times.max():
        return False
    steps = np.diff(times)
    backward = (steps[steps != 0] < 0).mean()
    if min(backward, 1 - backward) <= _MOST_BACKWARD:
        return True
    gaps = np.diff(np.sort(times))
    return bool((gaps > 0).mean() > 1 - _MOST_BACKWARD and gaps.std() <= _MOST_UNEVEN * gaps.mean())


def time_blocks(dates: pd.Series) -> np.ndarray:
    """Week numbers (n,) int64 of dates (n,), or day numbers if they span fewer than eight weeks.

    Blocks are resampled whole, as neighbours in time are alike; a few blocks would not allow an interval.
    """
    days = dates.to_numpy("datetime64[D]").astype(np.int64)
    weeks = days // 7
    return weeks if len(np.unique(weeks)) >= _FEWEST_WEEKS else days


def row_blocks(rows: int) -> np.ndarray:
    """Block numbers (n,) int64: runs of consecutive rows in time order."""
    return np.arange(rows) // max(rows // _RUNS, 1)


def unseen_parts(features: pd.DataFrame, data: TableDataSpec, train: np.ndarray, valid: np.ndarray) -> dict[str, Role]:
    """Date parts with values in validation rows that training never saw, such as a later year.

    Predictions from such values are arbitrary, except for the seconds since 1970, where later values act like the last
    ones seen. Parts that `data` names as a category or number stay.
    """
    roles: dict[str, Role] = {}
    named = {*data.categorical, *data.continuous, *data.drop}
    for date in data.date:
        names = {*part_names(date, bool(data.time_of_day), data.cyclic)} - named - {elapsed_name(date)}
        for name in (name for name in map(str, features) if name in names):
            share = _unseen(features[name].iloc[train], features[name].iloc[valid])
            if share > MOST_UNSEEN:
                reason = f"{share:.0%} of the validation rows have values of it that no training row has"
                roles[name] = Role(name, "left out", reason, f"--data.continuous {name}")
    return roles


def _unseen(train: pd.Series, valid: pd.Series) -> float:
    """Share of the validation rows with a new value (if values are few) or one out of range (if many)."""
    if count_up_to(train, CATEGORY_VALUES + 1) <= CATEGORY_VALUES:
        return float((~valid.isin(train.unique()) & valid.notna()).mean())
    return float(((valid < train.min()) | (valid > train.max())).mean())
