"""Drift of new data from training data: tables column by column, images by light and content.

Shares are compared by the population stability index (PSI) and its rule of thumb: below 0.1 stable, below 0.25
moderate, else large. As few rows reach such a PSI by chance, an insignificant difference is called unclear.
"""

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import chi2, ks_2samp

from unfreeze.models.errors import UserError

MODERATE_PSI, LARGE_PSI = 0.1, 0.25
"""Thresholds of the verdict on a PSI (Siddiqi 2006)."""
LEGEND = f"psi: population stability index, large from {LARGE_PSI}; ks: Kolmogorov-Smirnov distance, 0 to 1"
"""The columns of a drift report in words."""
SIGNIFICANCE = 0.01
"""Largest p-value at which shares count as different."""
FEWEST_ALIKE = 5
"""Minimum rows with the same text; rarer texts may name a person."""
RARE = "(rare)"
COMMONEST = 50
"""Number of values of a category that are counted separately."""
SHIFTS = {"valid": "shift", "test": "test-shift"}
"""Split -> key of the table with its drift from the training rows."""
UNCLEAR = "unclear"
"""Verdict on a PSI above the threshold that is not significant with so few rows."""
IMAGE_STATISTICS = ("brightness", "contrast", "saturation")

Values = Sequence[object] | np.ndarray | pd.Series

_FLOOR = 1e-4
_DECILES = np.arange(1, 10) / 10
_IMAGES_AT_ONCE = 64
_LUMA = np.array([0.299, 0.587, 0.114])


class Difference(NamedTuple):
    """PSI, Kolmogorov-Smirnov statistic (NaN for categories) and verdict of one column."""

    psi: float
    ks: float
    verdict: str


def population_stability(reference: Values, current: Values, floor: float = _FLOOR) -> float:
    """Population stability index: the sum over bins of (current - reference) * ln(current / reference).

    This is the divergence of Jeffreys (1946) between two lists of shares, (B,) each, under its name in credit scoring
    (Siddiqi 2006, *Credit Risk Scorecards*). It is symmetric, and 0 only for equal shares. Shares are clipped to
    `floor` from below, since an empty bin would make the index infinite.
    """
    before, now = (np.maximum(np.asarray(shares, dtype=np.float64), floor) for shares in (reference, current))
    return float(np.sum((now - before) * np.log(now / before)))


def stability_verdict(psi: float, p_value: float = 0.0) -> str:
    """Apply the rule of thumb: ``stable``, ``moderate`` or ``large``; `UNCLEAR` if not significant."""
    if psi < MODERATE_PSI:
        return "stable"
    if p_value > SIGNIFICANCE:
        return UNCLEAR
    return "moderate" if psi < LARGE_PSI else "large"


def category_drift(reference: Values, current: Values) -> Difference:
    """Compare the shares of values, (N,) and (M,), as text; 7 and 7.0 are equal.

    The 50 commonest values of both sides together are counted separately, missing being a value too; all others are
    counted as one.
    """
    _check_rows(reference, current)
    before, now = (_texts(values) for values in (reference, current))
    if (before == f"={RARE}").any():  # rare texts of the reference were replaced: replace unknown ones here, too
        now = now.where(now.isin([*before, "missing"]), f"={RARE}")
    counts = pd.DataFrame({"before": before.value_counts(), "now": now.value_counts()}).fillna(0).to_numpy()
    # Commonest of both sides together: those of one side would be rarer on the other by chance alone.
    counts = counts[np.argsort(-counts.sum(axis=1), kind="stable")]
    return _difference(np.vstack([counts[:COMMONEST], counts[COMMONEST:].sum(axis=0)]).T, float("nan"))


