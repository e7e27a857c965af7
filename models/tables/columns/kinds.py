"""Values of a column as numbers, whole numbers or categories, regardless of their pandas dtype."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from unfreeze.models.errors import UserError
from unfreeze.models.tables.reading.frames import in_chunks
from unfreeze.models.targets import Category

_KINDS = {"string": "text", "boolean": "bool", "empty": "empty"} | dict.fromkeys(
    ("integer", "integer-na", "floating", "mixed-integer-float", "decimal"), "number"
)
"""Type that pandas infers from a column's values -> kind of column."""


def without_categories(frame: pd.DataFrame) -> pd.DataFrame:
    """Convert pandas categoricals to the type of their values."""
    return frame.astype(dict.fromkeys(frame.select_dtypes("category"), object))


def kind_of(column: pd.Series) -> str:
    """``text``, ``bool``, ``number`` or ``empty``; `UserError` for anything else."""
    inferred = pd.api.types.infer_dtype(column, skipna=True)
    if inferred.startswith(("date", "time", "period")):
        raise UserError(f"column {column.name!r} holds dates or times; name it in data.date or data.drop")
    if inferred not in _KINDS:
        raise UserError(
            f"column {column.name!r} holds values of several types or of none that can be used ({inferred}); make them "
            "all text or all numbers, or name it in data.drop"
        )
    return "empty" if column.isna().all() else _KINDS[inferred]


def numbers_of(column: pd.Series) -> np.ndarray:
    """Copy of the values, (N,) float64; NaN where missing, infinite or beyond float32."""
    values = column.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
    values[np.abs(values) > np.finfo(np.float32).max] = np.nan
    return values


def whole_numbers_of(column: pd.Series) -> pd.Series:
    """Values as Int64; missing where not a whole number."""
    if pd.api.types.is_signed_integer_dtype(column.dtype):  # floats are exact only up to 2^53
        return column.astype("Int64")
    numbers = pd.Series(numbers_of(column))
    return numbers.where((numbers.abs() < 2.0**63) & (numbers % 1 == 0)).astype("Int64")


def has_fractions(column: pd.Series) -> bool:
    """Whether any number has a fraction."""
    return any(whole_numbers_of(part).count() < (~np.isnan(numbers_of(part))).sum() for part in in_chunks(column))


def _values(column: pd.Series, of: type) -> pd.Index:
    """Values as keys of categories of a type: true and false as 1 and 0, and 1.0 as 1 if there are no fractions."""
    if of is str:
        texts: pd.Index = pd.Index(column)
        return texts
    return pd.Index(numbers_of(column) + 0.0 if of is float else whole_numbers_of(column))  # + 0.0: -0.0 is 0


def count_categories(column: pd.Series, kind: str) -> pd.Series:
    """Count the rows of every category, sorted by category."""
    of = {"text": str, "bool": bool}.get(kind) or (float if has_fractions(column) else int)
    counts = pd.concat([_values(part, of).value_counts() for part in in_chunks(column)]).groupby(level=0).sum()
    return counts.set_axis(pd.Index([of(value) for value in counts.index], dtype=object))


def codes_of(column: pd.Series, categories: Sequence[Category]) -> np.ndarray:
    """Position (N,) int64 of every value among the categories, from 1; 0 for others."""
    if not categories or column.isna().all():
        return np.zeros(len(column), np.int64)
    of = type(categories[0])
    known = pd.Index(categories) if of in (str, float) else pd.Index(categories).astype("Int64")
    return known.get_indexer(_values(column, of)) + 1
