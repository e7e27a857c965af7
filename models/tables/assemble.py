"""From raw tables to one table of features: joins, conditions, dates, events; the same for training and prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from unfreeze.models.errors import UserError
from unfreeze.models.specs.tables import TableDataSpec
from unfreeze.models.tables.calendar import Calendar
from unfreeze.models.tables.dates import add_datepart, parse_dates
from unfreeze.models.tables.encoding import require
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
    """Join to every row of the main table at most one of each other table, filter, and add features of events.

    Rows to train or validate on (`training`) that a condition excludes are rejected after they took part in features of
    events. Rows to predict are all kept, and use the training's `calendar`.

    Raises
    ------
    UserError
        For missing columns and dates that cannot be read.
    """
    rejected: list[dict[str, Any]] = []
    unknown: dict[int, str] = {}
    for joined in joins:
        frame = join_many_to_one(frame, joined.frame, joined.on, joined.name)
    for field in ("date", "events", "rolling", "group"):
        require(frame, getattr(data, field), f"data.{field}")
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
    frame = frame.drop(columns=data.drop, errors="ignore").reset_index(drop=True)
    return Assembled(frame, rejected, calendar, unknown)


def with_date_parts(frame: pd.DataFrame, data: TableDataSpec) -> pd.DataFrame:
    """Replace every date column by its parts."""
    for name in data.date:
        frame = add_datepart(frame, name, time=data.time_of_day, cyclic=data.cyclic)
    return frame
