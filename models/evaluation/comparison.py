"""Paired comparison of champion and challenger on the same rows, and the promotion decision."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from unfreeze.models.errors import UserError, choose
from unfreeze.models.evaluation.intervals import OUTSIDE, improvement
from unfreeze.models.evaluation.metrics import VALUE_METRICS, Metric, ShareOfRows, mean_f1_of_labels
from unfreeze.models.reading.labels import matrix_of
from unfreeze.models.settings.retrain import PromotionSpec

RESAMPLES = (1000, 2000)
"""Minimum and maximum, see `intervals.RESAMPLES`; the smallest p-value is 1 / 2001, with many rows 1 / 1001."""


@dataclass(frozen=True)
class Comparison:
    """Champion and challenger on the same rows.

    Attributes
    ----------
    champion, challenger
        Values of the metric; NaN if it is undefined or predictions are not finite.
    improvement
        Their difference, positive if the challenger is better in the metric's direction.
    low, high
        95 % interval of the improvement, see `unfreeze.models.evaluation.intervals.improvement`.
    p_value
        Probability of an improvement at least this large by chance; NaN if the metric is.
    test
        ``McNemar`` or ``paired bootstrap``, the latter with the number of blocks, if any.
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
    """Promotion decision, with the outcome and numbers of every condition."""

    promote: bool
    reasons: list[str]


def compare_classes(
    actual: np.ndarray,
    champion: np.ndarray,
    challenger: np.ndarray,
    margin: float = 0.0,
    blocks: Sequence[np.ndarray] = (),
) -> Comparison:
    """Compare the accuracy of two classifiers on the same rows by McNemar's test.

    With a margin or `blocks`, the test is a paired bootstrap as in `compare_values`.

    Parameters
    ----------
    actual
        Class of every row: (N,) text.
    champion, challenger
        Predicted classes: (N,) text. Classes unknown to a model and missing predictions count as wrong.
    margin, blocks
        See `compare_values`.

    Raises
    ------
    UserError
        If there are no rows, if a row has no class, or if the three differ in length.
    """
    actual = np.asarray(actual)
    if missing := int(pd.isna(actual).sum()):
        raise UserError(f"{missing} of {len(actual)} rows have no class to compare with; exclude them")
    actual, answers = actual.astype(str), [np.asarray(each) for each in (champion, challenger)]
    _check_rows(actual, *answers)
    right = [(each.astype(str) == actual) & ~pd.isna(each) for each in answers]
    names = np.unique(actual)
    metric = ShareOfRows(lambda is_right, _: is_right)
    return _compared("accuracy", metric, right, actual, margin, blocks, names, actual[:, None] == names)


def mcnemar(gained: int, lost: int) -> float:
    """One-sided p-value of McNemar's exact test (1947): probability of at least `gained` heads with a fair coin.

    If neither model were better, each row that only the challenger (`gained`) or only the champion (`lost`) predicts
    correctly would be a coin toss.
    """
    return float(binomtest(gained, gained + lost, alternative="greater").pvalue) if gained + lost else 1.0


def compare_values(
    actual: np.ndarray,
    champion: np.ndarray,
    challenger: np.ndarray,
    metric: str,
    margin: float = 0.0,
    blocks: Sequence[np.ndarray] = (),
) -> Comparison:
    """Compare two regressions on the same rows.

    The p-value is the share of resamples in which the challenger is not better by more than the margin, which is the
    level at which a one-sided percentile interval (Efron and Tibshirani 1993, *An Introduction to the Bootstrap*) just
    reaches the margin. Adding one to both counts keeps it above 0 (Davison and Hinkley 1997, *Bootstrap Methods and
    their Application*, 4.2). Rows are taken to be independent; with `blocks` of dependent rows, such as the sales of
    one store, whole blocks are resampled.

    Parameters
    ----------
    actual
        Target values: (N, T) or (N,), finite.
    champion, challenger
        Predictions of the same shape. If any is not finite, the metric is NaN.
    metric
        ``rmspe``, ``rmse``, ``mae`` or ``r2``, as in `unfreeze.models.evaluation.metrics`; ``rmspe`` ignores rows
        with target 0.
    margin
        Improvement that the p-value tests.
    blocks
        Groupings of dependent rows, such as stores and weeks: each the block of every row (N,), at least two blocks.

    Raises
    ------
    UserError
        If there are no rows, a target is missing, the shapes differ, or the metric is not one of these.
    """
    measure = choose(VALUE_METRICS, metric, "metric")
    actual, answers = np.asarray(actual), [np.asarray(each) for each in (champion, challenger)]
    _check_rows(actual, *answers)
    if missing := int((~np.isfinite(actual.reshape(len(actual), -1))).any(axis=1).sum()):
        raise UserError(f"{missing} of {len(actual)} rows have no target to compare with; exclude them")

    def value(predictions: np.ndarray, known: np.ndarray) -> float:
        return measure(predictions, known) if np.isfinite(predictions).all() else float("nan")

    return _compared(metric, value, answers, actual, margin, blocks)


