"""Metrics of a table's predictions by name, computed on all rows at once."""

from collections.abc import Sequence

import numpy as np
from sklearn import metrics as sklearn_metrics

from unfreeze.models.errors import UserError
from unfreeze.models.training.learner import Metric
from unfreeze.models.training.metrics import accuracy, area_under_curve, own_metric


def rmspe(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Root mean squared percentage error, as a share; rows with target 0 are ignored (Rossmann competition).

    NaN if all targets are 0.
    """
    predictions = predictions.reshape(targets.shape)
    counted = targets != 0
    if not counted.any():
        return float("nan")
    known = targets[counted].astype(np.float64)
    return float(np.sqrt(np.mean(np.square((known - predictions[counted]) / known))))


def rmse(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Root mean squared error; with several targets the mean of theirs."""
    return float(sklearn_metrics.root_mean_squared_error(targets, predictions.reshape(targets.shape)))


def mae(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Mean absolute error; with several targets the mean of theirs."""
    return float(sklearn_metrics.mean_absolute_error(targets, predictions.reshape(targets.shape)))


def r2(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Share of the variance explained; with several targets the mean of theirs. NaN for a single row."""
    if len(targets) < 2:
        return float("nan")
    return float(sklearn_metrics.r2_score(targets, predictions.reshape(targets.shape)))


def log_loss(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Mean negative logarithm of the right class's probability."""
    scores = probabilities.astype(np.float64)
    scores /= scores.sum(axis=1, keepdims=True)  # float32 adds up to 1 only nearly, of which scikit-learn warns
    return float(sklearn_metrics.log_loss(targets, scores, labels=np.arange(scores.shape[1])))


METRICS: dict[str, dict[str, Metric]] = {
    "regression": {"rmspe": rmspe, "rmse": rmse, "mae": mae, "r2": r2},
    "classification": {"accuracy": accuracy, "auc": area_under_curve, "log_loss": log_loss},
}


def table_metrics(task: str, names: Sequence[str]) -> dict[str, Metric]:
    """The named metrics, or without names all that fit the task.

    Parameters
    ----------
    task
        ``regression`` or ``classification``.
    names
        Names in `METRICS` of the task, or ``package.module:function`` for one's own. Called with predictions and
        targets: values (N, T) in their own scale, or probabilities (N, C) and class numbers (N,) int64.

    Raises
    ------
    UserError
        For a name that is neither, or that belongs to the other task.
    """
    known = METRICS[task]
    chosen: dict[str, Metric] = {}
    for name in names or known:
        if name in known:
            chosen[name] = known[name]
        elif any(name in others for others in METRICS.values()):
            raise UserError(f"metrics: {name!r} does not fit {task}; choose among {', '.join(known)}")
        else:
            function, metric = own_metric(name, known)
            chosen[function] = metric
    return chosen


def check_table_metrics(task: str, names: Sequence[str]) -> None:
    """Refuse names that `table_metrics` will refuse; with the task ``auto``, those that fit neither.

    Raises
    ------
    UserError
        As `table_metrics` does.
    """
    if task != "auto":
        table_metrics(task, names)
        return
    known = list(dict.fromkeys(name for metrics in METRICS.values() for name in metrics))
    for name in names:
        if name not in known:
            own_metric(name, known)
