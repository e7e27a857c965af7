"""Training losses by name; add a new one as a function here."""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from unfreeze.models.settings import OptimizerSpec

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(outputs (B, C) float, targets (B,) int64 or (B, C) float) -> mean loss, a scalar."""
MakeLoss = Callable[[OptimizerSpec, np.ndarray, int, torch.device], Loss]
"""(settings, targets of the training rows, number of outputs, device) -> loss."""


def balanced_weights(targets: np.ndarray, classes: int) -> torch.Tensor:
    """Weights (C,) float32, inverse to class frequencies in `targets` (N,), with mean 1 over the rows."""
    counts = np.bincount(targets, minlength=classes)
    return torch.tensor(len(targets) / (classes * np.maximum(counts, 1)), dtype=torch.float32)


def _class_weights(
    settings: OptimizerSpec, targets: np.ndarray, classes: int, device: torch.device
) -> torch.Tensor | None:
    return balanced_weights(targets, classes).to(device) if settings.class_weights == "balanced" else None


def cross_entropy(settings: OptimizerSpec, targets: np.ndarray, classes: int, device: torch.device) -> Loss:
    """Cross entropy with the spec's label smoothing and class weights."""
    weight = _class_weights(settings, targets, classes, device)

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        smoothing = settings.label_smoothing or 0.0
        return functional.cross_entropy(logits.float(), targets, weight=weight, label_smoothing=smoothing)

    return loss


def focal(settings: OptimizerSpec, targets: np.ndarray, classes: int, device: torch.device) -> Loss:
    """Focal loss with gamma 2, which down-weights confidently right rows (Lin et al., 2017)."""
    weight = _class_weights(settings, targets, classes, device)

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        rows = functional.cross_entropy(logits.float(), targets, reduction="none")
        if weight is None:
            counts = torch.ones_like(rows)
        else:  # mixed targets (B, C) are shares of classes
            counts = targets @ weight if targets.is_floating_point() else weight[targets]
        return (counts * (1 - torch.exp(-rows)).square() * rows).sum() / counts.sum()

    return loss


def squared_error(settings: OptimizerSpec, targets: np.ndarray, outputs: int, device: torch.device) -> Loss:
    """Mean squared error of outputs (B, T) in units of the targets' variances; on a log target, of ratios."""
    deviations = torch.tensor(np.std(targets, axis=0, dtype=np.float64), dtype=torch.float32, device=device)
    deviations = deviations.where(deviations > 0, 1.0)
    return lambda outputs, targets: functional.mse_loss(outputs.float() / deviations, targets / deviations)


def binary_cross_entropy(settings: OptimizerSpec, targets: np.ndarray, outputs: int, device: torch.device) -> Loss:
    """Binary cross entropy, averaged over logits (B, L) and labels (B, L) of 0 and 1.

    Label smoothing moves the labels towards one half, as with two classes.
    """
    smoothing = settings.label_smoothing or 0.0

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        wanted = targets.float() * (1 - smoothing) + smoothing / 2
        return functional.binary_cross_entropy_with_logits(logits.float(), wanted)

    return loss


LOSSES: dict[str, MakeLoss] = {
    "cross_entropy": cross_entropy,
    "focal": focal,
    "binary_cross_entropy": binary_cross_entropy,
    "squared_error": squared_error,
}
"""Name in `optimizer.loss` -> factory of the loss."""
MADE_FOR = {
    "cross_entropy": "classification",
    "focal": "classification",
    "binary_cross_entropy": "multi-label classification",
    "squared_error": "regression",
}
"""Name -> the only task it fits; losses not listed here fit any."""
