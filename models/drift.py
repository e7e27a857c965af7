"""How new data differ from those that a model was trained on: tables column by column, images by light and content.

The measure for shares is the population stability index (PSI), with its rule of thumb: below 0.1 stable, below 0.25
moderate, else large. Few rows give a PSI that size by chance alone, so a verdict also asks whether chance would do.
"""

from collections.abc import Hashable, Sequence, Sized
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.linalg import eigh
from scipy.stats import ks_2samp

from unfreeze.models.errors import UserError

MODERATE_PSI, LARGE_PSI = 0.1, 0.25
"""Where the verdict on a PSI changes (Siddiqi 2006)."""
MODERATE_RATIO, LARGE_RATIO = 2.0, 4.0
"""Where the verdict on a feature space changes: its distance over that within the reference. Without drift the
ratio is about 1; of a few dozen images one in twenty exceeds 2, and none of 500 drawings reached 4."""
FEWEST_ALIKE = 5
"""A text that fewer rows of a sample have is rare: it may name a person."""
RARE = "(rare)"
COMMONEST = 50
"""Values of a category that are counted one by one."""
IMAGE_STATISTICS = ("brightness", "contrast", "saturation")
FEWEST_ROWS = 8
"""Below this, feature spaces are not compared."""

_FLOOR = 1e-4
_CHANCE = 0.99
_DIVISIONS = 400
_COMPONENTS = 32
_SPLITS = 20
_MOST_ROWS = 1000  # they settle a covariance of 32 components, and bound time and memory
_IMAGES_AT_ONCE = 64
_LUMA = np.array([0.299, 0.587, 0.114])


# --- shares -----------------------------------------------------------------------------------------------------------


def population_stability(
    reference_shares: Sequence[float] | np.ndarray, current_shares: Sequence[float] | np.ndarray, floor: float = _FLOOR
) -> float:
    """Population stability index: the sum over bins of (current - reference) * ln(current / reference).

    It is the divergence of Jeffreys (1946) between two lists of shares, known by this name from credit scoring
    (Siddiqi 2006, *Credit Risk Scorecards*). It is symmetric, and 0 only for equal shares.

    Parameters
    ----------
    reference_shares, current_shares
        Share of every bin, (B,) each.
    floor
        Smaller shares count as this much, since an empty bin would make the index infinite.
    """
    reference, current = (np.asarray(shares, dtype=np.float64) for shares in (reference_shares, current_shares))
    return float(_jeffreys(reference, current, floor))


def stability_verdict(psi: float, chance: float = 0.0) -> str:
    """The rule of thumb in a word: ``stable``, ``moderate`` or ``large``.

    Parameters
    ----------
    psi
        Population stability index.
    chance
        What two drawings from the same population may reach; up to this the verdict is ``stable`` too.
    """
    if psi < MODERATE_PSI or psi <= chance:
        return "stable"
    return "moderate" if psi < LARGE_PSI else "large"


def category_drift(reference: Sequence[object] | np.ndarray, current: Sequence[object] | np.ndarray) -> float:
    """PSI of the values' shares.

    The 50 commonest values of both sides together are counted one by one, a missing value being one of them; all
    others are counted as one.

    Parameters
    ----------
    reference, current
        Values, (N,) and (M,); compared as text, so that 7 and 7.0 are the same.

    Raises
    ------
    UserError
        If either has no rows.
    """
    return _count_categories(pd.Series(reference, dtype=object), pd.Series(current, dtype=object)).psi


def number_drift(reference: np.ndarray, current: np.ndarray) -> tuple[float, float]:
    """PSI over the deciles of the reference, and the Kolmogorov-Smirnov statistic.

    A value that fills a decile or more has a bin of its own, so a column that is constant, or mostly 0, is compared as
    well as any other. Missing values (NaN) are a bin too.

    Parameters
    ----------
    reference, current
        Numbers, (N,) and (M,).

    Returns
    -------
    tuple of float
        The PSI; the largest distance between the two distribution functions of the finite values, NaN where one side
        has none.

    Raises
    ------
    UserError
        If either has no rows.
    """
    before, now = np.asarray(reference, dtype=np.float64), np.asarray(current, dtype=np.float64)
    return _count_numbers(before, now).psi, _kolmogorov_smirnov(before, now)


