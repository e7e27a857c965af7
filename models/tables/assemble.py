"""From raw tables to one table of features: joins, conditions, dates, events; the same for training and prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from unfreeze.models.errors import UserError
from unfreeze.models.specs.tables import TableDataSpec
from unfreeze.models.tables.calendar import Calendar
from unfreeze.models.tables.dates import add_datepart, parse_dates
from unfreeze.models.tables.joins import join_many_to_one, keep_where


@dataclass(frozen=True)
class Joined:
    """A table to look rows up in."""

    name: str
    frame: pd.DataFrame
    on: list[str] | None


@dataclass(frozen=True)
class Assembled:
    """A table of features.

    Attributes
    ----------
    frame
        All columns, dates read.
    rejected
        What was excluded: ``reason`` and ``rows``.
    calendar
        The days that features of events were computed from; None without such features.
    unknown
        Row of `frame` -> why its features of events cannot be computed.
    """

    frame: pd.DataFrame
    rejected: list[dict[str, Any]]
    calendar: Calendar | None
    unknown: dict[int, str]


def assemble(
    frame: pd.DataFrame, joins: Sequence[Joined], data: TableDataSpec, training: bool, calendar: Calendar | None = None
) -> Assembled:
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
        Whether the rows are to be trained or validated on: those that a condition excludes are rejected, after they
        took part in features of events. Rows to predict are all kept.
    calendar
        That of the training, for rows to predict.

    Raises
    ------
    UserError
        For missing columns and dates that cannot be read.
    """
    rejected: list[dict[str, Any]] = []
    unknown: dict[int, str] = {}
    for joined in joins:
        frame = join_many_to_one(frame, joined.frame, joined.on, joined.name)
    _require(frame, [*data.date, *data.events, *data.rolling, *data.group], "data.date, events, rolling or group")
    frame = frame.assign(**{name: parse_dates(frame[name], name) for name in data.date})
    if data.events or data.rolling:
        if training:
            calendar = Calendar.of(frame, data)
            features = calendar.own_features(frame)
        elif calendar is None:
            raise UserError("the model has no calendar for its features of events; train and register it again")
        else:
            features, unknown = calendar.features(frame)
        frame = frame.assign(**features)
    if training and data.where:
        frame, rejected = keep_where(frame, data.where)
    frame = frame.drop(columns=[name for name in data.drop if name in frame]).reset_index(drop=True)
    return Assembled(frame, rejected, calendar, unknown)


def with_date_parts(frame: pd.DataFrame, data: TableDataSpec) -> pd.DataFrame:
    """Replace every date column by its parts."""
    for name in data.date:
        frame = add_datepart(frame, name, time=data.time_of_day, cyclic=data.cyclic)
    return frame


def _require(frame: pd.DataFrame, names: Sequence[str], what: str) -> None:
    missing = sorted({name for name in names if name not in frame})
    if missing:
        raise UserError(
            f"{what}: there is no column {', '.join(missing)}; there are {', '.join(map(str, frame.columns))}"
        )