def compare_labels(
    actual: Sequence[Sequence[str]],
    champion: Sequence[Sequence[str]],
    challenger: Sequence[Sequence[str]],
    margin: float = 0.0,
    blocks: Sequence[np.ndarray] = (),
) -> Comparison:
    """Compare the mean F1 over labels on the same rows by a paired bootstrap.

    Parameters
    ----------
    actual, champion, challenger
        Labels of every row. Models may know different labels; labels without a row do not count.
    margin, blocks
        See `compare_values`.

    Raises
    ------
    UserError
        If there are no rows, or no row has a label.
    """
    names = sorted({str(label) for row in actual for label in row})
    if len(actual) and not names:
        raise UserError(f"none of the {len(actual)} rows to compare on has a label")
    known, *answers = (
        matrix_of([[label for label in row if str(label) in names] for row in each], names)
        for each in (actual, champion, challenger)
    )
    _check_rows(known, *answers)
    return _compared("f1", mean_f1_of_labels, answers, known, margin, blocks, names, known)


def _check_rows(actual: np.ndarray, champion: np.ndarray, challenger: np.ndarray) -> None:
    """Reject a comparison of no rows or of different rows (`UserError`)."""
    if not len(actual):
        raise UserError("there are no rows to compare champion and challenger on")
    if not actual.shape == champion.shape == challenger.shape:
        raise UserError(
            f"champion and challenger must predict the same rows: the rows are {actual.shape}, "
            f"the champion's {champion.shape}, the challenger's {challenger.shape}"
        )


def _compared(
    name: str,
    metric: Metric,
    answers: Sequence[np.ndarray],
    actual: np.ndarray,
    margin: float,
    blocks: Sequence[np.ndarray],
    classes: Sequence[str] | np.ndarray = (),
    belongs: np.ndarray | None = None,
) -> Comparison:
    """Compare the answers of champion and challenger; `belongs`, (N, C) bool, tells the rows' classes.

    If so few rows differ that all may favour one model by chance, which resampling cannot show, the p-value is the sign
    test's and the interval includes 0.
    """
    found, resampled = improvement(
        "", name, metric, answers[0], answers[1], actual, blocks, RESAMPLES, exact=not margin
    )
    low, high, test = found.low, found.high, "paired bootstrap"
    p_value = float((np.sum(resampled <= margin) + 1) / (len(resampled) + 1))
    changed = (answers[0] != answers[1]).reshape(len(actual), -1).any(axis=1)
    if blocks:
        test += f" of {min(len(np.unique(way)) for way in blocks):,} blocks"
    elif isinstance(metric, ShareOfRows) and not margin:
        gained = metric.holds(answers[1], actual)[changed].sum()
        p_value, test = mcnemar(int(gained), int(changed.sum() - gained)), "McNemar"
    else:
        chance = 0.5 ** int(changed.sum())
        p_value = max(p_value, chance)
        if chance > OUTSIDE:
            low, high = min(low, 0.0), max(high, 0.0)
    p_value = p_value if np.isfinite(found.improvement) else float("nan")
    recalls = []
    for number, each in enumerate(classes):
        rows = belongs[:, number]  # type: ignore[index]
        before, now = (int((answer if answer.ndim == 1 else answer[:, number])[rows].sum()) for answer in answers)
        count = int(rows.sum())
        shares = {"champion": before / count, "challenger": now / count, "difference": (now - before) / count}
        recalls.append({"class": str(each), "rows": count, **shares})
    return Comparison(
        name, found.before, found.after, found.improvement, low, high, p_value, test, len(actual), recalls
    )


def decide(comparison: Comparison, rules: PromotionSpec) -> Decision:
    """Promote the challenger if every rule holds; a NaN or equal metric never promotes.

    The decision gives one reason per rule, whether it held or not.

    Raises
    ------
    UserError
        If classes are protected but the metric is one of numbers.
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
