"""Logistic regression on activations, as a head of one layer: what a fine-tuned network has to beat.

It needs no learning rate and has one minimum; on a few hundred images it is often the best head there is.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold
from torch import nn

from unfreeze.models.images.label_regression import FOLDS, STRENGTHS, label_strengths, regress_labels

MOST_ROWS = 10_000
"""Rows that are fitted on, at most: the first of a random order."""
ITERATIONS = 200


def build_linear_head(features: int, classes: int, width: int = 0, dropout: float = 0.0) -> nn.Sequential:
    """One linear layer from activations (B, `features`) to logits (B, `classes`); `width` and `dropout` are unused."""
    head = nn.Sequential(nn.Linear(features, classes))
    nn.init.zeros_(head[0].weight)  # type: ignore[arg-type]
    nn.init.zeros_(head[0].bias)  # type: ignore[arg-type]
    return head


def choose_strength(plain: np.ndarray, targets: np.ndarray) -> float | np.ndarray:
    """The penalty for `fit_linear_head`, by cross-validation on the plain view of the training rows.

    Rows that judge the result take no part. Of several labels each has a penalty of its own, (C,).
    """
    standard, known, _, _ = _standardised([plain], targets)
    return label_strengths(standard[0], known) if targets.ndim == 2 else _strength(standard[0], known)


def fit_linear_head(
    views: Sequence[np.ndarray], targets: np.ndarray, classes: int, strength: float | np.ndarray | None = None
) -> dict[str, torch.Tensor]:
    """Weights of a `build_linear_head`, by L2-penalised logistic regression; of several labels each has its own.

    Parameters
    ----------
    views
        Activations (N, D) float32 of the plain view, then of augmented ones.
    targets
        Class numbers (N,) int64, or labels (N, C) of 0 and 1.
    classes
        Number C of classes or labels; one without rows gets no probability.
    strength
        The penalty. None: see `choose_strength`.

    Returns
    -------
    dict
        ``0.weight`` (C, D) and ``0.bias`` (C,), float32: the standardisation of activations is folded in.
    """
    if strength is None:
        strength = choose_strength(views[0], targets)
    standard, known, mean, scale = _standardised(views, targets)
    if targets.ndim == 1 and len(np.unique(known)) == 1:  # such as in a fold that judges all groups of the others
        return _head(np.zeros((classes, len(mean))), np.where(np.arange(classes) == known[0], 0.0, -20.0))
    if isinstance(strength, np.ndarray):
        weights, biases = regress_labels(standard, known, strength)
        return _head(weights / scale, biases - (weights / scale) @ mean)
    fitted = _fitted(strength / len(views), np.concatenate(standard), np.tile(known, len(views)))
    weights, biases = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:  # scikit-learn keeps one vector then
        weights, biases = np.concatenate([-weights, weights]) / 2, np.concatenate([-biases, biases]) / 2
    whole = np.zeros((classes, len(mean)))
    offsets = np.full(classes, float(biases.min()) - 20.0)
    whole[fitted.classes_], offsets[fitted.classes_] = weights / scale, biases - (weights / scale) @ mean
    return _head(whole, offsets)


def _standardised(
    views: Sequence[np.ndarray], targets: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """The rows that are fitted on, in random order: every view, their targets, and mean and scale of the plain view."""
    rows = np.random.default_rng(0).permutation(len(targets))[:MOST_ROWS]
    plain, known = views[0][rows], targets[rows]
    mean, scale = plain.mean(axis=0, dtype=np.float64), plain.std(axis=0, dtype=np.float64) + 1e-6
    standard = [(view[rows] - mean) / scale for view in views]
    return standard, known.astype(np.float64) if targets.ndim == 2 else known, mean, scale


def _head(weights: np.ndarray, biases: np.ndarray) -> dict[str, torch.Tensor]:
    return {"0.weight": torch.from_numpy(weights).float(), "0.bias": torch.from_numpy(biases).float()}


def _fitted(strength: float, activations: np.ndarray, targets: np.ndarray) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # further steps no longer change what is predicted
        return LogisticRegression(C=strength, max_iter=ITERATIONS).fit(activations, targets)


def _strength(activations: np.ndarray, targets: np.ndarray) -> float:
    """The penalty with the lowest log loss over folds of the rows, which are in random order already."""
    if len(targets) < 2 * FOLDS:
        return STRENGTHS[2]
    losses = np.zeros(len(STRENGTHS))
    labels = np.unique(targets)
    for train, judged in KFold(FOLDS).split(activations):
        if len(np.unique(targets[train])) < 2:
            continue
        for number, strength in enumerate(STRENGTHS):
            fitted = _fitted(strength, activations[train], targets[train])
            probabilities = np.full((len(judged), len(labels)), 1e-7)
            probabilities[:, np.searchsorted(labels, fitted.classes_)] = fitted.predict_proba(activations[judged])
            probabilities /= probabilities.sum(axis=1, keepdims=True)
            losses[number] += log_loss(targets[judged], probabilities, labels=labels)
    return STRENGTHS[int(losses.argmin())]