def number_drift(reference: Values, current: Values) -> Difference:
    """Compare numbers, (N,) and (M,), by their shares in the deciles of the reference and their distribution functions.

    A value that fills a decile or more has its own bin, which handles constant and mostly-0 columns. Missing values
    (NaN) are a bin too. The Kolmogorov-Smirnov statistic is of the finite values, NaN if one side has none.
    """
    _check_rows(reference, current)
    sides = [np.asarray(values, dtype=np.float64) for values in (reference, current)]
    before, now = (values[np.isfinite(values)] for values in sides)
    edges = np.array([])  # largest value of every bin but the last
    if len(before):
        edges, times = np.unique(np.quantile(before, _DECILES), return_counts=True)
        # A repeated value's bin begins just above the next smaller number.
        edges = np.unique(np.concatenate([edges, np.nextafter(edges[times > 1], -np.inf)]))
    missing = len(edges) + 1
    bins = [np.where(np.isnan(values), missing, np.searchsorted(edges, values)) for values in sides]
    ks = float("nan")
    if len(before) and len(now):
        with np.errstate(divide="ignore"):  # from the unused p-value of single rows
            ks = float(ks_2samp(before, now, method="asymp").statistic)
    return _difference(np.stack([np.bincount(each, minlength=missing + 1) for each in bins]), ks)


def _difference(counts: np.ndarray, ks: float) -> Difference:
    """Compute the difference from bin counts of reference and current rows, (2, B).

    Without drift the PSI times N M / (N + M) is about chi-squared with B - 1 degrees of freedom (Yurdakul and Naranjo
    2020, "Statistical properties of the population stability index").
    """
    rows = counts.sum(axis=1, keepdims=True)
    # At least half a row: with a hundred rows an empty bin may well hold 0.5 %, and 0.01 % would inflate the PSI.
    before, now = counts / rows
    psi = population_stability(before, now, max(_FLOOR, 0.5 / float(rows.min())))
    size = rows.prod() / rows.sum()
    return Difference(psi, ks, stability_verdict(psi, float(chi2.sf(psi * size, counts.any(axis=0).sum() - 1))))


def _check_rows(reference: Sized, current: Sized) -> None:
    for what, rows in (("reference", reference), ("current data", current)):
        if not len(rows):
            raise UserError(f"drift: there are no rows in the {what}, so nothing can be compared")


def _texts(values: Values) -> pd.Series:
    """Convert values to text distinct from ``missing``; 7.0 becomes 7, as gaps turn integers to floats."""
    column = pd.Series(values, dtype=object)
    texts = column.map(lambda value: f"={int(value) if isinstance(value, float) and value.is_integer() else value}")
    return texts.astype(object).where(column.notna(), "missing")


