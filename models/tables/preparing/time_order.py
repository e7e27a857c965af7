"""Whether rows are split by time, and which parts of dates a training by time never saw."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.tables.columns.dates import part_names
from unfreeze.models.tables.columns.roles import Role
from unfreeze.models.tables.preparing.splits import validation_days
from unfreeze.models.tables.reading.frames import count_up_to

_MOST_BACKWARD = 0.05
"""Share of the changes of date that may lead back: series one below the other step back where one begins."""
_MOST_UNEVEN = 0.5
"""Deviation of the steps between dates, as a share of their mean, up to which they count as regular; of dates that
fall at random it is 1."""
_FEWEST_ROWS = 100
"""Rows below which a correlation of neighbours may be chance."""
_FEWEST_MOVES = 20
"""Changes from row to row; fewer are those between blocks of a sorted table."""
_ALIKE, _ALIKE_TARGET = 0.6, 0.3
"""Correlation of neighbours, of the columns in the middle and of every target, from which on they are a series."""
_FEWEST_WEEKS = 8
_RUNS = 20
MOST_UNSEEN = 0.05
"""Share of the validation rows that may have a value of a date's part which no training row has."""


def choose_split(frame: pd.DataFrame, data: TableDataSpec, stated: TableDataSpec) -> tuple[TableDataSpec, Role]:
    """The settings with the kind of the split and its days filled in, and a line about them.

    ``auto`` takes the last days if a date is named, or if the rows are a series by a date that was found: in the order
    of time, or one for every step of time. Without any date it takes the last rows if they seem to be a series, see
    `neighbours_alike`. Other tables are split at random, because a date that was found need not be the time that
    predictions look ahead of: it may be a birthday.

    Parameters
    ----------
    frame
        The rows, dates already parsed.
    data, stated
        The settings with what was found, and without.
    """
    kind, why = stated.split, "as data.split says"
    if kind == "auto":
        kind, why = ("last_days", "as data.date names a date") if stated.date else ("random", "")
        series = [] if stated.date else [name for name in data.date if is_series(frame[name])]
        if series:
            kind, why = "last_days", f"as the rows are in the order of {series[0]}"
            if not (data.events or data.rolling):  # these take the first date, which was read by now
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
    """Why rows without a date seem to be in the order of time; empty where they do not.

    One after the other, the targets and most columns of numbers are correlated (by rank, with the row before), as what
    is measured hour by hour is. Rows that are sorted by a target are not meant: they would be correlated in any case.
    """
    if len(frame) < _FEWEST_ROWS:
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
    """Rank correlation of values with those of the row before; None for columns that are constant or sorted."""
    values = column if is_numeric_dtype(column) else pd.Series(pd.factorize(column)[0], index=column.index)
    ranks = values.astype("float64").rank().dropna()
    steps = np.diff(ranks.to_numpy())
    moves = steps[steps != 0]
    if len(moves) < _FEWEST_MOVES or min((moves < 0).mean(), (moves > 0).mean()) <= _MOST_BACKWARD:
        return None
    return float(np.corrcoef(ranks.iloc[:-1], ranks.iloc[1:])[0, 1])


def is_series(dates: pd.Series) -> bool:
    """Whether rows are in the order of time (ascending or descending, perhaps group by group), or one per step."""
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
    """Numbers (n,) int64 of the weeks of dates (n,), or of their days where they are of fewer than eight weeks.

    Rows of a block are resampled as a whole, as neighbours in time are alike; of a few blocks no interval can be told.
    """
    days = dates.to_numpy("datetime64[D]").astype(np.int64)
    weeks = days // 7
    return weeks if len(np.unique(weeks)) >= _FEWEST_WEEKS else days


def row_blocks(rows: int) -> np.ndarray:
    """Numbers (n,) int64 of runs of rows that are in the order of time."""
    return np.arange(rows) // max(rows // _RUNS, 1)


def unseen_parts(features: pd.DataFrame, data: TableDataSpec, train: np.ndarray, valid: np.ndarray) -> dict[str, Role]:
    """Parts of dates of which validation rows have values that the training never saw, such as a later year.

    What a network or a tree makes of such a value is chance, but for the seconds since 1970: later than all that were
    seen is like the last that were seen. A part that `data` names as a category or number stays.
    """
    roles: dict[str, Role] = {}
    for date in data.date:
        names = part_names(date, bool(data.time_of_day), data.cyclic)
        named = {*data.categorical, *data.continuous, *data.drop}
        for name in (each for each in names if each in features and each not in named and not each.endswith("Elapsed")):
            share = _unseen(features[name].iloc[train], features[name].iloc[valid], data)
            if share > MOST_UNSEEN:
                reason = f"{share:.0%} of the validation rows have values of it that no training row has"
                roles[name] = Role(name, "left out", reason, f"--data.continuous {name}")
    return roles


def _unseen(train: pd.Series, valid: pd.Series, data: TableDataSpec) -> float:
    """Share of the validation rows with a value that is new (of few values) or beyond all others (of many)."""
    most = data.max_category_values
    if count_up_to(train, most + 1) <= most:
        return float((~valid.isin(train.unique()) & valid.notna()).mean())
    return float(((valid < train.min()) | (valid > train.max())).mean())
