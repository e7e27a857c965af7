"""The loss that follows from the targets, and what outputs mean once training is over."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from unfreeze.models.specs import OptimizerSpec

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(logits (B, C) float, targets (B,) int64) -> mean loss, a scalar."""


@dataclass(frozen=True)
class Outputs:
    """What a network's outputs (N, C) mean for whoever validates and predicts."""

    score: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """Validation loss of (outputs, targets) over all rows, float64, without smoothing or class weights."""
    predictions: Callable[[torch.Tensor], np.ndarray]
    """Outputs as metrics and people want them: probabilities, or values in the target's own scale."""
    actual: Callable[[torch.Tensor], np.ndarray]
    """Targets in the same scale."""


CLASSES = Outputs(
    score=functional.cross_entropy,
    predictions=lambda logits: logits.double().softmax(dim=1).numpy(),
    actual=lambda targets: targets.numpy(),
)
"""Logits of classes, and class numbers as targets."""


def values(log: bool) -> Outputs:
    """Outputs that are numbers; with `log` those of log(1 + number)."""

    def restore(tensor: torch.Tensor) -> np.ndarray:
        restored: np.ndarray = (tensor.double().expm1() if log else tensor.double()).numpy()
        return restored

    return Outputs(score=functional.mse_loss, predictions=restore, actual=restore)


def squared_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean squared error of outputs (B, T) and targets (B, T): on a log target the error of ratios."""
    return functional.mse_loss(outputs.float(), targets)


def balanced_weights(targets: np.ndarray, classes: int) -> torch.Tensor:
    """Weights (C,) float32 inverse to the classes' frequencies, with mean 1 over the rows."""
    counts = np.bincount(targets, minlength=classes)
    return torch.tensor(len(targets) / (classes * np.maximum(counts, 1)), dtype=torch.float32)


def cross_entropy(optimizer: OptimizerSpec, train_targets: np.ndarray, classes: int, device: torch.device) -> Loss:
    """Cross entropy with the spec's label smoothing and class weights, for training.

    Parameters
    ----------
    optimizer
        Reads `label_smoothing` and `class_weights`.
    train_targets
        Targets of the training rows, (N,) int64: class weights are their inverse frequencies.
    classes
        Number of classes.
    device
        Where the loss is computed.
    """
    weight = None
    if optimizer.class_weights == "balanced":
        weight = balanced_weights(train_targets, classes).to(device)

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(
            logits.float(), targets, weight=weight, label_smoothing=optimizer.label_smoothing
        )

    return loss
