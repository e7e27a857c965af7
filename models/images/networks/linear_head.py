"""Logistic regression on activations, as a head of one layer: what a fine-tuned network has to beat.

It needs no learning rate and has one minimum; on a few hundred images it is often the best head there is.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from unfreeze.models.images.networks.logistic_regression import choose_strengths, out_of_fold, regress

MOST_ROWS = 10_000
"""Rows that are fitted on, at most: the first of a random order."""
LEAST_DEVIATION = 0.1
"""Share of the mean standard deviation of all activations that is added to that of each before dividing by it."""


def build_linear_head(features: int, classes: int, width: int = 0, dropout: float = 0.0) -> nn.Sequential:
    """One linear layer from activations (B, `features`) to logits (B, `classes`); `width` and `dropout` are unused."""
    head = nn.Sequential(nn.Linear(features, classes))
    nn.init.zeros_(head[0].weight)  # type: ignore[arg-type]
    nn.init.zeros_(head[0].bias)  # type: ignore[arg-type]
    return head


def fit_linear_head(
    views: Sequence[np.ndarray],
    targets: np.ndarray,
    classes: int,
    class_weights: np.ndarray | None = None,
) -> dict[str, torch.Tensor]:
    """Weights of a `build_linear_head`, by L2-penalised logistic regression; of several labels each has its own.

    The penalty is chosen by cross-validation on the plain view; every view is a part of it. Rows that judge the result
    take no part.

    Parameters
    ----------
    views
        Activations (N, D) float32 of the plain view, then of augmented ones.
    targets
        Class numbers (N,) int64, or labels (N, C) of 0 and 1.
    classes
        Number C of classes or labels; one without rows gets no probability.
    class_weights
        What a row of each class counts, (C,); None: all the same.

    Returns
    -------
    dict
        ``0.weight`` (C, D) and ``0.bias`` (C,), float32: the standardisation of activations is folded in.
    """
    exclusive = targets.ndim == 1
    plain, known, _, _ = _standardised(views[:1], targets, classes)
    strengths = choose_strengths(plain, known, exclusive, _of_rows(known, class_weights))
    inputs, known, mean, scale = _standardised(views, targets, classes)
    weights, biases = regress(inputs, known, strengths / len(views), exclusive, _of_rows(known, class_weights))
    weights /= scale
    return {"0.weight": torch.from_numpy(weights).float(), "0.bias": torch.from_numpy(biases - weights @ mean).float()}


def losses_out_of_fold(
    plain: np.ndarray, targets: np.ndarray, classes: int, class_weights: np.ndarray | None = None
) -> np.ndarray:
    """Losses (N,) of rows by regressions not fitted on them, in an order that only N decides."""
    inputs, known, _, _ = _standardised([plain], targets, classes)
    return out_of_fold(inputs, known, targets.ndim == 1, _of_rows(known, class_weights))


def _of_rows(known: np.ndarray, class_weights: np.ndarray | None) -> np.ndarray | None:
    return None if class_weights is None else known @ class_weights


def _standardised(
    views: Sequence[np.ndarray], targets: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What is fitted on: all views of the rows in random order, targets of 0 and 1 for each, mean and scale.

    The scale is that of all views, because a unit that is silent on plain images may answer augmented ones. A part of
    the mean deviation is added to each unit's, like the s0 of Tibshirani et al., "Diagnosis of multiple cancer types by
    shrunken centroids", 2002: a unit that answers hardly any training image would outweigh all others on other images.
    """
    rows = np.random.default_rng(0).permutation(len(targets))[:MOST_ROWS]
    inputs = np.concatenate([view[rows] for view in views]).astype(np.float64)
    known = targets[rows].astype(np.float64) if targets.ndim == 2 else np.eye(classes)[targets[rows]]
    mean, deviations = inputs.mean(axis=0), inputs.std(axis=0)
    scale = deviations + max(LEAST_DEVIATION * float(deviations.mean()), 1e-6)
    inputs -= mean
    inputs /= scale
    return inputs, np.tile(known, (len(views), 1)), mean, scale
