"""Whether a challenger is better than the champion on the same rows, and whether that is enough to promote it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binom

from unfreeze.models.errors import UserError
from unfreeze.models.search import LOWER_IS_BETTER
from unfreeze.models.specs.retrain import PromotionSpec
from unfreeze.models.training.metrics import mae, r2, rmse, rmspe

RESAMPLES = 2000
"""Of the bootstrap: the smallest p-value it can give is 1 / 2001."""
_INTERVAL = (0.025, 0.975)
_GROUPS = 4000
_RESAMPLES_AT_ONCE = 250  # times 4,000 groups: 8 MB of counts


@dataclass(frozen=True)
class Comparison:
    """Champion and challenger on the same rows.

    Attributes
    ----------
    metric
        Name of the metric.
    champion, challenger
        Its values; NaN where it is undefined, or where predictions are not finite.
    improvement
        Their difference, positive where the challenger is better, whatever the metric's direction.
    low, high
        95 % interval of the improvement, by paired bootstrap.
    p_value
        Probability of an improvement at least this large if there were none; NaN where the metric is.
    test
        ``McNemar`` or ``paired bootstrap``.
    rows
        Rows compared.
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


def compare_classes(actual: np.ndarray, champion: np.ndarray, challenger: np.ndarray, seed: int = 0) -> Comparison:
    """Compare the accuracy of two classifiers on the same rows.

    The p-value is that of the exact one-sided test of McNemar (1947): if neither were better, the rows that only one
    of the two has right would fall to either like the tosses of a coin.

    Parameters
    ----------
    actual
        Class of every row: (N,) text.
    champion, challenger
        Predicted classes: (N,) text. A class that one of them does not know is one it gets wrong, and so is a row
        without a prediction.
    seed
        Of the bootstrap.

    Raises
    ------
    UserError
        If there are no rows, if a row has no class, or if the three differ in length.

    Notes
    -----
    A resample of rows changes nothing but how many rows only the challenger has right, how many only the champion, and
    how many are the same for both. These three counts are drawn at once, as a multinomial: the rows never are.
    """
    actual, champion, challenger = (np.asarray(labels) for labels in (actual, champion, challenger))
    _check_rows(actual, champion, challenger)
    if missing := int(pd.isna(actual).sum()):
        raise UserError(f"{missing} of {len(actual)} rows have no class to compare with; exclude them")
    actual = actual.astype(str)
    champion_right, challenger_right = (
        (predicted.astype(str) == actual) & ~pd.isna(predicted) for predicted in (champion, challenger)
    )
    rows = len(actual)
    gained = int((challenger_right & ~champion_right).sum())
    lost = int((champion_right & ~challenger_right).sum())
    improvement = (gained - lost) / rows  # of counts: exactly 0 for a tie, which a difference of shares may not be
    low, high = _interval(_resampled_gains(gained, lost, rows, seed), improvement)
    return Comparison(
        metric="accuracy",
        champion=float(champion_right.mean()),
        challenger=float(challenger_right.mean()),
        improvement=improvement,
        low=low,
        high=high,
        p_value=mcnemar(gained, lost),
        test="McNemar",
        rows=rows,
        classes=_recalls(actual, champion_right, challenger_right),
    )


def mcnemar(gained: int, lost: int) -> float:
    """One-sided exact p-value: the chance of at least `gained` heads in `gained + lost` tosses of a fair coin.

    Parameters
    ----------
    gained
        Rows that only the challenger has right.
    lost
        Rows that only the champion has right.
    """
    return float(binom.sf(gained - 1, gained + lost, 0.5))


