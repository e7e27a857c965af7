"""Logistic regression of many labels at once: one problem of matrices instead of one regression per label."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths of the L2 penalty to choose from, for standardised activations."""
FOLDS = 3
_ITERATIONS = 200
_NEVER = -20.0


def label_strengths(plain: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The penalty of each label (L,) with the lowest loss over folds of the rows.

    Standardised activations (N, D) and labels (N, L), in random order.
    """
    strengths = np.full(labels.shape[1], STRENGTHS[2])
    if len(plain) >= 2 * FOLDS:
        losses = np.zeros((len(STRENGTHS), labels.shape[1]))
        for judged in np.array_split(np.arange(len(plain)), FOLDS):
            train = np.setdiff1d(np.arange(len(plain)), judged)
            fitted = None
            for number, strength in enumerate(STRENGTHS):
                fitted = _fit(plain[train], labels[train], np.full(labels.shape[1], strength), fitted)
                losses[number] += _losses(fitted, plain[judged], labels[judged]).sum(axis=0)
        strengths = np.array(STRENGTHS)[losses.argmin(axis=0)]
    return strengths


def regress_labels(
    views: Sequence[np.ndarray], labels: np.ndarray, strengths: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """One L2-penalised logistic regression per label.

    Parameters
    ----------
    views
        Standardised activations (N, D) float64 of the plain view, then of augmented ones. The rows are in random order.
    labels
        (N, L) float64 of 0 and 1.
    strengths
        The penalty of each label (L,). None: see `label_strengths`.

    Returns
    -------
    tuple of numpy.ndarray
        Weights (L, D) and biases (L,) float64. A label that no row has, or every row, gets weights of 0.
    """
    if strengths is None:
        strengths = label_strengths(views[0], labels)
    every, known = np.concatenate(views), np.tile(labels, (len(views), 1))
    fitted = _fit(every, known, strengths / len(views))
    weights, biases = fitted[:, 1:].copy(), fitted[:, 0].copy()
    for value, bias in ((0.0, _NEVER), (1.0, -_NEVER)):
        constant = (labels == value).all(axis=0)
        weights[constant], biases[constant] = 0.0, bias
    return weights, biases


def _losses(fitted: np.ndarray, inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross entropy (N, L) of every label of every row."""
    logits = inputs @ fitted[:, 1:].T + fitted[:, 0]
    losses: np.ndarray = np.logaddexp(0.0, logits) - labels * logits
    return losses


def _fit(inputs: np.ndarray, labels: np.ndarray, strengths: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """Biases and weights (L, 1 + D) with the lowest sum of losses plus |w|^2 / (2 strength) of every label."""
    shape = (labels.shape[1], 1 + inputs.shape[1])

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        fitted = flat.reshape(shape)
        logits = inputs @ fitted[:, 1:].T + fitted[:, 0]
        errors = expit(logits) - labels
        loss = (np.logaddexp(0.0, logits) - labels * logits).sum(axis=0)
        gradient = np.empty(shape)
        gradient[:, 0], gradient[:, 1:] = errors.sum(axis=0), errors.T @ inputs
        gradient[:, 1:] += fitted[:, 1:] / strengths[:, None]
        penalty = 0.5 * np.square(fitted[:, 1:]).sum(axis=1) / strengths
        # Every label's problem is divided by its rows' number and stands by itself; the sum has the same minimum.
        return float((loss + penalty).sum()) / len(inputs), gradient.ravel() / len(inputs)

    initial = np.zeros(shape) if start is None else start
    found = minimize(objective, initial.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS})
    return np.asarray(found.x).reshape(shape)
