"""Temperature scaling of probabilities, fitted on the validation rows.

Guo et al., "On Calibration of Modern Neural Networks", 2017: logits divided by one number keep their order, and most of
what networks are too sure of themselves goes.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from unfreeze.models.evaluation.intervals import standard_error
from unfreeze.models.reading.sampling import sample_rows
from unfreeze.models.targets.base import Target

TEMPERATURES = (0.05, 20.0)
"""Between which one is looked for."""
FEWEST_WRONG = 5
"""Wrong rows without which probabilities are not made any surer."""
FOLDS = 5
MOST_ROWS = 20_000
"""Rows that one is fitted on, at most."""
TINY = np.finfo(np.float64).tiny


class Calibration(NamedTuple):
    """A model's temperature and its effect on the validation rows.

    Attributes
    ----------
    temperature
        Fitted on all validation rows; 1 where that lowers the loss no more than chance does.
    predictions
        For every validation row, by a temperature of other rows; those of the model itself where it is 1.
    gain, error
        By how much such temperatures lower the validation loss, and the standard error of that.
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
    """Probabilities (N, C) as if their logits had been divided by a temperature, float64."""
    if temperature == 1:
        return probabilities
    return np.asarray(softmax(np.log(np.maximum(probabilities, TINY)) / temperature, axis=1))


def second(probabilities: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """The most probable wrong class of every row, (N,) int64."""
    others = probabilities.copy()
    others[np.arange(len(actual)), actual] = -1
    return np.asarray(others.argmax(1))


def with_one_more(loss: float, wrong: float, rows: float) -> float:
    """A mean loss over rows and one more, which has the mean loss of answers that are all `wrong`.

    After the rule of succession: of rows that are all right none says how sure a model may be, and the surest would
    have the lowest loss.
    """
    return (rows * loss + wrong) / (rows + 1)


def effective_rows(rows: int, counts: np.ndarray | None) -> float:
    """How many rows that count the same say as much as those that count differently (Kish, "Survey Sampling", 1965)."""
    return float(rows if counts is None else counts.sum() ** 2 / np.square(counts).sum())


def best_temperature(probabilities: np.ndarray, actual: np.ndarray, counts: np.ndarray | None = None) -> float:
    """The temperature of the lowest log loss, above 1 where probabilities are too sure.

    The loss is that of `with_one_more` row, which is wrong. Below `FEWEST_WRONG` wrong rows it is at least 1.

    Parameters
    ----------
    probabilities
        (N, C) float64.
    actual
        Class numbers (N,).
    counts
        What rows count, (N,); None: all the same.
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
    """The temperature of a model by cross-fitting on its validation rows.

    Every fold of rows is scaled by the temperature of the other folds. That must lower the loss by more than one
    standard error, else there is none.

    Parameters
    ----------
    target
        What is predicted; numbers have no temperature.
    predictions
        Of the validation rows, see `Target.predictions`.
    actual
        Their targets.
    blocks
        As for `intervals`: a fold has whole blocks.
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
