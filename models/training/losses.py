"""The loss that follows from the targets."""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from models.specs import OptimizerSpec

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(logits (B, C) float, targets (B,) int64) -> mean loss, a scalar."""


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
