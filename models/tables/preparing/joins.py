"""Rows of two tables joined, and rows kept by conditions."""

import math
import operator
import re
import warnings
from typing import Any

import pandas as pd
from pandas.api.types import is_bool_dtype, is_datetime64_any_dtype, is_numeric_dtype

from unfreeze.models.errors import UserError
from unfreeze.models.tables.reading.files import SUFFIXES
from unfreeze.models.tables.reading.frames import unknown_column

_CONDITION = re.compile(r"\s*(?P<column>.*?[^\s=<>!])\s*(?P<comparison>==|!=|<=|>=|<|>)\s*(?P<value>[^=<>].*?)\s*")
_COMPARISONS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def parse_join(text: str) -> tuple[str, list[str] | None]:
    """Split `FILE on A,B` into the file and its key columns, None where the text names none.

    Raises UserError where the file or a column is empty.
    """
    file, found, keys = text.rpartition(" on ")
    if not found or keys.strip().lower().endswith(SUFFIXES):  # a path may contain " on " as well
        file, columns = text, None
    else:
        columns = [column.strip() for column in keys.split(",")]
    if not file.strip() or (columns is not None and not all(columns)):
        raise UserError(f"join {text!r}: write FILE, or FILE on COLUMN,COLUMN")
    return file.strip(), columns


def join_many_to_one(left: pd.DataFrame, right: pd.DataFrame, on: list[str] | None, name: str) -> pd.DataFrame:
    """Add the columns of a table that has one row per key; rows, their order and their index stay those of `left`.

    A row without a partner gets missing values, and a missing key has no partner. That no row has one is not an error:
    rows to predict are joined as well, and may be few.

    Parameters
    ----------
    on
        Key columns; None: all columns that both have.
    name
        What `right` is called: in errors, and as suffix `_<name>` of its columns that `left` has too.

    Raises UserError where keys are absent, without any value in `right`, of different types, or not unique in
    `right`.
    """
    keys = [column for column in left.columns if column in right.columns] if on is None else list(dict.fromkeys(on))
    if not keys:
        raise UserError(
            f"join {name}: the tables share no column ({name} has {', '.join(map(str, right.columns[:10]))}); "
            "rename the key so that both have it"
        )
    for key in keys:
        for frame, where in ((left, f"join {name}, in the main table"), (right, f"join {name}, in {name}")):
            if key not in frame.columns:
                raise unknown_column(key, frame.columns, where)
        if right[key].isna().all():
            raise UserError(f"join {name}: {key} has no value in any row of {name}; join on other columns")
        if left[key].isna().all():  # such as one row to predict: its type means nothing, and merge would reject it
            left = left.assign(**{key: right[key].iloc[:0].reindex(left.index)})
        kinds = _kind(left[key]), _kind(right[key])
        if kinds[0] != kinds[1]:
            raise UserError(f"join {name}: {key} holds {kinds[0]} in the main table but {kinds[1]} in {name}")
    right = right.dropna(subset=keys)
    repeated = right.loc[right.duplicated(keys), keys].drop_duplicates()
    if len(repeated):
        rows = repeated.head(3).to_dict("records")
        shown = "; ".join(", ".join(f"{key} {value}" for key, value in row.items()) for row in rows)
        raise UserError(
            f"join {name}: {len(repeated)} keys occur in several rows ({shown}), which would multiply rows; "
            "leave one row of each, or join on more columns"
        )
    both = [column for column in right.columns if column not in keys and column in left.columns]
    for column in both:
        if (new := f"{column}_{name}") in [*left.columns, *right.columns]:
            raise UserError(f"join {name}: {column} would become {new}, which there is already; rename one of them")
    right = right.rename(columns={column: f"{column}_{name}" for column in both})
    with warnings.catch_warnings():
        # Whole numbers that meet others, such as 1.5, match none of them: what a left join is for.
        warnings.filterwarnings("ignore", "You are merging on int and float columns", UserWarning)
        return left.merge(right, on=keys, how="left", validate="many_to_one").set_axis(left.index)


def _kind(column: pd.Series) -> str:
    if is_datetime64_any_dtype(column):
        return "dates"
    return "numbers" if is_numeric_dtype(column) else "text"


def keep_where(frame: pd.DataFrame, conditions: list[str]) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Keep the rows for which all conditions hold.

    A condition is `COLUMN COMPARISON VALUE` with ==, !=, <, <=, > or >=, such as `Open == 1` or `state != a`; quotes
    around the value are optional. The value is compared as a number, a date or text, whichever the column holds. Of a
    missing value only != holds.

    Returns the rows that are kept, with their index, and for each condition a dict of reason and rows: how many it
    left out of those that the conditions before it had kept.

    Raises UserError where a condition is malformed, names no column, compares with a value of the wrong kind, or
    keeps no row.
    """
    rejected = []
    for condition in conditions:
        match = _CONDITION.fullmatch(condition)
        if match is None:
            raise UserError(f"where {condition!r}: write COLUMN {' '.join(_COMPARISONS)} VALUE, such as Open == 1")
        if match["column"] not in frame.columns:
            raise unknown_column(match["column"], frame.columns, f"where {condition!r}")
        column = frame[match["column"]]
        text = re.sub(r"""^(["'])(.*)\1$""", r"\2", match["value"])
        try:
            value = _value_like(column, text)
        except (ValueError, KeyError) as error:
            raise UserError(
                f"where {condition!r}: {column.name} holds {_kind(column)}, and {text!r} is none"
            ) from error
        values = column.astype("string") if isinstance(value, str) else column
        holds = _COMPARISONS[match["comparison"]](values, value).fillna(match["comparison"] == "!=").astype(bool)
        if not holds.any():
            raise UserError(f"where {condition!r}: holds for none of {len(frame)} rows; check the value")
        rejected.append({"reason": f"{condition.strip()} does not hold", "rows": int((~holds).sum())})
        frame = frame[holds]
    return frame, rejected


def _value_like(column: pd.Series, text: str) -> Any:
    """A text as a value to compare with the column; ValueError or KeyError where it is not of the column's kind."""
    if is_datetime64_any_dtype(column):
        moment, zone = pd.Timestamp(text), getattr(column.dtype, "tz", None)
        return moment.tz_localize(zone) if zone is not None and moment.tz is None else moment
    if is_bool_dtype(column):
        return _TRUTH[text.lower()]
    if not is_numeric_dtype(column):
        return text
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else number