def compare_values(
    actual: np.ndarray, champion: np.ndarray, challenger: np.ndarray, metric: str, seed: int = 0
) -> Comparison:
    """Compare two regressions on the same rows.

    The p-value is the share of resamples in which the challenger is not better: the level at which a one-sided
    percentile interval (Efron and Tibshirani 1993, *An Introduction to the Bootstrap*) just reaches 0. One is added to
    both counts, so that it is never 0 (Davison and Hinkley 1997, *Bootstrap Methods and their Application*, 4.2).

    Parameters
    ----------
    actual
        Target values: (N, T) or (N,), finite.
    champion, challenger
        Predictions of the same shape. If any is not finite, the metric is NaN.
    metric
        ``rmspe``, ``rmse``, ``mae`` or ``r2``, as in `models.tables.metrics`: rows with target 0 do not count for
        ``rmspe``.
    seed
        Of the bootstrap.

    Raises
    ------
    UserError
        If there are no rows, a target is missing, the shapes differ, or the metric is not one of these.

    Notes
    -----
    Every metric here is a function of sums over rows, so a resample is a weighted sum. Above 4,000 rows these sums are
    first taken within 4,000 random groups of rows, and the groups are resampled: a sum over a random group varies as
    those over its rows do, so the interval is the same but for 1 % of its width, and time and memory no longer grow
    with the rows.

    Rows are taken to be independent. Where they are not (the sales of one store on many days) the interval is too
    narrow: ask for a margin.
    """
    if metric not in _METRICS:
        raise UserError(f"metric: {metric!r} cannot be compared; choose among {', '.join(_METRICS)}")
    actual, champion, challenger = (_columns(values) for values in (actual, champion, challenger))
    _check_rows(actual, champion, challenger)
    if missing := int((~np.isfinite(actual)).any(axis=1).sum()):
        raise UserError(f"{missing} of {len(actual)} rows have no target to compare with; exclude them")
    scores = [_score(metric, actual, predictions) for predictions in (champion, challenger)]
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    improvement = sign * (scores[1] - scores[0])
    low = high = p_value = float("nan")
    if np.isfinite(improvement):
        resampled = sign * _resampled_differences(metric, actual, champion, challenger, seed)
        low, high = _interval(resampled, improvement)
        p_value = float((np.sum(resampled <= 0) + 1) / (len(resampled) + 1))
    return Comparison(
        metric=metric,
        champion=scores[0],
        challenger=scores[1],
        improvement=improvement,
        low=low,
        high=high,
        p_value=p_value,
        test="paired bootstrap",
        rows=len(actual),
        classes=[],
    )


def decide(comparison: Comparison, rules: PromotionSpec) -> Decision:
    """Promote the challenger if every rule holds; a metric that is NaN or the same for both never promotes.

    Parameters
    ----------
    comparison
        Of champion and challenger.
    rules
        Margin, significance and protected classes.

    Returns
    -------
    Decision
        One reason per rule, those that held included.

    Raises
    ------
    UserError
        If classes are protected but the comparison is one of values.
    """
    if rules.protected and not comparison.classes:
        raise UserError(f"protected: {comparison.metric} is numeric, which have no classes to protect; omit it")
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


def _check_rows(actual: np.ndarray, champion: np.ndarray, challenger: np.ndarray) -> None:
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
    low, high = np.quantile(resampled, _INTERVAL)
    return min(float(low), improvement), max(float(high), improvement)


def _resampled_gains(gained: int, lost: int, rows: int, seed: int) -> np.ndarray:
    # The larger count is drawn first, whoever it belongs to: swapping the two models mirrors the interval exactly.
    more, fewer = max(gained, lost), min(gained, lost)
    drawn = np.random.default_rng(seed).multinomial(
        rows, [more / rows, fewer / rows, (rows - more - fewer) / rows], size=RESAMPLES
    )
    differences = (drawn[:, 0] - drawn[:, 1]) / rows
    return differences if gained >= lost else -differences


def _recalls(actual: np.ndarray, champion_right: np.ndarray, challenger_right: np.ndarray) -> list[dict[str, Any]]:
    names, codes = np.unique(actual, return_inverse=True)
    rows = np.bincount(codes)
    champion = np.bincount(codes[champion_right], minlength=len(names))
    challenger = np.bincount(codes[challenger_right], minlength=len(names))
    return [
        {
            "class": str(name),
            "rows": int(rows[code]),
            "champion": float(champion[code] / rows[code]),
            "challenger": float(challenger[code] / rows[code]),
            "difference": float((challenger[code] - champion[code]) / rows[code]),
        }
        for code, name in enumerate(names)
    ]


