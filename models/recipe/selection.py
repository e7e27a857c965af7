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


class Selection(NamedTuple):
    """The model that is kept, and the decision in a sentence."""

    kept: Compared
    verdict: str


class Criterion(NamedTuple):
    """Metric that models are selected by.

    Attributes
    ----------
    name
        The metric's.
    metric
        Of predictions and actual targets.
    cost
        What is to be low: `metric` or its negative; of the loss `Target.cautious_loss`.
    """

    name: str
    metric: Metric
    cost: Metric


def criterion_of(target: Target, select: str) -> Criterion:
    """The criterion that ``select`` names.

    Raises
    ------
    UserError
        For a metric that does not fit the target; names those that do.
    """
    if select == "loss":
        return Criterion("loss", target.loss_of, target.cautious_loss)
    metric = choose({"loss": target.loss_of, **target.selectable()}, select, "select")
    sign = 1 if select in LOWER_IS_BETTER else -1
    return Criterion(select, metric, lambda predictions, actual: sign * metric(predictions, actual))


def select_model(
    compared: Sequence[Compared], criterion: Criterion, actual: np.ndarray, blocks: np.ndarray | None = None
) -> Selection | None:
    """The best model on the validation rows, unless a more cautious one is as good.

    A network may have been stopped where its validation loss is lowest, which flatters it on few rows; and predictions
    that are nearer to the pretrained network's do better on other rows than on these. So a model that is better by no
    more than `Candidate.margin` standard errors of their difference leaves the place to that one, after the rule of one
    standard error of Breiman et al., "Classification and Regression Trees", 1984, section 3.4.3.

    Parameters
    ----------
    compared
        All models, the network as it was trained first.
    criterion
        What they are selected by; between equal ones their loss decides.
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
