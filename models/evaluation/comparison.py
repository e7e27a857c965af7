"""Whether a challenger is better than the champion on the same rows, and whether that is enough to promote it."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import DegenerateDataWarning, binom, bootstrap

from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.intervals import expansion
from unfreeze.models.evaluation.metrics import VALUE_METRICS
from unfreeze.models.evaluation.shares import OUTSIDE, paired_interval
from unfreeze.models.settings.retrain import PromotionSpec
from unfreeze.models.settings.search import LOWER_IS_BETTER

RESAMPLES = 2000
"""Of the bootstrap: the smallest p-value it can give is 1 / 2001."""
GROUPS = 4000
"""Of rows, whose sums are resampled where there are more rows."""
_DRAWN_AT_ONCE = 400_000  # three sums each: 10 MB for each target


@dataclass(frozen=True)
class Comparison:
    """Champion and challenger on the same rows.

    Attributes
    ----------
    champion, challenger
        Values of the metric; NaN where it is undefined, or where predictions are not finite.
    improvement
        Their difference, positive where the challenger is better, whatever the metric's direction.
    low, high
        95 % interval of the improvement: of an accuracy that of the paired shares (see `paired_interval`), of other
        metrics and of blocks by paired bootstrap.
    p_value
        Probability of an improvement at least this large if there were none; NaN where the metric is.
    test
        ``McNemar`` or ``paired bootstrap``, the latter with the number of blocks if there are any.
    classes
        ``class``, ``rows``, recall of ``champion`` and ``challenger``, and their ``difference`` (positive: the
        challenger is better), in the order of the classes; empty for values.
    """

    metric: str
    champion: float
    challenger: float
    improvement: float
    low: float
    high: float
    p_value: float
    test: str
    rows: int
    classes: list[dict[str, Any]]


@dataclass(frozen=True)
class Decision:
    """Whether the challenger is promoted, and for every condition whether it held and by which numbers."""

    promote: bool
    reasons: list[str]


def compare_classes(
    actual: np.ndarray,
    champion: np.ndarray,
    challenger: np.ndarray,
    seed: int = 0,
    margin: float = 0.0,
    blocks: Sequence[np.ndarray] = (),
) -> Comparison:
    """Compare the accuracy of two classifiers on the same rows, by McNemar's test.

    With a margin, or where rows belong together in `blocks`, the test is a paired bootstrap as for numbers.

    Parameters
    ----------
    actual
        Class of every row: (N,) text.
    champion, challenger
        Predicted classes: (N,) text. A class that one of them does not know is one it gets wrong, and so is a row
        without a prediction.
    seed
        Of the bootstrap.
    margin, blocks
        See `compare_values`.

    Raises
    ------
    UserError
        If there are no rows, if a row has no class, or if the three differ in length.
    """
    actual, champion, challenger = (np.asarray(labels) for labels in (actual, champion, challenger))
    check_rows(actual, champion, challenger)
    if missing := int(pd.isna(actual).sum()):
        raise UserError(f"{missing} of {len(actual)} rows have no class to compare with; exclude them")
    actual = actual.astype(str)
    right = [(predicted.astype(str) == actual) & ~pd.isna(predicted) for predicted in (champion, challenger)]
    rows = pd.DataFrame({"class": actual, "champion": right[0], "challenger": right[1]})
    rows["gain"] = right[1].astype(int) - right[0]  # of counts: exactly 0 for a tie, unlike a difference of shares
    by_class = rows.groupby("class").mean().rename(columns={"gain": "difference"})
    by_class.insert(0, "rows", rows.groupby("class").size())
    improvement = float(rows["gain"].mean())
    # Accuracy is 1 minus the mean absolute error of being right.
    shares = np.ones((len(rows), 1)), right[0][:, None], right[1][:, None]

    def gains(way: np.ndarray | None) -> np.ndarray:
        return -_resampled("mae", *shares, seed, way)

    gained, lost = int((rows["gain"] > 0).sum()), int((rows["gain"] < 0).sum())
    if margin or len(blocks):
        low, high, p_value, test = bootstrapped(gains, improvement, margin, blocks, gained + lost)
    else:
        p_value, test = mcnemar(gained, lost), "McNemar"
    if not len(blocks):
        low, high = paired_interval(gained, lost, len(rows))
    before, now = (float(each.mean()) for each in right)
    classes = [{str(name): value for name, value in row.items()} for row in by_class.reset_index().to_dict("records")]
    return Comparison("accuracy", before, now, improvement, low, high, p_value, test, len(rows), classes)


def mcnemar(gained: int, lost: int) -> float:
    """One-sided p-value of McNemar's exact test (1947): the chance of `gained` heads or more with a fair coin.

    If neither model were better, each of the rows that only the challenger (`gained`) or only the champion (`lost`) has
    right would fall to either of them like the toss of a coin.
    """
    return float(binom.sf(gained - 1, gained + lost, 0.5))


def compare_values(
    actual: np.ndarray,
    champion: np.ndarray,
    challenger: np.ndarray,
    metric: str,
    seed: int = 0,
    margin: float = 0.0,
    blocks: Sequence[np.ndarray] = (),
) -> Comparison:
    """Compare two regressions on the same rows.

    The p-value is the share of resamples in which the challenger is not better by more than the margin: the level at
    which a one-sided percentile interval (Efron and Tibshirani 1993, *An Introduction to the Bootstrap*) just reaches
    it. One is added to both counts, so that it is never 0 (Davison and Hinkley 1997, *Bootstrap Methods and their
    Application*, 4.2). Rows are taken to be independent unless `blocks` say which belong together, such as the sales of
    one store on many days: then whole blocks are resampled.

    Parameters
    ----------
    actual
        Target values: (N, T) or (N,), finite.
    champion, challenger
        Predictions of the same shape. If any is not finite, the metric is NaN.
    metric
        ``rmspe``, ``rmse``, ``mae`` or ``r2``, as in `models.training.metrics`: rows with target 0 do not count for
        ``rmspe``.
    seed
        Of the bootstrap.
    margin
        Improvement that the p-value is about.
    blocks
        Ways in which rows belong together, each the block of every row (N,), of two blocks or more: stores, weeks.

    Raises
    ------
    UserError
        If there are no rows, a target is missing, the shapes differ, or the metric is not one of these.
    """
    metrics = VALUE_METRICS
    if metric not in metrics:
        raise UserError(f"metric: {metric!r} cannot be compared; choose among {', '.join(metrics)}")
    actual, champion, challenger = (_columns(values) for values in (actual, champion, challenger))
    check_rows(actual, champion, challenger)
    if missing := int((~np.isfinite(actual)).any(axis=1).sum()):
        raise UserError(f"{missing} of {len(actual)} rows have no target to compare with; exclude them")
    before, now = (
        metrics[metric](predictions, actual) if np.isfinite(predictions).all() else float("nan")
        for predictions in (champion, challenger)
    )
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    improvement = sign * (now - before)
    low, high, p_value, test = float("nan"), float("nan"), float("nan"), "paired bootstrap"
    if np.isfinite(improvement):

        def gains(way: np.ndarray | None) -> np.ndarray:
            return sign * _resampled(metric, actual, champion, challenger, seed, way)

        differing = int((champion != challenger).any(axis=1).sum())
        low, high, p_value, test = bootstrapped(gains, improvement, margin, blocks, differing)
    return Comparison(metric, before, now, improvement, low, high, p_value, test, len(actual), classes=[])


def bootstrapped(
    gains: Callable[[np.ndarray | None], np.ndarray],
    improvement: float,
    margin: float,
    blocks: Sequence[np.ndarray],
    differing: int,
) -> tuple[float, float, float, str]:
    """Ends of the interval, p-value and name of a paired bootstrap.

    Where so few rows differ that all of them may favour one model by chance, which a resample never shows, the p-value
    is that of the sign test, and the interval holds 0.

    Parameters
    ----------
    gains
        The improvement in every resample (R,): of rows, or of blocks given the block of every row (N,).
    improvement
        That of the rows themselves.
    margin, blocks
        See `compare_values`.
    differing
        Rows that the two models predict differently.
    """
    if not len(blocks):
        resampled, chance = gains(None), 0.5**differing
        low, high = _interval(resampled, improvement)
        if chance > OUTSIDE:
            low, high = min(low, 0.0), max(high, 0.0)
        return low, high, max(_p_value(resampled, margin), chance), "paired bootstrap"
    # Errors of stores and errors of weeks add up, as the variances of two-way clusters do (Cameron, Gelbach and Miller
    # 2011); the part that belongs to single rows is counted twice, which errs on the safe side.
    ways = [gains(way) for way in blocks]
    length = min(len(each) for each in ways)
    resampled = improvement + sum((each[:length] - each[:length].mean() for each in ways), np.zeros(length))
    fewest = min(len(np.unique(way)) for way in blocks)
    resampled = improvement + (resampled - improvement) * expansion(fewest)
    name = f"paired bootstrap of {fewest:,} blocks"
    return *_interval(resampled, improvement), _p_value(resampled, margin), name


def _p_value(resampled: np.ndarray, margin: float) -> float:
    return float((np.sum(resampled <= margin) + 1) / (len(resampled) + 1))


def decide(comparison: Comparison, rules: PromotionSpec) -> Decision:
    """Promote the challenger if every rule holds; a metric that is NaN or the same for both never promotes.

    The decision has one reason per rule, those that held included.

    Raises
    ------
    UserError
        If classes are protected but the comparison is one of values.
    """
    if rules.protected and not comparison.classes:
        raise UserError(f"protected: {comparison.metric} is a metric of numbers, which have no classes; omit it")
    checks = [_margin_check(comparison, rules.margin), _significance_check(comparison, rules.significance)]
    checks += [_protected_check(comparison, name, rules.protected_bound) for name in rules.protected]
    return Decision(promote=all(held for held, _ in checks), reasons=[reason for _, reason in checks])


def _margin_check(comparison: Comparison, margin: float) -> tuple[bool, str]:
    improvement = comparison.improvement
    values = f"{comparison.metric} {_shown(comparison.challenger)} against {_shown(comparison.champion)}"
    if np.isnan(improvement):
        return False, f"{values}: nothing to compare"
    if improvement <= 0:
        return False, f"{values}: " + (f"worse by {_shown(-improvement)}" if improvement else "no better")
    held = improvement > margin
    return held, f"{values}: better by {_shown(improvement)}, {'' if held else 'not '}more than the margin {margin:g}"


def _significance_check(comparison: Comparison, significance: float) -> tuple[bool, str]:
    if np.isnan(comparison.p_value):
        return False, f"{comparison.test} p cannot be computed"
    held = comparison.p_value <= significance
    relation = "at most" if held else "more than"
    return held, f"{comparison.test} p = {_shown(comparison.p_value)}, {relation} {significance:g}"


def _protected_check(comparison: Comparison, name: str, bound: float) -> tuple[bool, str]:
    found = next((entry for entry in comparison.classes if entry["class"] == name), None)
    if found is None:
        return False, f"no row is of the protected class {name!r}, so nothing is known of it"
    fall = -found["difference"]
    held = fall <= bound
    recall = f"recall of {name!r}"
    if fall <= 0:
        return held, f"{recall} " + (f"rose by {_shown(-fall)}" if fall else "stayed the same")
    return held, f"{recall} fell by {_shown(fall)}, {'at most' if held else 'more than'} {bound:g}"


def _shown(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"


def check_rows(actual: np.ndarray, champion: np.ndarray, challenger: np.ndarray) -> None:
    """Reject a comparison without rows, or of other rows (a `UserError`)."""
    if not len(actual):
        raise UserError("there are no rows to compare champion and challenger on")
    if not actual.shape == champion.shape == challenger.shape:
        raise UserError(
            f"champion and challenger must predict the same rows: the rows are {actual.shape}, "
            f"the champion's {champion.shape}, the challenger's {challenger.shape}"
        )


def _interval(resampled: np.ndarray, improvement: float) -> tuple[float, float]:
    """The 95 % interval; wide enough for the improvement itself, which rounding or a few odd rows can exclude."""
    if not len(resampled):
        return float("nan"), float("nan")
    low, high = np.quantile(resampled, (0.025, 0.975))
    return min(float(low), improvement), max(float(high), improvement)


def _columns(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    return values.reshape(-1, 1) if values.ndim == 1 else values


def _terms(metric: str, actual: np.ndarray, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the metric sums up of every row, and what that sum is divided by: (N, K) float64 each; see `_value`."""
    known = actual.astype(np.float64)
    errors, weights = predictions - known, np.ones_like(known)
    if metric == "mae":
        return np.abs(errors), weights
    if metric == "rmspe":
        shares = np.divide(errors, known, out=np.zeros_like(known), where=known != 0)
        return np.square(shares).sum(axis=1, keepdims=True), (known != 0).sum(axis=1, keepdims=True, dtype=np.float64)
    if metric == "r2":  # about the mean of all rows, also in a resample; constant targets have exactly no spread
        shifted = known - known[0]
        weights = np.square(shifted - shifted.mean(axis=0))
    return np.square(errors), weights