@dataclass(frozen=True)
class _Counts:
    """Rows of every bin, (B,) each."""

    reference: np.ndarray
    current: np.ndarray

    @property
    def psi(self) -> float:
        return float(_index(self.reference, self.current))

    @property
    def verdict(self) -> str:
        return stability_verdict(self.psi, self.chance) if self.psi >= MODERATE_PSI else "stable"

    @property
    def chance(self) -> float:
        """The PSI that 99 of 100 random divisions of all these rows, into as many and as many, stay below."""
        together = self.reference + self.current
        drawn = np.random.default_rng(0).multivariate_hypergeometric(
            together, int(self.reference.sum()), size=_DIVISIONS, method="marginals"
        )
        return float(np.quantile(_index(drawn, together - drawn), _CHANCE))


def _jeffreys(reference: np.ndarray, current: np.ndarray, floor: float) -> np.ndarray:
    reference, current = np.maximum(reference, floor), np.maximum(current, floor)
    return np.asarray(np.sum((current - reference) * np.log(current / reference), axis=-1))


def _index(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """PSI of counts: (..., B) to (...)."""
    before, now = reference.sum(axis=-1, keepdims=True), current.sum(axis=-1, keepdims=True)
    # Half a row at least: an empty bin of a hundred rows may well hold 0.5 %, and 0.01 % would make it alarming.
    floor = max(_FLOOR, 0.5 / min(before.min(), now.min()))
    return _jeffreys(reference / before, current / now, floor)


def _check_rows(reference: Sized, current: Sized) -> None:
    for what, rows in (("reference", reference), ("current data", current)):
        if not len(rows):
            raise UserError(f"drift: there are no rows in the {what}, so nothing can be compared")


def _count_categories(reference: pd.Series, current: pd.Series) -> _Counts:
    _check_rows(reference, current)
    if (reference == RARE).any():  # rare texts were not kept: one that is not known there is rare here, too
        current = current.astype(object).where(current.isin(set(reference.dropna())) | current.isna(), RARE)
    before, now = (_texts(values).value_counts() for values in (reference, current))
    # Of both together: the commonest of one side would by chance alone be less common on the other.
    together = before.add(now, fill_value=0).sort_values(ascending=False, kind="stable")
    kept = together.index[:COMMONEST]
    counts = [found.reindex(kept, fill_value=0).to_numpy() for found in (before, now)]
    others = [len(values) - each.sum() for values, each in zip((reference, current), counts, strict=True)]
    return _Counts(np.append(counts[0], others[0]), np.append(counts[1], others[1]))


def _texts(values: pd.Series) -> pd.Series:
    codes, distinct = pd.factorize(values.astype(object))
    texts = np.array([f"={_text(value)}" for value in distinct] + [""], dtype=object)  # code -1: missing
    return pd.Series(texts[codes])


def _text(value: object) -> str:
    # A missing value elsewhere in the column makes 7 into 7.0: still the same category.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _count_numbers(reference: np.ndarray, current: np.ndarray) -> _Counts:
    _check_rows(reference, current)
    edges = _edges(reference[np.isfinite(reference)])
    counts = []
    for values in (reference, current):
        known = values[~np.isnan(values)]
        bins = np.bincount(np.searchsorted(edges, known), minlength=len(edges) + 1)
        counts.append(np.append(bins, len(values) - len(known)))
    return _Counts(*counts)


def _edges(values: np.ndarray) -> np.ndarray:
    """Upper edges, included, of all bins but the last."""
    if not len(values):
        return np.array([])
    edges, times = np.unique(np.quantile(values, np.arange(1, 10) / 10), return_counts=True)
    alone = np.nextafter(edges[times > 1], -np.inf)  # ends the bin below just before the repeated value
    return np.unique(np.concatenate([edges, alone]))


def _kolmogorov_smirnov(reference: np.ndarray, current: np.ndarray) -> float:
    before, now = reference[np.isfinite(reference)], current[np.isfinite(current)]
    if not (len(before) and len(now)):
        return float("nan")
    # The p-value is not used: an exact one would be slow, and the asymptotic one divides by 0 for single rows.
    with np.errstate(divide="ignore"):
        return float(ks_2samp(before, now, method="asymp").statistic)


# --- tables -----------------------------------------------------------------------------------------------------------


def distributions_of(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The same columns without the rows: every column shuffled by itself, rare texts replaced by `RARE`.

    What `table_drift` compares, the distribution of each column, stays; who has which values together does not, nor a
    text that few rows have, such as a name.

    Parameters
    ----------
    rows
        A table.
    seed
        Of the shuffling.
    """
    generator = np.random.default_rng(seed)
    columns: dict[Hashable, pd.Series] = {}
    for name in rows.columns:
        column = rows[name].iloc[generator.permutation(len(rows))].reset_index(drop=True)
        if _kind(column) == "category":
            column = column.astype(object)
            rare = column.notna() & (column.map(column.value_counts()).fillna(0) < FEWEST_ALIKE)
            column = column.mask(rare, RARE)
        columns[name] = column
    return pd.DataFrame(columns)


def table_drift(reference: pd.DataFrame, current: pd.DataFrame) -> pd.DataFrame:
    """Compare two tables column by column.

    Dates are compared as numbers of days. What cannot be read as the number or date that the reference has there is
    missing.

    Parameters
    ----------
    reference
        Rows that the model was trained on, or what `distributions_of` made of them.
    current
        New rows.

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
    absent = [
        _column_row(name, _kind(reference[name]), missing_reference=_missing(reference[name]), verdict="absent")
        for name in reference.columns
        if name not in current.columns
    ]
    new = [
        _column_row(name, _kind(current[name]), missing_current=_missing(current[name]), verdict="new")
        for name in current.columns
        if name not in reference.columns
    ]
    shared = [
        _compare_columns(name, reference[name], current[name]) for name in reference.columns if name in current.columns
    ]
    shared.sort(key=lambda row: -float(row["psi"]))  # type: ignore[arg-type]
    return pd.DataFrame([*absent, *new, *shared], columns=list(_column_row("", "")))


def _column_row(
    column: object,
    kind: str,
    *,
    psi: float = np.nan,
    ks: float = np.nan,
    missing_reference: float = np.nan,
    missing_current: float = np.nan,
    verdict: str = "",
) -> dict[str, object]:
    return {
        "column": column,
        "kind": kind,
        "psi": psi,
        "ks": ks,
        "missing_reference": missing_reference,
        "missing_current": missing_current,
        "verdict": verdict,
    }


def _compare_columns(name: object, reference: pd.Series, current: pd.Series) -> dict[str, object]:
    kind = _kind(reference)
    if kind == "category":
        counts, ks = _count_categories(reference, current), float("nan")
        missing = _missing(reference), _missing(current)
    else:
        before, now = _numbers(reference, kind), _numbers(current, kind)
        counts, ks = _count_numbers(before, now), _kolmogorov_smirnov(before, now)
        missing = float(np.isnan(before).mean()), float(np.isnan(now).mean())
    return _column_row(
        name,
        kind,
        psi=counts.psi,
        ks=ks,
        missing_reference=missing[0],
        missing_current=missing[1],
        verdict=counts.verdict,
    )


def _kind(column: pd.Series) -> str:
    if pd.api.types.is_datetime64_any_dtype(column):
        return "date"
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return "number"
    return "category"


def _numbers(column: pd.Series, kind: str) -> np.ndarray:
    if kind == "date":
        dates = pd.to_datetime(column, errors="coerce", utc=True)
        return ((dates - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)).to_numpy(dtype=np.float64)
    return pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def _missing(column: pd.Series) -> float:
    return float(column.isna().mean())


# --- feature spaces ---------------------------------------------------------------------------------------------------


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Fréchet distance between the Gaussians with the means m and covariances C of two samples.

    |m1 - m2|² + trace(C1 + C2 - 2 (C1^½ C2 C1^½)^½), the square of the distance proper, as Heusel et al. (2017, "GANs
    Trained by a Two Time-Scale Update Rule") use it under this name. Roots are taken of eigenvalues, with rounding
    below 0 cut off, so that covariances without full rank are no trouble.

    Parameters
    ----------
    first, second
        Samples, (N, D) and (M, D), two rows each at least.
    """
    first, second = first.astype(np.float64), second.astype(np.float64)
    shift = first.mean(axis=0) - second.mean(axis=0)
    one, other = (np.atleast_2d(np.cov(sample, rowvar=False)) for sample in (first, second))
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other @ root), 0)).sum()
    return max(float(shift @ shift + np.trace(one) + np.trace(other) - 2 * shared), 0.0)


def feature_distance(reference: np.ndarray, current: np.ndarray, seed: int = 0) -> dict[str, float]:
    """How far the current rows are from the reference in a feature space, and how far that would be without drift.

    The reference is split at random, into rows that fix the 32 main directions (principal components) and the one
    Gaussian, and rows that stand in for current ones. The distance grows as rows get fewer, and more for rows that did
    not help to choose the directions; so the stand-ins are as many as the current rows compared, and in both distances
    the second sample is new to the directions. Distances are means over 20 such splits. What moves only in directions
    in which the reference hardly varies is not seen.

    Parameters
    ----------
    reference, current
        Features, (N, D) and (M, D). Rows with a value that is not finite are ignored; of more than 1,000 a random
        1,000 are taken.
    seed
        Of the splits.

    Returns
    -------
    dict
        ``frechet``: from the reference to the current rows (see `frechet_distance`); ``within``: from the reference to
        its own stand-ins; ``ratio`` of the two, about 1 without drift; ``chance``: the ratio that the stand-ins of one
        split reached at most. All NaN if either side has fewer than 8 rows.
    """
    rng = np.random.default_rng(seed)
    before, now = _finite_rows(reference, rng), _finite_rows(current, rng)
    if min(len(before), len(now)) < FEWEST_ROWS:
        return dict.fromkeys(("frechet", "within", "ratio", "chance"), float("nan"))
    compared = min(len(now), len(before) // 2)
    distances = np.empty((_SPLITS, 2))
    for split in range(_SPLITS):
        order = rng.permutation(len(before))
        stand_ins, rest = before[order[:compared]], before[order[compared:]]
        drawn = now[rng.permutation(len(now))[:compared]]
        directions = _main_directions(rest, max(1, min(_COMPONENTS, compared // 4)))
        distances[split] = [frechet_distance(rest @ directions, sample @ directions) for sample in (drawn, stand_ins)]
    frechet, within = (float(distance) for distance in distances.mean(axis=0))
    return {
        "frechet": frechet,
        "within": within,
        "ratio": _ratio(frechet, within),
        "chance": _ratio(float(distances[:, 1].max()), within),
    }


def ratio_verdict(ratio: float, chance: float = 1.0) -> str:
    """``stable``, ``moderate``, ``large``, or ``unknown`` where there were too few rows for a ratio.

    Parameters
    ----------
    ratio, chance
        As `feature_distance` gives them; up to `chance` the verdict is ``stable``.
    """
    if np.isnan(ratio):
        return "unknown"
    if ratio < MODERATE_RATIO or ratio <= chance:
        return "stable"
    return "moderate" if ratio < LARGE_RATIO else "large"


def _finite_rows(features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    kept = np.flatnonzero(np.isfinite(features).all(axis=1))
    if len(kept) > _MOST_ROWS:
        kept = rng.choice(kept, _MOST_ROWS, replace=False)
    return features[kept].astype(np.float64)


def _main_directions(rows: np.ndarray, count: int) -> np.ndarray:
    """The directions of largest variance, (D, count) or fewer: eigenvectors of the smaller product matrix."""
    centred = rows - rows.mean(axis=0)
    tall = len(centred) >= centred.shape[1]
    products = centred.T @ centred if tall else centred @ centred.T
    count = min(count, len(products))
    values, vectors = eigh(products, subset_by_index=[len(products) - count, len(products) - 1])
    if tall:
        return vectors
    kept = values > 1e-10 * max(float(values[-1]), np.finfo(float).tiny)
    if not kept.any():  # rows that are all the same have no main directions: any will tell whether others differ
        return np.eye(rows.shape[1], count)
    return centred.T @ vectors[:, kept] / np.sqrt(values[kept])


def _ratio(frechet: float, within: float) -> float:
    if within > 0:
        return frechet / within
    return 1.0 if frechet == 0 else float("inf")  # a reference that never varies


# --- images ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ImageSample:
    """What is compared of a sample of images.

    Attributes
    ----------
    labels
        Class of every image, (N,).
    statistics
        `image_statistics` of every image.
    features
        Features of every image, (N, D).
    """

    labels: Sequence[str] | np.ndarray
    statistics: pd.DataFrame
    features: np.ndarray


def image_statistics(pixels: np.ndarray) -> pd.DataFrame:
    """Light and colour of every image.

    Parameters
    ----------
    pixels
        RGB images, (N, H, W, 3) uint8.

    Returns
    -------
    pd.DataFrame
        A float64 row per image, 0 to 1 each: ``brightness`` (mean luma, ITU-R BT.601), ``contrast`` (its standard
        deviation), ``saturation`` (mean of (max - min) / max over the channels, 0 for black).
    """
    found = [_statistics(pixels[start : start + _IMAGES_AT_ONCE]) for start in range(0, len(pixels), _IMAGES_AT_ONCE)]
    rows = np.concatenate(found) if found else np.empty((0, len(IMAGE_STATISTICS)))
    return pd.DataFrame(rows, columns=list(IMAGE_STATISTICS))


def _statistics(pixels: np.ndarray) -> np.ndarray:
    luma = (pixels @ _LUMA).reshape(len(pixels), -1) / 255
    brightest, darkest = pixels.max(axis=3), pixels.min(axis=3)
    saturation = (brightest - darkest) / np.maximum(brightest, 1)  # black: 0 / 1
    return np.column_stack([luma.mean(axis=1), luma.std(axis=1), saturation.mean(axis=(1, 2))])


def image_drift(reference: ImageSample, current: ImageSample) -> pd.DataFrame:
    """Compare two samples of images.

    Parameters
    ----------
    reference
        Images that the model was trained on.
    current
        New images.

    Returns
    -------
    pd.DataFrame
        Rows ``class balance``, one per image statistic, ``feature space``; columns ``what``, ``psi``, ``ks``,
        ``distance`` (Fréchet) and its ``ratio`` to that within the reference, ``verdict``. NaN where a measure does not
        apply; the feature space of fewer than 8 images is ``unknown``.

    Raises
    ------
    UserError
        If either sample has no images.
    """
    balance = _count_categories(pd.Series(reference.labels, dtype=object), pd.Series(current.labels, dtype=object))
    rows: list[dict[str, object]] = [{"what": "class balance", "psi": balance.psi, "verdict": balance.verdict}]
    for name in IMAGE_STATISTICS:
        before, now = (sample.statistics[name].to_numpy(dtype=np.float64) for sample in (reference, current))
        counts = _count_numbers(before, now)
        rows.append(
            {"what": name, "psi": counts.psi, "ks": _kolmogorov_smirnov(before, now), "verdict": counts.verdict}
        )
    space = feature_distance(reference.features, current.features)
    rows.append(
        {
            "what": "feature space",
            "distance": space["frechet"],
            "ratio": space["ratio"],
            "verdict": ratio_verdict(space["ratio"], space["chance"]),
        }
    )
    return pd.DataFrame(rows, columns=["what", "psi", "ks", "distance", "ratio", "verdict"])
