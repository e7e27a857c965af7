"""Whether probabilities mean what they say."""

import numpy as np
import pandas as pd

from unfreeze.models.reading.sampling import sample_rows

BINS = 15
DRAWS = 200
"""Of labels, for the error that is to be expected by chance."""
MOST_ROWS = 20_000
"""Rows that labels are drawn for: with more of them chance adds next to nothing."""


def expected_calibration_error(probabilities: np.ndarray, actual: np.ndarray) -> float:
    """Mean difference of confidence and accuracy over 15 bins of equal width (Guo et al. 2017).

    Parameters
    ----------
    probabilities
        (N, C) float64.
    actual
        Class numbers (N,).

    References
    ----------
    Guo et al., "On Calibration of Modern Neural Networks", 2017.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == actual
    gaps = np.bincount(_bins(confidence), weights=confidence - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(actual))


def _bins(confidence: np.ndarray) -> np.ndarray:
    return np.asarray(np.minimum((confidence * BINS).astype(int), BINS - 1))


def reliability(probabilities: np.ndarray, actual: np.ndarray) -> pd.DataFrame:
    """The bins of `expected_calibration_error` that have rows: ``confidence`` and ``accuracy`` (means), ``rows``."""
    rows = pd.DataFrame({"confidence": probabilities.max(1), "accuracy": probabilities.argmax(1) == actual})
    return rows.groupby(_bins(probabilities.max(1))).agg(
        confidence=("confidence", "mean"), accuracy=("accuracy", "mean"), rows=("accuracy", "size")
    )


def calibration_error_by_chance(probabilities: np.ndarray, level: float = 0.95) -> float:
    """The `expected_calibration_error` that perfect probabilities of these rows stay below, at that level.

    The error of few rows is well above 0 whatever the model: here each row is right with the probability that it says.
    """
    confidence = probabilities[sample_rows(np.arange(len(probabilities)), MOST_ROWS)].max(1)
    right = np.random.default_rng(0).random((DRAWS, len(confidence))) < confidence
    bins = _bins(confidence)
    sums = np.zeros((DRAWS, BINS))
    for number in np.unique(bins):
        chosen = bins == number
        sums[:, number] = confidence[chosen].sum() - right[:, chosen].sum(1)
    return float(np.quantile(np.abs(sums).sum(1) / len(confidence), level))


FEWEST_ROWS = 10
"""With fewer rows of a label its own best threshold is chance: that of all labels together is taken."""
DEFAULT = 0.5


def tuned_thresholds(probabilities: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """The threshold of every label, (L,) float64, with the highest F1 on these rows.

    Parameters
    ----------
    probabilities
        (N, L) float64.
    actual
        (N, L) bool.
    """
    together = DEFAULT
    if actual.sum() >= FEWEST_ROWS:
        together = best_threshold(probabilities.ravel(), actual.ravel())
    thresholds = np.full(actual.shape[1], together)
    for label in np.flatnonzero(actual.sum(0) >= FEWEST_ROWS):
        thresholds[label] = best_threshold(probabilities[:, label], actual[:, label])
    return thresholds


def best_threshold(probabilities: np.ndarray, actual: np.ndarray) -> float:
    """The threshold with the highest F1 of answering (N,) bool where the probability (N,) is at least as high.

    It lies half-way between two probabilities; of equally good ones that next to one half is taken.
    """
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order]
    right = np.cumsum(actual[order])
    said = np.arange(1, len(ranked) + 1)
    ends = np.flatnonzero(np.append(np.diff(ranked) < 0, True))  # equal probabilities are answered alike
    scores = 2 * right[ends] / (said[ends] + right[-1])
    below = np.append(ranked[1:], 0.0)[ends]
    candidates = (ranked[ends] + below) / 2
    best = candidates[scores >= scores.max() - 1e-12]
    return float(best[np.abs(best - DEFAULT).argmin()])
