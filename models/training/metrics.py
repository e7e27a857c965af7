"""Metrics by name, computed on all predictions at once, never averaged over batches."""

import importlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from sklearn import metrics as sklearn_metrics

from models.errors import UserError
from models.training.learner import Metric


def accuracy(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Share of rows whose most probable class is right."""
    return float((probabilities.argmax(1) == targets).mean())


def _of_classes(score: Callable[..., float], **settings: object) -> Metric:
    return lambda probabilities, targets: float(score(targets, probabilities.argmax(1), **settings))


def area_under_curve(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Area under the ROC curve; with more than two classes the mean of one against the rest. NaN if one is absent."""
    if len(np.unique(targets)) < probabilities.shape[1]:
        return float("nan")
    scores = probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities
    return float(sklearn_metrics.roc_auc_score(targets, scores, multi_class="ovr"))


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "balanced_accuracy": _of_classes(sklearn_metrics.balanced_accuracy_score),
    "f1": _of_classes(sklearn_metrics.f1_score, average="macro"),
    "f2": _of_classes(sklearn_metrics.fbeta_score, beta=2, average="macro"),
    "auc": area_under_curve,
    "kappa": _of_classes(sklearn_metrics.cohen_kappa_score, weights="quadratic"),
}


def pick_metrics(names: Sequence[str]) -> dict[str, Metric]:
    """The named metrics, accuracy always first.

    Parameters
    ----------
    names
        Names in `METRICS`, or ``package.module:function`` for one's own, called with probabilities (N, C) float64 and
        targets (N,) int64.

    Raises
    ------
    UserError
        For a name that is neither.
    """
    chosen: dict[str, Metric] = {"accuracy": accuracy}
    for name in names:
        if name in METRICS:
            chosen[name] = METRICS[name]
            continue
        function, metric = own_metric(name, METRICS)
        chosen[function] = metric
    return chosen


def own_metric(name: str, known: Iterable[str]) -> tuple[str, Metric]:
    """Import the metric that ``package.module:function`` names; returns the function's name and the function.

    Raises
    ------
    UserError
        If it cannot be imported or called; the message lists the `known` names.
    """
    module, _, function = name.partition(":")
    try:
        metric: Metric = getattr(importlib.import_module(module), function)
        if not callable(metric):
            raise TypeError(f"{function} cannot be called")
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"metrics: {name!r} is none of {', '.join(known)}, nor an importable `module:function` ({error})"
        ) from error
    return function, metric
