"""From raw tables to one table of features: joins, conditions, dates, events; the same for training and prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from unfreeze.models.errors import UserError
from unfreeze.models.table_specs import TableDataSpec
from unfreeze.models.tables.dates import add_datepart, parse_dates
from unfreeze.models.tables.events import days_since, days_until, rolling_mean
from unfreeze.models.tables.joins import join_many_to_one, keep_where


@dataclass(frozen=True)
class Joined:
    """A table to look rows up in."""

    name: str
    frame: pd.DataFrame
    on: list[str] | None


def assemble(
    frame: pd.DataFrame, joins: Sequence[Joined], data: TableDataSpec, training: bool
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Join, filter and add features.

    Parameters
    ----------
    frame
        Rows of the main table.
    joins
        Tables to look up, many rows of the main table to one of theirs.
    data
        What to do.
    training
        Whether the rows are to learn from: rows that a condition excludes are rejected. Rows to predict are all kept.

    Returns
    -------
    tuple
        The table, its date columns read, and what was rejected: ``reason`` and ``rows``.
    """
    rejected: list[dict[str, Any]] = []
    for joined in joins:
        frame = join_many_to_one(frame, joined.frame, joined.on, joined.name)
    _require(frame, [*data.date, *data.events, *data.rolling, *data.group], "data.date, events, rolling or group")
    frame = frame.assign(**{name: parse_dates(frame[name], name) for name in data.date})
    if data.events or data.rolling:
        frame = _with_events(frame, data)
    if training and data.where:
        frame, rejected = keep_where(frame, data.where)
    frame = frame.drop(columns=[name for name in data.drop if name in frame]).reset_index(drop=True)
    return frame, rejected


def with_date_parts(frame: pd.DataFrame, data: TableDataSpec) -> pd.DataFrame:
    """Replace every date column by its parts."""
    for name in data.date:
        frame = add_datepart(frame, name, time=data.time_of_day, cyclic=data.cyclic)
    return frame


def _with_events(frame: pd.DataFrame, data: TableDataSpec) -> pd.DataFrame:
    if not data.date:
        raise UserError("data.events and data.rolling need a date column in data.date")
    dates = frame[data.date[0]]
    groups = [frame[name] for name in data.group]
    added: dict[str, np.ndarray] = {}
    for name in data.events:
        event = _is_event(frame[name])
        for direction, days in (("since", days_since), ("until", days_until)):
            # Without an end, the rows near the end of the table would differ from all before: no event is known yet.
            distance = np.nan_to_num(days(dates, event, groups), nan=data.event_horizon)
            added[f"days_{direction}_{name}"] = np.minimum(distance, data.event_horizon)
    for name in data.rolling:
        values = frame[name] if pd.api.types.is_numeric_dtype(frame[name]) else _is_event(frame[name])
        added[f"{name}_last_7_days"] = rolling_mean(np.asarray(values, dtype=np.float64), dates, groups, 7)
    return frame.assign(**added)


def _is_event(column: pd.Series) -> np.ndarray:
    """Whether each row marks an event: a number other than 0, or a text other than "0", "" and "false"."""
    if pd.api.types.is_numeric_dtype(column):
        return np.asarray(column.fillna(0) != 0)
    return np.asarray(~column.astype("string").fillna("0").str.lower().isin(["0", "", "false", "no"]), dtype=bool)


def _require(frame: pd.DataFrame, names: Sequence[str], what: str) -> None:
    missing = sorted({name for name in names if name not in frame})
    if missing:
        raise UserError(
            f"{what}: there is no column {', '.join(missing)}; there are {', '.join(map(str, frame.columns))}"
        )
