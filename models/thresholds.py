"""From which probability on a label is answered."""

import numpy as np

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
