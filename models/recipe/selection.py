"""Model selection: which candidate of a training is kept."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unfreeze.models.errors import choose
from unfreeze.models.evaluation.intervals import standard_error
from unfreeze.models.evaluation.metrics import Metric
from unfreeze.models.recipe.training_data import Candidate
from unfreeze.models.settings.search import LOWER_IS_BETTER
from unfreeze.models.targets import Target


class Compared(NamedTuple):
    """Candidate with its validation results.

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


class Selection(NamedTuple):
    """Kept model, and the decision in a sentence."""

    kept: Compared
    verdict: str


class Criterion(NamedTuple):
    """Metric for model selection.

    Attributes
    ----------
    name
        The metric's.
    metric
        Function of predictions and actual targets.
    cost
        Lower is better: `metric` or its negative; for the loss `Target.cautious_loss`.
    """

    name: str
    metric: Metric
    cost: Metric


def criterion_of(target: Target, select: str) -> Criterion:
    """Look up the criterion for ``select``.

    Raises
    ------
    UserError
        For a metric that does not fit the target; lists those that do.
    """
    if select == "loss":
        return Criterion("loss", target.loss_of, target.cautious_loss)
    metric = choose({"loss": target.loss_of, **target.selectable()}, select, "select")
    sign = 1 if select in LOWER_IS_BETTER else -1
    return Criterion(select, metric, lambda predictions, actual: sign * metric(predictions, actual))


def select_model(
    compared: Sequence[Compared], criterion: Criterion, actual: np.ndarray, blocks: np.ndarray | None = None
) -> Selection | None:
    """Select the best model on the validation rows, or a more cautious one that is as good.

    Early stopping at the lowest validation loss flatters a network on few rows, and predictions nearer to the
    pretrained network's do better on new rows than on these. So a candidate with a `margin` is preferred if the best
    model beats it by at most `margin` standard errors of their difference: the one-standard-error rule of Breiman et
    al., "Classification and Regression Trees", 1984, section 3.4.3.

    Parameters
    ----------
    compared
        All models, the network as trained first.
    criterion
        Metric to select by; the loss breaks ties.
    actual
        Targets of the validation rows.
    blocks
        As for `intervals`.

    Returns
    -------
    Selection or None
        None if no loss is finite.
    """
    costs = {id(each): criterion.cost(each.predictions, actual) for each in compared if math.isfinite(each.loss)}
    finite = sorted((each for each in compared if id(each) in costs), key=lambda each: (costs[id(each)], each.loss))
    if not finite:
        return None
    best, trained = finite[0], compared[0]
    shown = {id(each): f"{criterion.metric(each.predictions, actual):.4g}" for each in finite}
    for each in (each for each in finite if each.candidate.margin and not best.candidate.margin):
        error = standard_error(criterion.cost, best.predictions, each.predictions, actual, blocks)
        difference, margin = costs[id(each)] - costs[id(best)], each.candidate.margin
        if difference <= margin * error:
            return Selection(
                each,
                f"{each.candidate.name} is kept: the validation {criterion.name} of {best.candidate.name} is better by "
                f"{difference:.2g}{', one more row counted that is wrong,' if each.loss < best.loss else ','} within "
                f"{margin:g} standard error{'s' * (margin != 1)} ({error:.2g} each)",
            )
    verdict = f"{best.candidate.name} is kept: its validation {criterion.name} of {shown[id(best)]} is the best"
    if criterion.name == "loss" and best.loss > min(each.loss for each in finite):
        verdict += ", one more row counted that is wrong"
    if best is not trained and id(trained) in shown:
        verdict += f", against {shown[id(trained)]} of {trained.candidate.name}"
    return Selection(best, verdict)