def _value(metric: str, sums: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The metric from sums over rows: (K, ...) to (...), the mean over targets."""
    ratios = sums / weights
    if metric == "r2":
        return np.asarray((1 - ratios).mean(axis=0))
    return np.asarray((ratios if metric == "mae" else np.sqrt(ratios)).mean(axis=0))


def _resampled(
    metric: str,
    actual: np.ndarray,
    champion: np.ndarray,
    challenger: np.ndarray,
    seed: int,
    blocks: np.ndarray | None = None,
) -> np.ndarray:
    """Challenger minus champion in every resample of rows, or of blocks of rows, that the metric is defined for.

    Of more than 4,000 rows, sums over 4,000 random groups are resampled: such a sum varies as those over its rows do,
    so the interval is the same but for 1 % of its width, and time and memory no longer grow with the rows.
    """
    rng = np.random.default_rng(seed)
    if blocks is None:
        order = rng.permutation(len(actual))
        starts = np.linspace(0, len(order), min(len(order), GROUPS), endpoint=False).astype(int)
    else:
        codes = np.unique(blocks, return_inverse=True)[1]
        order = np.argsort(codes, kind="stable")
        starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    terms = [*_terms(metric, actual, champion), _terms(metric, actual, challenger)[0]]
    groups = [np.add.reduceat(term[order], starts).T for term in terms]

    def difference(*resample: np.ndarray, axis: int) -> np.ndarray:
        of_champion, weights, of_challenger = (rows.sum(axis) for rows in resample)
        gains: np.ndarray = _value(metric, of_challenger, weights) - _value(metric, of_champion, weights)
        return gains

    options = {"n_resamples": RESAMPLES, "batch": _DRAWN_AT_ONCE // len(starts), "method": "percentile", "axis": -1}
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # a resample without any row that counts is NaN
        if len(starts) == 1:  # all resamples are this row
            found = difference(*groups, axis=-1)[None]
        else:
            found = bootstrap(groups, difference, paired=True, rng=rng, **options).bootstrap_distribution
    return np.asarray(found[np.isfinite(found)])
