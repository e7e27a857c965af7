"""How good a classifier is: probabilities of every row, plain and averaged over views, and what follows from them."""

from collections.abc import Callable

import numpy as np

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
