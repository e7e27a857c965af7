"""Which of the models that a training can end with is kept."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unfreeze.models.intervals import standard_error
from unfreeze.models.training.metrics import Metric
from unfreeze.models.training_data import Candidate


class Compared(NamedTuple):
    """A candidate on the validation rows.

    Attributes
    ----------
    candidate
        The model.
    loss
        Its validation loss.
    predictions
        For every validation row, see `Target.predictions`.
    """

    candidate: Candidate
    loss: float
    predictions: np.ndarray


class Choice(NamedTuple):
    """The model that is kept, and what was decided, in words."""

    kept: Compared
    verdict: str


def choose_model(
    compared: Sequence[Compared], loss: Metric, actual: np.ndarray, blocks: np.ndarray | None = None
) -> Choice | None:
    """The model with the lowest validation loss, unless it is no better than one that never saw the validation rows.

    A network is stopped where its validation loss is lowest, which flatters it on few rows. So where the lowest loss is
    that of such a model, it is kept only if it is below the best of those `Candidate.untuned` by more than one standard
    error of their difference: the one-standard-error rule of Breiman et al., "Classification and Regression Trees",
    1984, section 3.4.3.

    Parameters
    ----------
    compared
        All models, the network as it was trained first.
    loss
        Of predictions and actual targets.
    actual
        Targets of the validation rows.
    blocks
        As for `intervals`.

    Returns
    -------
    Choice or None
        None if no loss is finite.
    """
    finite = [each for each in compared if math.isfinite(each.loss)]
    if not finite:
        return None
    best, trained = min(finite, key=lambda each: each.loss), compared[0]
    untuned = min((each for each in finite if each.candidate.untuned), key=lambda each: each.loss, default=best)
    if not best.candidate.untuned and untuned is not best:
        error = standard_error(loss, best.predictions, untuned.predictions, actual, blocks)
        if untuned.loss - best.loss < error:
            return Choice(
                untuned,
                f"{untuned.candidate.name} is kept: the validation loss of {best.candidate.name}, which was stopped by "
                f"these rows, is lower by {untuned.loss - best.loss:.2g}, within the standard error of {error:.2g}",
            )
    against = "" if best is trained else f", against {trained.loss:.4g} of {trained.candidate.name}"
    return Choice(best, f"{best.candidate.name} is kept: its validation loss of {best.loss:.4g} is the lowest{against}")
