"""Join, clean, split and encode raw tables; predictions share the joins and features."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from unfreeze.models.errors import UserError
from unfreeze.models.reading.sampling import sample_rows
from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.tables.columns.calendar import Calendar
from unfreeze.models.tables.columns.date_texts import ISO, parse_dates, read_dates
from unfreeze.models.tables.columns.dates import add_datepart, part_names, varies_in_time, with_dates
from unfreeze.models.tables.columns.encoding import Encoded, TableEncoder, require_numbers
from unfreeze.models.tables.columns.formats import convert_numbers
from unfreeze.models.tables.columns.kinds import has_fractions
from unfreeze.models.tables.columns.roles import Found, Role, describe_roles, infer_roles
from unfreeze.models.tables.preparing.checks import (
    SAMPLE_ROWS,
    check_table,
    copies,
    drop_unusable_columns,
    drop_unusable_rows,
    gaps,
    is_class,
    is_copy,
)
from unfreeze.models.tables.preparing.row_reader import RawColumns
from unfreeze.models.tables.preparing.sources import join_many_to_one, keep_where, require_one_role
from unfreeze.models.tables.preparing.splits import choose_split, split_rows, unseen_parts
from unfreeze.models.tables.reading.frames import require


class Joined(NamedTuple):
    """A lookup table."""

    name: str
    frame: pd.DataFrame
    on: list[str] | None


class Assembled(NamedTuple):
    """A table of features with parsed dates.

    `rejected` has the ``reason`` and ``rows`` that each condition excluded; `calendar` is None without event features;
    `unknown` maps a row of `frame` to the reason why they cannot be computed; `found` are the findings about a training
    table's columns, before any row or column is left out; `warnings` name target values that exclude rows, or should.
    """

    frame: pd.DataFrame
    rejected: list[dict[str, Any]]
    calendar: Calendar | None
    unknown: dict[int, str]
    found: Found | None
    warnings: list[str]


def assemble(
    frame: pd.DataFrame,
    joins: Sequence[Joined],
    data: TableDataSpec,
    training: bool,
    calendar: Calendar | None = None,
    lenient: Collection[str] = (),
) -> Assembled:
    """Join at most one row of each other table to every row of the main table, filter, and add event features.

    In a `training` the roles of columns are inferred, and rows excluded by a condition still contribute to event
    features. For prediction all rows are kept, with the training's `calendar` and its completed `data`; unreadable
    dates are missing in `lenient` columns.

    Raises
    ------
    UserError
        For missing columns and dates that cannot be read.
    """
    rejected: list[dict[str, Any]] = []
    unknown: dict[int, str] = {}
    for joined in joins:
        frame = join_many_to_one(frame, joined.frame, joined.on, joined.name)
    frame = with_dates(frame, data.date_from) if training else frame
    for field in ("date", "events", "rolling", "group") if training else ():
        require(frame, getattr(data, field), f"data.{field}")
    found, dropped, written = None, data.drop, frame
    if training:
        require_one_role(data)
        frame, found = infer_roles(frame, data)
        data, lenient = found.data, found.lenient
    else:
        frame = with_dates(convert_numbers(frame, data.numbers)[0], data.date_from)
    forms = {name: data.date_formats.get(name, ISO) for name in data.date if name in frame}
    frame = frame.assign(
        **{
            name: read_dates(frame[name], name, form)[0] if name in lenient else parse_dates(frame[name], name, form)
            for name, form in forms.items()
        }
    )
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
    targets = [name for name in data.target if name in frame] if training else []
    warnings = [gaps(written[name].loc[frame.index], frame[name]) for name in targets]
    # Keep detected ids for now: the split uses them, and users look rows up by them.
    frame = frame.drop(columns=dropped, errors="ignore").reset_index(drop=True)
    return Assembled(frame, rejected, calendar, unknown, found, [each for each in warnings if each])


def with_date_parts(frame: pd.DataFrame, data: TableDataSpec) -> pd.DataFrame:
    """Replace every date column with its parts."""
    for name in (name for name in data.date if name in frame):
        frame = add_datepart(frame, name, time=bool(data.time_of_day), cyclic=data.cyclic)
    return frame


@dataclass(frozen=True, eq=False)
class Prepared:
    """A joined table ready for training, with targets and dates.

    `train`, `valid` and `test` are positions of rows of `frame`, int64; `test` may be empty. `encoded` and `targets`
    are the network's inputs and targets for all rows; `rejected` lists unused rows and columns with reasons. `data` are
    the settings completed with the findings, `roles` the columns' roles, `readings` values of text beside their
    reading, and `raw` describes how to read rows for prediction.
    """

    frame: pd.DataFrame
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    encoder: TableEncoder
    encoded: Encoded
    targets: np.ndarray
    rejected: list[dict[str, Any]]
    warnings: list[str]
    calendar: Calendar | None
    data: TableDataSpec
    roles: list[Role]
    readings: list[dict[str, Any]]
    raw: RawColumns


@np.errstate(over="ignore", invalid="ignore")  # the spread of huge numbers may overflow to infinity
def prepare(frame: pd.DataFrame, joins: Sequence[Joined], stated: TableDataSpec) -> Prepared:
    """Join other tables to the main one, add features, exclude unusable rows and columns, split, and encode.

    Raises
    ------
    UserError
        If the tables are invalid or the settings do not fit them.
    """
    own = [str(name) for name in frame]
    assembled = assemble(frame, joins, stated, training=True)
    frame, found = assembled.frame, assembled.found
    assert found is not None  # it is a training
    data = found.data
    require(frame, data.target, "data.target")
    frame, rows_out = drop_unusable_rows(frame, data.target)
    frame = frame.reset_index(drop=True)
    data, split_role = choose_split(frame, data, stated)
    # Split by the main table's own values: joined, computed and constant columns can change as data are added, and a
    # row that moved would be tested on after it was trained on.
    split = split_rows(frame, data, [name for name in own if name in frame])
    keep = [*data.target, *data.date, *([data.split_column] if data.split_column else [])]
    frame, columns_out = drop_unusable_columns(frame, keep)
    categorical = [name for name in data.categorical if name in frame or name in stated.categorical]
    data = data.model_copy(update={"categorical": categorical})
    if data.task == "regression":
        for name in data.target:
            require_numbers(frame[name])
    if data.time_of_day is None:
        data = data.model_copy(update={"time_of_day": any(varies_in_time(frame[name]) for name in data.date)})
    copied = _copies_of_target(frame, data, stated)
    found.roles.update(copied)
    data = data.model_copy(update={"drop": [*data.drop, *copied]})
    warnings = assembled.warnings + check_table(frame, data.target, split.train, split.valid, data)
    features = with_date_parts(frame, data)
    unseen = unseen_parts(features, data, split.train, split.valid)
    data = data.model_copy(update={"drop": [*data.drop, *unseen]})
    encoder = TableEncoder.fit(features, split.train, data)
    encoded, targets = encoder.transform(features), encoder.targets(features)
    warnings += copies(encoder, encoded, targets, split)
    rejected = [*assembled.rejected, *rows_out, *columns_out]
    roles = describe_roles(found, stated, encoder, columns_out)
    dotted = [name for name, form in data.numbers.items() if form == "," and name in frame]
    whole = [name for name in dotted if not has_fractions(frame[name])]
    raw = RawColumns(_needed(own, joins, encoder, data), found.lenient, whole)
    return Prepared(
        *(frame, *split, encoder, encoded, targets, rejected, warnings, assembled.calendar),
        *(data, [split_role, *roles, *unseen.values()], found.readings, raw),
    )


def _copies_of_target(frame: pd.DataFrame, data: TableDataSpec, stated: TableDataSpec) -> dict[str, Role]:
    """Unnamed columns that copy the target; empty if no other column would be left."""
    others = [str(name) for name in frame if name not in {*data.target, *data.drop}]
    lists = (stated.categorical, stated.continuous, stated.date, stated.group, stated.events, stated.rolling)
    kept = {stated.split_column, *(name for names in lists for name in names)}
    sample = frame.iloc[sample_rows(np.arange(len(frame)), SAMPLE_ROWS)]
    roles = {}
    for target in data.target:
        classes = is_class(frame[target], data)
        for name in (name for name in others if name not in kept):
            if all(is_copy(rows[name], rows[target], classes=classes) for rows in (sample, frame)):
                same = f"it tells {target} one to one" if classes else f"it is {target} in every row"
                roles[name] = Role(
                    name, "left out", same, f"--data.{'categorical' if classes else 'continuous'} {name}"
                )
    return roles if len(roles) < len(others) else {}


def _needed(own: Sequence[str], joins: Sequence[Joined], encoder: TableEncoder, data: TableDataSpec) -> list[str]:
    """Columns of the main table required to predict a row."""
    used, calendar = set(encoder.columns()), bool(data.events or data.rolling)
    needed = {*data.group, *data.events, *data.rolling} if calendar else set()
    needed |= {*data.date_from.get(data.date[0], data.date[:1])} if calendar else set()
    for name in data.date:
        columns = {*data.date_from.get(name, [name])}
        parts = part_names(name, bool(data.time_of_day), data.cyclic)
        needed |= columns if used.intersection(parts) else set()
        used -= {*parts}
    # Add all columns shared with a joined table: some are its keys, and others cause renames.
    needed |= used.union(*(map(str, joined.frame) for joined in joins))
    return [name for name in own if name in needed and name not in data.target]
