"""From raw tables to encoded rows: joined, cleaned, split, encoded by the training rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from unfreeze.models.specs.tables import TableDataSpec
from unfreeze.models.tables.assemble import Joined, assemble, with_date_parts
from unfreeze.models.tables.calendar import Calendar
from unfreeze.models.tables.checks import check_table, drop_unusable_columns, drop_unusable_rows
from unfreeze.models.tables.encoding import Encoded, TableEncoder
from unfreeze.models.tables.reading import unknown_column
from unfreeze.models.tables.splits import split_rows


@dataclass(frozen=True, eq=False)
class Prepared:
    """A table that can be trained on.

    Attributes
    ----------
    frame
        All rows that are used, joined, with targets and dates.
    train, valid
        Positions of the rows of both splits, int64.
    encoder, encoded, targets
        Fitted on the training rows; all rows as the network takes them.
    rejected, warnings
        What is not used, and why; leaks, splits that flatter, columns without meaning.
    calendar
        What features of events are computed from; None without them.
    """

    frame: pd.DataFrame
    train: np.ndarray
    valid: np.ndarray
    encoder: TableEncoder
    encoded: Encoded
    targets: np.ndarray
    rejected: list[dict[str, Any]]
    warnings: list[str]
    calendar: Calendar | None


def prepare(frame: pd.DataFrame, joins: Sequence[Joined], data: TableDataSpec) -> Prepared:
    """Join other tables to the rows of the main one, add features, exclude what cannot be used, split, and encode.

    Raises
    ------
    UserError
        For what is wrong with the tables or does not fit them.
    """
    own = frame.columns
    assembled = assemble(frame, joins, data, training=True)
    frame = assembled.frame
    for name in data.target:
        if name not in frame:
            raise unknown_column(name, frame.columns, "data.target")
    frame, rows_out = drop_unusable_rows(frame, data.target)
    frame = frame.reset_index(drop=True)
    # By what the main table's rows hold: what is joined to them, computed from others, or constant so far can change
    # as data are added, and a row that moved would be compared on after it was trained on.
    train, valid = split_rows(frame, data, [name for name in own if name in frame])
    keep = [*data.target, *data.date, *([data.split_column] if data.split_column else [])]
    frame, columns_out = drop_unusable_columns(frame, keep)
    warnings = check_table(frame, data.target, train, valid, data)
    features = with_date_parts(frame, data)
    encoder = TableEncoder.fit(features, train, data)
    encoded, targets = encoder.transform(features), encoder.targets(features)
    rejected = [*assembled.rejected, *rows_out, *columns_out]
    return Prepared(frame, train, valid, encoder, encoded, targets, rejected, warnings, assembled.calendar)
