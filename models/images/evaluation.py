"""How good a classifier is: probabilities of every row, plain and averaged over views, and what follows from them."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from unfreeze.models.images.augmentation import average_views
from unfreeze.models.specs import TtaSpec
from unfreeze.models.training.batches import Batches
from unfreeze.models.training.learner import Learner

Views = Callable[[int], Batches]
"""Number of a view, 0 for the plain one -> its batches, all in the data set's row order."""


def predict_views(learner: Learner, views: Views, tta: TtaSpec) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the plain view and of test-time augmentation.

    Returns
    -------
    tuple of numpy.ndarray
        Plain and averaged probabilities, each (N, C) float64 in the data set's row order.
    """

    def probabilities(view: int) -> np.ndarray:
        logits, _ = learner.predict(views(view))
        return learner.target.predictions(logits)

    plain = probabilities(0)
    return plain, average_views(plain, [probabilities(view) for view in range(1, tta.n_aug + 1)], tta.beta)


def error_reduction(plain_accuracy: float, tta_accuracy: float) -> float:
    """Share of the plain view's errors that test-time augmentation removes; negative where it adds errors, 0 of 0."""
    error = 1 - plain_accuracy
    return (tta_accuracy - plain_accuracy) / error if error > 0 else 0.0


def row_losses(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Cross entropy of every row, (N,) float64, from probabilities (N, C)."""
    chosen = probabilities[np.arange(len(targets)), targets]
    losses: np.ndarray = -np.log(np.maximum(chosen, np.finfo(np.float64).tiny))
    return losses


def predictions_table(
    paths: Sequence[str], targets: np.ndarray, plain: np.ndarray, averaged: np.ndarray, classes: Sequence[str]
) -> pd.DataFrame:
    """One row per validation image: path, label, predictions plain and with TTA, the loss, every probability.

    Columns ``path``, ``label``, ``predicted``, ``probability``, ``predicted_tta``, ``probability_tta``, ``loss`` (of
    the plain view) and ``p(CLASS)`` (plain) and ``p_tta(CLASS)`` per class.
    """
    names = np.asarray(classes)
    table = {
        "path": list(paths),
        "label": names[targets],
        "predicted": names[plain.argmax(1)],
        "probability": plain.max(1),
        "predicted_tta": names[averaged.argmax(1)],
        "probability_tta": averaged.max(1),
        "loss": row_losses(plain, targets),
    }
    columns = {f"p({name})": plain[:, number] for number, name in enumerate(classes)}
    columns |= {f"p_tta({name})": averaged[:, number] for number, name in enumerate(classes)}
    return pd.DataFrame({**table, **columns})
