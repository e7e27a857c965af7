"""Whether probabilities mean what they say."""

import numpy as np
from scipy.optimize import minimize_scalar

BINS = 15
SMALLEST = 1e-12


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
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(actual))


def temperature(probabilities: np.ndarray, actual: np.ndarray) -> float:
    """The temperature of the lowest log loss, between 0.05 and 20: above 1 the probabilities are too sure.

    Dividing logits by a temperature keeps their order (Guo et al. 2017).
    """
    logits = np.log(np.maximum(probabilities, SMALLEST))

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        scaled -= scaled.max(1, keepdims=True)
        chosen = scaled[np.arange(len(actual)), actual]
        return float((np.log(np.exp(scaled).sum(1)) - chosen).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))