def distributions_of(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Shuffle each column independently and replace rare texts by `RARE`.

    This keeps each column's distribution for `table_drift`, but not which values form a row, nor rare texts such as
    names.
    """
    generator = np.random.default_rng(seed)
    columns = {}
    for name in rows.columns:
        column = rows[name].sample(frac=1, random_state=generator).reset_index(drop=True)
        if _kind(column) == "category":
            column = column.astype(object)
            column = column.where(column.isna() | (column.map(column.value_counts()) >= FEWEST_ALIKE), RARE)
        columns[name] = column
    return pd.DataFrame(columns)


def table_drift(reference: pd.DataFrame, current: pd.DataFrame) -> pd.DataFrame:
    """Compare two tables column by column.

    The reference may be a result of `distributions_of`. Dates are compared as numbers of days. Values that cannot be
    converted to the reference's number or date are missing.

    Returns
    -------
    pd.DataFrame
        A row per column: ``column``, ``kind`` (category, number, date), ``psi``, ``ks`` (NaN for categories),
        ``missing_reference`` and ``missing_current`` (shares), ``verdict``. Columns in only one table (``absent`` from
        the current rows or ``new`` in them, measures NaN) come first, then by falling PSI.

    Raises
    ------
    UserError
        If either table has no rows.
    """
    _check_rows(reference, current)
    rows = []
    for name in reference.columns.union(current.columns, sort=False):
        kind = _kind((reference if name in reference else current)[name])
        before, now = (_comparable(table[name], kind) if name in table else None for table in (reference, current))
        if before is None or now is None:
            found = Difference(np.nan, np.nan, "new" if before is None else "absent")
        else:
            found = category_drift(before, now) if kind == "category" else number_drift(before, now)
        missing = [np.nan if column is None else column.isna().mean() for column in (before, now)]
        rows.append([name, kind, found.psi, found.ks, *missing, found.verdict])
    columns = ["column", "kind", "psi", "ks", "missing_reference", "missing_current", "verdict"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values("psi", ascending=False, na_position="first", kind="stable", ignore_index=True)


def _kind(column: pd.Series) -> str:
    if pd.api.types.is_datetime64_any_dtype(column):
        return "date"
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return "number"
    return "category"


def _comparable(column: pd.Series, kind: str) -> pd.Series:
    """Convert numbers to float64 and dates to days since 1970 (UTC); categories are unchanged."""
    if kind == "date":
        return (pd.to_datetime(column, errors="coerce", utc=True) - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)
    if kind == "number":
        return pd.Series(pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan))
    return column


def shown_shift(report: pd.DataFrame) -> list[dict[str, object]]:
    """Convert a drift report to rows for a table of `SHIFTS`, by falling PSI."""
    ordered = report.dropna(axis=1, how="all").sort_values("psi", ascending=False, kind="stable", ignore_index=True)
    rows = ordered.round(4).to_dict("records")
    return [{str(name): None if pd.isna(value) else value for name, value in row.items()} for row in rows]


@dataclass(frozen=True, eq=False)
class ImageSample:
    """Sample of images: classes (N,) or all their labels, `image_statistics`, and features (N, D) or (0, D)."""

    labels: Sequence[str] | np.ndarray
    statistics: pd.DataFrame
    features: np.ndarray


def image_statistics(pixels: np.ndarray) -> pd.DataFrame:
    """Compute brightness, contrast and saturation of images.

    RGB images (N, H, W, 3) uint8 give one float64 row each, with values from 0 to 1: ``brightness`` (mean luma, ITU-R
    BT.601), ``contrast`` (its standard deviation), ``saturation`` (mean of (max - min) / max over the channels, 0 for
    black).
    """
    found = [np.empty((0, len(IMAGE_STATISTICS)))]
    for start in range(0, len(pixels), _IMAGES_AT_ONCE):
        images = pixels[start : start + _IMAGES_AT_ONCE]
        luma = (images @ _LUMA).reshape(len(images), -1) / 255
        brightest, darkest = images.max(axis=3), images.min(axis=3)
        saturation = (brightest - darkest) / np.maximum(brightest, 1)  # black: 0 / 1
        found.append(np.column_stack([luma.mean(axis=1), luma.std(axis=1), saturation.mean(axis=(1, 2))]))
    return pd.DataFrame(np.concatenate(found), columns=list(IMAGE_STATISTICS))


def image_drift(reference: ImageSample, current: ImageSample) -> pd.DataFrame:
    """Compare new images with those that the model was trained on.

    Returns
    -------
    pd.DataFrame
        Rows ``class balance``, one per image statistic, and if both samples have features ``feature space``, which
        compares distances from the reference's mean; columns ``what``, ``psi``, ``ks`` (NaN for the classes),
        ``verdict``.

    Raises
    ------
    UserError
        If either sample has no images.
    """
    found = {"class balance": category_drift(reference.labels, current.labels)}
    for name in IMAGE_STATISTICS:
        found[name] = number_drift(reference.statistics[name], current.statistics[name])
    if len(reference.features) and len(current.features):
        centre = reference.features.mean(axis=0)
        distances = [np.linalg.norm(each.features - centre, axis=1) for each in (reference, current)]
        found["feature space"] = number_drift(*distances)
    return pd.DataFrame([{"what": name, **difference._asdict()} for name, difference in found.items()])
