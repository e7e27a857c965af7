"""Temperature scaling of probabilities, fitted on the validation rows.

Dividing logits by one number keeps their order and removes most of a network's over-confidence (Guo et al., "On
Calibration of Modern Neural Networks", 2017).
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from unfreeze.models.evaluation.intervals import standard_error
from unfreeze.models.reading.sampling import sample_rows
from unfreeze.models.targets.base import Target

TEMPERATURES = (0.05, 20.0)
"""Search bounds."""
FEWEST_WRONG = 5
"""Minimum wrong rows to allow a temperature below 1, which raises confidence."""
FOLDS = 5
MOST_ROWS = 20_000
"""Maximum rows to fit on."""
TINY = np.finfo(np.float64).tiny


class Calibration(NamedTuple):
    """A model's temperature and its effect on the validation rows.

    Attributes
    ----------
    temperature
        Fitted on all validation rows; 1 if cross-fitting does not lower the loss beyond chance.
    predictions
        For every validation row, scaled by a temperature fitted on other rows; unscaled if `temperature` is 1.
    gain, error
        Reduction of the validation loss by cross-fitting, and its standard error.
    """

    temperature: float
    predictions: np.ndarray
    gain: float = 0.0
    error: float = 0.0

    def __str__(self) -> str:
        """Describe the decision in a sentence."""
        if self.temperature == 1:
            return f"no temperature: it would change the loss by {-self.gain:.2g}, standard error {self.error:.2g}"
        return (
            f"logits are divided by a temperature of {self.temperature:.2f}, which lowers the loss of rows that it was "
            f"not fitted on by {self.gain:.2g}, standard error {self.error:.2g}"
        )


def scaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Divide the logits of probabilities (N, C) by a temperature; float64."""
    if temperature == 1:
        return probabilities
    return np.asarray(softmax(np.log(np.maximum(probabilities, TINY)) / temperature, axis=1))


def second(probabilities: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Most probable wrong class of every row, (N,) int64."""
    others = probabilities.copy()
    others[np.arange(len(actual)), actual] = -1
    return np.asarray(others.argmax(1))


def with_one_more(loss: float, wrong: float, rows: float) -> float:
    """Add one row with the mean loss of all-`wrong` answers to a mean loss over rows.

    This follows the rule of succession: if all rows are right, nothing limits confidence, and the most confident model
    would have the lowest loss.
    """
    return (rows * loss + wrong) / (rows + 1)


def effective_rows(rows: int, counts: np.ndarray | None) -> float:
    """Effective number of rows for unequal weights `counts` (Kish, "Survey Sampling", 1965)."""
    return float(rows if counts is None else counts.sum() ** 2 / np.square(counts).sum())


def best_temperature(probabilities: np.ndarray, actual: np.ndarray, counts: np.ndarray | None = None) -> float:
    """Find the temperature with the lowest log loss; above 1 for over-confident probabilities.

    The loss includes one additional wrong row, see `with_one_more`. With fewer than `FEWEST_WRONG` wrong rows the
    temperature is at least 1.

    Parameters
    ----------
    probabilities
        (N, C) float64.
    actual
        Class numbers (N,).
    counts
        Weights of rows, (N,); None for equal weights.
    """
    rows = sample_rows(np.arange(len(actual)), MOST_ROWS)
    probabilities, actual, weights = probabilities[rows], actual[rows], None if counts is None else counts[rows]
    logits, places = np.log(np.maximum(probabilities, 1e-12)), np.arange(len(actual))
    others = second(probabilities, actual)

    def loss(log_temperature: float) -> float:
        logs = log_softmax(logits / np.exp(log_temperature), axis=1)
        right, wrong = (float(-np.average(logs[places, each], weights=weights)) for each in (actual, others))
        return with_one_more(right, wrong, effective_rows(len(actual), weights))

    lowest = TEMPERATURES[0] if (probabilities.argmax(1) != actual).sum() >= FEWEST_WRONG else 1.0
    return float(np.exp(minimize_scalar(loss, bounds=np.log((lowest, TEMPERATURES[1])), method="bounded").x))


def calibrate(
    target: Target, predictions: np.ndarray, actual: np.ndarray, blocks: np.ndarray | None = None
) -> Calibration:
    """Fit a model's temperature on its validation rows, if cross-fitting shows a gain.

    Every fold is scaled by the temperature of the other folds. Unless this lowers the loss by more than one standard
    error, the temperature is 1.

    Parameters
    ----------
    target
        Target of the predictions; numbers have no temperature.
    predictions
        For the validation rows, see `Target.predictions`.
    actual
        Their targets.
    blocks
        As for `intervals`; folds keep blocks whole.
    """
    before = target.loss_of(predictions, actual)
    units = np.arange(len(actual)) if blocks is None else np.unique(blocks, return_inverse=True)[1]
    if not (target.classes and np.isfinite(before) and units.any()):
        return Calibration(1.0, predictions)
    folds = np.random.default_rng(0).permutation(units.max() + 1)[units] % FOLDS
    fitted = predictions.copy()
    for fold in np.unique(folds):
        own = folds == fold
        fitted[own] = target.tempered(predictions[own], target.temperature(predictions[~own], actual[~own]))
    gain = before - target.loss_of(fitted, actual)
    error = standard_error(target.loss_of, predictions, fitted, actual, blocks)
    if not gain > error:
        return Calibration(1.0, predictions, gain, error)
    return Calibration(target.temperature(predictions, actual), fitted, gain, error)
