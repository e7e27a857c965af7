"""Metrics of several labels per row, by name; whatever counts decisions takes them as they were made by thresholds."""

from collections.abc import Callable

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

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
    """Average precision of every label, (L,) float64; NaN where no row has it."""
    found = [
        average_precision_score(known, said) if known.any() else np.nan
        for known, said in zip(actual.T, probabilities.T, strict=True)
    ]
    return np.array(found, dtype=np.float64)


def areas_under_curve(probabilities: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of every label, (L,) float64; NaN where no row, or every row, has it."""
    found = [
        roc_auc_score(known, said) if known.any() and not known.all() else np.nan
        for known, said in zip(actual.T, probabilities.T, strict=True)
    ]
    return np.array(found, dtype=np.float64)


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
    "accuracy": lambda probabilities, answers, actual: float((answers == actual).all(1).mean()),
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
