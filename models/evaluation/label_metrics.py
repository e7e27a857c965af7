"""Metrics of several labels per row, by name; whatever counts decisions takes them as they were made by thresholds."""

from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata

from unfreeze.models.evaluation.shares import ShareOfRows

LabelMetric = Callable[[np.ndarray, np.ndarray, np.ndarray], float]
"""(probabilities (N, L) float64, answers (N, L) bool, actual labels (N, L) bool) -> a number over all rows."""


def fbeta_of_labels(answers: np.ndarray, actual: np.ndarray, beta: float = 1.0) -> np.ndarray:
    """F-beta of every label, (L,) float64; NaN where no row of `actual` has it: nothing is known of it then."""
    right, said, known = (answers & actual).sum(0), answers.sum(0), actual.sum(0)
    weight = beta**2
    return np.where(known > 0, (1 + weight) * right / np.maximum(weight * known + said, 1), np.nan)


def fbeta_of_rows(answers: np.ndarray, actual: np.ndarray, beta: float = 1.0) -> np.ndarray:
    """F-beta of the labels of every row, (N,) float64; 1 where there are none and none is answered."""
    right, said, known = (answers & actual).sum(1), answers.sum(1), actual.sum(1)
    weight = beta**2
    return np.where(said + known > 0, (1 + weight) * right / np.maximum(weight * known + said, 1), 1.0)


def average_precisions(probabilities: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Average precision of every label, (L,) float64; NaN where no row has it.

    All labels at once: scikit-learn's function takes a millisecond per label, and a bootstrap calls it thousands of
    times. Rows of equal probability count together, as there.
    """
    rows = np.arange(len(actual))[:, None]
    order = np.argsort(-probabilities, axis=0, kind="stable")
    ranked, known = (np.take_along_axis(each, order, axis=0) for each in (probabilities, actual))
    is_last = np.ones(ranked.shape, dtype=bool)
    is_last[:-1] = ranked[1:] < ranked[:-1]
    last = np.minimum.accumulate(np.where(is_last, rows, len(rows))[::-1], axis=0)[::-1]
    precision = np.take_along_axis(known.cumsum(axis=0), last, axis=0) / (last + 1)
    return _ratio((known * precision).sum(axis=0), known.sum(axis=0))


def areas_under_curve(probabilities: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of every label, (L,) float64; NaN where no row, or every row, has it.

    From the sum of the ranks of the rows that have the label (Mann and Whitney 1947), all labels at once.
    """
    ranks = rankdata(probabilities, axis=0)
    known = actual.sum(axis=0)
    above = (ranks * actual).sum(axis=0) - known * (known + 1) / 2
    return _ratio(above, known * (len(actual) - known))


def _ratio(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    ratios: np.ndarray = np.divide(values, counts, out=np.full(len(values), np.nan), where=counts > 0)
    return ratios


def binary_losses(probabilities: np.ndarray, actual: np.ndarray, smallest: float = 1e-7) -> np.ndarray:
    """Cross entropy of every label of every row, (N, L) float64; a probability counts as at least `smallest`."""
    chosen = np.where(actual, probabilities, 1 - probabilities)
    losses: np.ndarray = -np.log(np.clip(chosen, smallest, 1))
    return losses


def _mean(values: np.ndarray) -> float:
    """The mean of what is defined, NaN if nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _f1_micro(probabilities: np.ndarray, answers: np.ndarray, actual: np.ndarray) -> float:
    return float(2 * (answers & actual).sum() / max(answers.sum() + actual.sum(), 1))


LABEL_METRICS: dict[str, LabelMetric] = {
    "accuracy": ShareOfRows(lambda probabilities, answers, actual: (answers == actual).all(1)),
    "f1": lambda probabilities, answers, actual: _mean(fbeta_of_labels(answers, actual)),
    "f2": lambda probabilities, answers, actual: _mean(fbeta_of_labels(answers, actual, 2)),
    "f1_micro": _f1_micro,
    "f1_rows": lambda probabilities, answers, actual: float(fbeta_of_rows(answers, actual).mean()),
    "f2_rows": lambda probabilities, answers, actual: float(fbeta_of_rows(answers, actual, 2).mean()),
    "map": lambda probabilities, answers, actual: _mean(average_precisions(probabilities, actual)),
    "auc": lambda probabilities, answers, actual: _mean(areas_under_curve(probabilities, actual)),
    "log_loss": lambda probabilities, answers, actual: float(binary_losses(probabilities, actual).mean()),
}
"""Share of rows with all labels right (`accuracy`); F1 and F2: means over labels, `f1_micro` over all decisions,
`_rows` the mean over rows; mean average precision (`map`), area under the curve and log loss, means over labels."""