def _columns(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    return values.reshape(-1, 1) if values.ndim == 1 else values


def _score(metric: str, actual: np.ndarray, predictions: np.ndarray) -> float:
    return _METRICS[metric].score(predictions, actual) if np.isfinite(predictions).all() else float("nan")


def _absolute_errors(actual: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones(len(actual)), np.abs(predictions - actual).mean(axis=1)])


def _squared_errors(actual: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones(len(actual)), np.square(predictions - actual)])


def _squared_shares(actual: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    counted = actual != 0
    shares = np.divide(predictions - actual, actual, out=np.zeros_like(actual), where=counted)
    return np.column_stack([counted.sum(axis=1), np.square(shares).sum(axis=1)])


def _errors_and_spread(actual: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    centred = actual - actual.mean(axis=0)  # otherwise the variance is a small difference of large sums
    return np.column_stack([_squared_errors(actual, predictions), centred, np.square(centred)])


def _mean(sums: np.ndarray) -> np.ndarray:
    return sums[:, 1] / sums[:, 0]


def _root_mean(sums: np.ndarray) -> np.ndarray:
    return np.sqrt(sums[:, 1:] / sums[:, :1]).mean(axis=1)


def _explained(sums: np.ndarray) -> np.ndarray:
    errors, values, squares = np.split(sums[:, 1:], 3, axis=1)
    spread = squares - np.square(values) / sums[:, :1]
    # A resample that drew one target only has no spread but rounding: what is explained of it is undefined.
    spread[spread <= 1e-12 * squares] = np.nan
    return (1 - errors / spread).mean(axis=1)


@dataclass(frozen=True)
class _Metric:
    """A metric, and the same from sums over rows: what it needs of each row (N, K), its value from sums (R, K)."""

    score: Callable[[np.ndarray, np.ndarray], float]
    of_rows: Callable[[np.ndarray, np.ndarray], np.ndarray]
    of_sums: Callable[[np.ndarray], np.ndarray]


_METRICS = {
    "rmspe": _Metric(rmspe, _squared_shares, _root_mean),
    "rmse": _Metric(rmse, _squared_errors, _root_mean),
    "mae": _Metric(mae, _absolute_errors, _mean),
    "r2": _Metric(r2, _errors_and_spread, _explained),
}


def _resampled_differences(
    metric: str, actual: np.ndarray, champion: np.ndarray, challenger: np.ndarray, seed: int
) -> np.ndarray:
    """Challenger minus champion in every resample that the metric is defined for."""
    of_rows, of_sums = _METRICS[metric].of_rows, _METRICS[metric].of_sums
    rng = np.random.default_rng(seed)
    groups = None if len(actual) <= _GROUPS else rng.permutation(np.arange(len(actual)) % _GROUPS)
    known = actual.astype(np.float64)
    columns = [_summed(of_rows(known, each.astype(np.float64)), groups) for each in (champion, challenger)]
    found = []
    for start in range(0, RESAMPLES, _RESAMPLES_AT_ONCE):
        counts = _drawn(rng, len(columns[0]), min(_RESAMPLES_AT_ONCE, RESAMPLES - start))
        with np.errstate(divide="ignore", invalid="ignore"):  # a resample without any row that counts is NaN
            found.append(of_sums(counts @ columns[1]) - of_sums(counts @ columns[0]))
    differences = np.concatenate(found)
    return differences[np.isfinite(differences)]


def _summed(columns: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    if groups is None:
        return columns
    return np.column_stack([np.bincount(groups, column, minlength=_GROUPS) for column in columns.T])


def _drawn(rng: np.random.Generator, rows: int, resamples: int) -> np.ndarray:
    """How often each row is in each resample: (resamples, rows)."""
    return rng.multinomial(rows, np.full(rows, 1 / rows), size=resamples).astype(np.float64)
