"""Calibration of probabilities, and decision thresholds of labels."""

import numpy as np
import pandas as pd

from unfreeze.models.reading.sampling import sample_rows

BINS = 15
DRAWS = 200
"""Draws of labels for the calibration error expected by chance."""
MOST_ROWS = 20_000
"""Maximum rows to draw labels for; with more, the error by chance is negligible."""


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
    """Non-empty bins of `expected_calibration_error`: ``confidence`` and ``accuracy`` (means), ``rows``."""
    rows = pd.DataFrame({"confidence": probabilities.max(1), "accuracy": probabilities.argmax(1) == actual})
    return rows.groupby(_bins(probabilities.max(1))).agg(
        confidence=("confidence", "mean"), accuracy=("accuracy", "mean"), rows=("accuracy", "size")
    )


def calibration_error_by_chance(probabilities: np.ndarray, level: float = 0.95) -> float:
    """Quantile `level` of the `expected_calibration_error` of perfectly calibrated probabilities.

    On few rows the error is well above 0 for any model. Here each row is right with its predicted probability.
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
"""Minimum rows with a label to tune its own threshold; below, the threshold of all labels together is used."""
DEFAULT = 0.5


def tuned_thresholds(probabilities: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Tune each label's threshold, (L,) float64, for the highest F1 on these rows.

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
    """Find the threshold of probabilities (N,) with the highest F1; a row is positive at or above it.

    It lies half-way between two probabilities; among equally good ones the nearest to 0.5 is taken.
    """
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order]
    right = np.cumsum(actual[order])
    said = np.arange(1, len(ranked) + 1)
    ends = np.flatnonzero(np.append(np.diff(ranked) < 0, True))  # equal probabilities get the same answer
    scores = 2 * right[ends] / (said[ends] + right[-1])
    below = np.append(ranked[1:], 0.0)[ends]
    candidates = (ranked[ends] + below) / 2
    best = candidates[scores >= scores.max() - 1e-12]
    return float(best[np.abs(best - DEFAULT).argmin()])
