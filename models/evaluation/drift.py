"""How new data differ from those that a model was trained on: tables column by column, images by light and content.

The measure for shares is the population stability index (PSI), with its rule of thumb: below 0.1 stable, below 0.25
moderate, else large. Few rows give a PSI that size by chance alone: without a significant difference it is unclear.
"""

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import chi2, ks_2samp

from unfreeze.models.errors import UserError

MODERATE_PSI, LARGE_PSI = 0.1, 0.25
"""Where the verdict on a PSI changes (Siddiqi 2006)."""
SIGNIFICANCE = 0.01
"""Largest p-value at which shares count as different."""
FEWEST_ALIKE = 5
"""A text that fewer rows of a sample have is rare: it may name a person."""
RARE = "(rare)"
COMMONEST = 50
"""Values of a category that are counted one by one."""
SHIFTS = {"valid": "shift", "test": "test-shift"}
"""Split -> key of the table of how its rows differ from the training rows."""
UNCLEAR = "unclear"
"""Verdict on a difference that is large enough to matter, and that so few rows show by chance as well."""
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

    It is the divergence of Jeffreys (1946) between two lists of shares, (B,) each, known by this name from credit
    scoring (Siddiqi 2006, *Credit Risk Scorecards*). It is symmetric, and 0 only for equal shares. Shares below
    `floor` count as this much, since an empty bin would make the index infinite.
    """
    before, now = (np.maximum(np.asarray(shares, dtype=np.float64), floor) for shares in (reference, current))
    return float(np.sum((now - before) * np.log(now / before)))


def stability_verdict(psi: float, p_value: float = 0.0) -> str:
    """The rule of thumb in a word, ``stable``, ``moderate`` or ``large``; `UNCLEAR` if not significant."""
    if psi < MODERATE_PSI:
        return "stable"
    if p_value > SIGNIFICANCE:
        return UNCLEAR
    return "moderate" if psi < LARGE_PSI else "large"


def category_drift(reference: Values, current: Values) -> Difference:
    """Compare the shares of values, (N,) and (M,), as text: 7 and 7.0 are the same.

    The 50 commonest values of both sides together are counted one by one, a missing value being one of them; all
    others are counted as one.
    """
    _check_rows(reference, current)
    before, now = (_texts(values) for values in (reference, current))
    if (before == f"={RARE}").any():  # the reference's rare texts were replaced: what it lacks is rare here, too
        now = now.where(now.isin([*before, "missing"]), f"={RARE}")
    counts = pd.DataFrame({"before": before.value_counts(), "now": now.value_counts()}).fillna(0).to_numpy()
    # The commonest of both together: the commonest of one side would by chance alone be less common on the other.
    counts = counts[np.argsort(-counts.sum(axis=1), kind="stable")]
    return _difference(np.vstack([counts[:COMMONEST], counts[COMMONEST:].sum(axis=0)]).T, float("nan"))


def number_drift(reference: Values, current: Values) -> Difference:
    """Compare numbers, (N,) and (M,), by their shares in the deciles of the reference and their distribution functions.

    A value that fills a decile or more has a bin of its own, so a column that is constant, or mostly 0, is compared as
    well as any other. Missing values (NaN) are a bin too. The Kolmogorov-Smirnov statistic is of the finite values,
    NaN where one side has none.
    """
    _check_rows(reference, current)
    sides = [np.asarray(values, dtype=np.float64) for values in (reference, current)]
    before, now = (values[np.isfinite(values)] for values in sides)
    edges = np.array([])  # of all bins but the last: the largest value in it
    if len(before):
        edges, times = np.unique(np.quantile(before, _DECILES), return_counts=True)
        # A repeated value's own bin begins just above the next smaller number.
        edges = np.unique(np.concatenate([edges, np.nextafter(edges[times > 1], -np.inf)]))
    missing = len(edges) + 1
    bins = [np.where(np.isnan(values), missing, np.searchsorted(edges, values)) for values in sides]
    ks = float("nan")
    if len(before) and len(now):
        with np.errstate(divide="ignore"):  # in the p-value for single rows, which is not used
            ks = float(ks_2samp(before, now, method="asymp").statistic)
    return _difference(np.stack([np.bincount(each, minlength=missing + 1) for each in bins]), ks)


def _difference(counts: np.ndarray, ks: float) -> Difference:
    """From counts per bin of reference and current rows, (2, B).

    Without drift the PSI times N M / (N + M) is about chi-squared with B - 1 degrees of freedom (Yurdakul and Naranjo
    2020, "Statistical properties of the population stability index").
    """
    rows = counts.sum(axis=1, keepdims=True)
    # Half a row at least: an empty bin of a hundred rows may well hold 0.5 %, and 0.01 % would make it alarming.
    before, now = counts / rows
    psi = population_stability(before, now, max(_FLOOR, 0.5 / float(rows.min())))
    size = rows.prod() / rows.sum()
    return Difference(psi, ks, stability_verdict(psi, float(chi2.sf(psi * size, counts.any(axis=0).sum() - 1))))


def _check_rows(reference: Sized, current: Sized) -> None:
    for what, rows in (("reference", reference), ("current data", current)):
        if not len(rows):
            raise UserError(f"drift: there are no rows in the {what}, so nothing can be compared")


def _texts(values: Values) -> pd.Series:
    """Values as text that no missing value has; 7.0 as 7, which a gap in its column made a float."""
    column = pd.Series(values, dtype=object)
    texts = column.map(lambda value: f"={int(value) if isinstance(value, float) and value.is_integer() else value}")
    return texts.astype(object).where(column.notna(), "missing")


def distributions_of(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The same columns without the rows: every column shuffled by itself, rare texts replaced by `RARE`.

    What `table_drift` compares, the distribution of each column, stays; which values belong to one row does not, nor a
    text that few rows have, such as a name.
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

    The reference may be what `distributions_of` made of the rows. Dates are compared as numbers of days. What cannot be
    read as the number or date that the reference has there is missing.

    Returns
    -------
    pd.DataFrame
        A row per column: ``column``, ``kind`` (category, number, date), ``psi``, ``ks`` (NaN for categories),
        ``missing_reference`` and ``missing_current`` (shares), ``verdict``. First the columns that only one table has
        (``absent`` from the current rows, or ``new`` in them; their measures are NaN), then by falling PSI.

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
    """The column as float64 numbers (dates: days since 1970, UTC), or as it is for a category."""
    if kind == "date":
        return (pd.to_datetime(column, errors="coerce", utc=True) - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)
    if kind == "number":
        return pd.Series(pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan))
    return column


def shown_shift(report: pd.DataFrame) -> list[dict[str, object]]:
    """Rows of a drift report for a table of `SHIFTS`, those that differ most first."""
    ordered = report.dropna(axis=1, how="all").sort_values("psi", ascending=False, kind="stable", ignore_index=True)
    rows = ordered.round(4).to_dict("records")
    return [{str(name): None if pd.isna(value) else value for name, value in row.items()} for row in rows]


@dataclass(frozen=True, eq=False)
class ImageSample:
    """Classes (N,), or all labels of all images, `image_statistics`, and features (N, D) or (0, D) of some images."""

    labels: Sequence[str] | np.ndarray
    statistics: pd.DataFrame
    features: np.ndarray


def image_statistics(pixels: np.ndarray) -> pd.DataFrame:
    """Light and colour of every image.

    Of RGB images, (N, H, W, 3) uint8, a float64 row per image, 0 to 1 each: ``brightness`` (mean luma, ITU-R BT.601),
    ``contrast`` (its standard deviation), ``saturation`` (mean of (max - min) / max over the channels, 0 for black).
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
        Rows ``class balance``, one per image statistic, and where both samples have features ``feature space``, which
        compares distances from the mean of the reference; columns ``what``, ``psi``, ``ks`` (NaN for the classes),
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
