"""Metrics by name, computed on all predictions at once rather than averaged over batches."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.stats import rankdata
from sklearn import metrics as sklearn_metrics

from unfreeze.models.errors import UserError
from unfreeze.models.own_parts import own_part

Metric = Callable[[np.ndarray, np.ndarray], float]
"""(probabilities (N, C) float64, targets (N,) int64), or (values (N, T), targets (N, T)), or (probabilities (N, L),
labels (N, L) bool) -> a number over all rows."""
LabelMetric = Callable[[np.ndarray, np.ndarray, np.ndarray], float]
"""(probabilities (N, L) float64, answers (N, L) bool, actual labels (N, L) bool) -> a number over all rows."""


class ShareOfRows:
    """Share of rows where `holds` is True, (N,) bool; `holds` has the metric's arguments."""

    def __init__(self, holds: Callable[..., np.ndarray]) -> None:
        self.holds = holds

    def __call__(self, *arrays: np.ndarray) -> float:
        """Compute the share."""
        return float(self.holds(*arrays).mean())


accuracy = ShareOfRows(lambda probabilities, targets: probabilities.argmax(1) == targets)
"""Share of rows whose most probable class is right."""


def _of_classes(score: Callable[..., float], **settings: object) -> Metric:
    return lambda probabilities, targets: float(score(targets, probabilities.argmax(1), **settings))


def area_under_curve(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Area under the ROC curve, one against the rest with more than two classes. NaN if a class is absent."""
    if len(np.unique(targets)) < probabilities.shape[1]:
        return float("nan")
    scores = probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities
    return float(sklearn_metrics.roc_auc_score(targets, scores, multi_class="ovr"))


def log_loss(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Mean negative logarithm of the right class's probability."""
    scores = probabilities.astype(np.float64)
    scores /= scores.sum(axis=1, keepdims=True)  # float32 sums are not exactly 1: scikit-learn would warn
    return float(sklearn_metrics.log_loss(targets, scores, labels=np.arange(scores.shape[1])))


def rmspe(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Root mean squared percentage error, as a share, over rows with a target other than 0 (Rossmann competition)."""
    predictions = predictions.reshape(targets.shape)
    counted = targets != 0
    if not counted.any():
        return float("nan")
    known = targets[counted].astype(np.float64)
    return float(np.sqrt(np.mean(np.square((known - predictions[counted]) / known))))


def rmse(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Root mean squared error, averaged over targets; scikit-learn's checks would dominate a bootstrap."""
    return float(np.sqrt(np.square(targets - predictions.reshape(targets.shape)).mean(axis=0)).mean())


def mae(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Mean absolute error, averaged over targets."""
    return float(np.abs(targets - predictions.reshape(targets.shape)).mean(axis=0).mean())


def r2(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Coefficient of determination, averaged over targets; NaN for a single row."""
    if len(targets) < 2:
        return float("nan")
    return float(sklearn_metrics.r2_score(targets, predictions.reshape(targets.shape)))


CLASS_METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "balanced_accuracy": _of_classes(sklearn_metrics.balanced_accuracy_score),
    "f1": _of_classes(sklearn_metrics.f1_score, average="macro"),
    "f2": _of_classes(sklearn_metrics.fbeta_score, beta=2, average="macro"),
    "auc": area_under_curve,
    "kappa": _of_classes(sklearn_metrics.cohen_kappa_score, weights="quadratic"),
    "log_loss": log_loss,
    "mcc": _of_classes(sklearn_metrics.matthews_corrcoef),
}
"""Metrics of probabilities and classes."""
VALUE_METRICS: dict[str, Metric] = {"rmspe": rmspe, "rmse": rmse, "mae": mae, "r2": r2}
"""Metrics of values in the targets' own scale."""


def fbeta_of_labels(answers: np.ndarray, actual: np.ndarray, beta: float = 1.0) -> np.ndarray:
    """F-beta of every label, (L,) float64; NaN if no row of `actual` has it."""
    right, said, known = (answers & actual).sum(0), answers.sum(0), actual.sum(0)
    weight = beta**2
    return np.where(known > 0, (1 + weight) * right / np.maximum(weight * known + said, 1), np.nan)


def fbeta_of_rows(answers: np.ndarray, actual: np.ndarray, beta: float = 1.0) -> np.ndarray:
    """F-beta of the labels of every row, (N,) float64; 1 if a row has no labels and none are predicted."""
    right, said, known = (answers & actual).sum(1), answers.sum(1), actual.sum(1)
    weight = beta**2
    return np.where(said + known > 0, (1 + weight) * right / np.maximum(weight * known + said, 1), 1.0)


def average_precisions(probabilities: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Average precision of every label, (L,) float64; NaN if no row has it.

    Vectorised, since scikit-learn's function takes a millisecond per label and a bootstrap calls it thousands of times.
    Ties are treated as there.
    """
    rows = np.arange(len(actual))[:, None]
    order = np.argsort(-probabilities, axis=0, kind="stable")
    ranked, known = (np.take_along_axis(each, order, axis=0) for each in (probabilities, actual))
    is_last = np.ones(ranked.shape, dtype=bool)
    is_last[:-1] = ranked[1:] < ranked[:-1]
    last = np.minimum.accumulate(np.where(is_last, rows, len(rows))[::-1], axis=0)[::-1]
    precision = np.take_along_axis(known.cumsum(axis=0), last, axis=0) / (last + 1)
    return _ratio((known * precision).sum(axis=0), known.sum(axis=0))


def areas_under_curve(probabilities: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of every label, (L,) float64; NaN if no row, or every row, has it.

    Vectorised, from the rank sums of the rows with the label (Mann and Whitney 1947).
    """
    ranks = rankdata(probabilities, axis=0)
    known = actual.sum(axis=0)
    above = (ranks * actual).sum(axis=0) - known * (known + 1) / 2
    return _ratio(above, known * (len(actual) - known))


def _ratio(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    ratios: np.ndarray = np.divide(values, counts, out=np.full(len(values), np.nan), where=counts > 0)
    return ratios


def binary_losses(probabilities: np.ndarray, actual: np.ndarray, smallest: float = 1e-7) -> np.ndarray:
    """Cross entropy of every label of every row, (N, L) float64; probabilities are clipped to `smallest` from below."""
    chosen = np.where(actual, probabilities, 1 - probabilities)
    losses: np.ndarray = -np.log(np.clip(chosen, smallest, 1))
    return losses


def _mean(values: np.ndarray) -> float:
    """Mean of the finite values, NaN without any."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def mean_f1_of_labels(answers: np.ndarray, actual: np.ndarray) -> float:
    """Mean F1 over the labels that any row has."""
    return _mean(fbeta_of_labels(answers, actual))


def _f1_micro(probabilities: np.ndarray, answers: np.ndarray, actual: np.ndarray) -> float:
    return float(2 * (answers & actual).sum() / max(answers.sum() + actual.sum(), 1))


LABEL_METRICS: dict[str, LabelMetric] = {
    "accuracy": ShareOfRows(lambda probabilities, answers, actual: (answers == actual).all(1)),
    "f1": lambda probabilities, answers, actual: mean_f1_of_labels(answers, actual),
    "f2": lambda probabilities, answers, actual: _mean(fbeta_of_labels(answers, actual, 2)),
    "f1_micro": _f1_micro,
    "f1_rows": lambda probabilities, answers, actual: float(fbeta_of_rows(answers, actual).mean()),
    "f2_rows": lambda probabilities, answers, actual: float(fbeta_of_rows(answers, actual, 2).mean()),
    "map": lambda probabilities, answers, actual: _mean(average_precisions(probabilities, actual)),
    "auc": lambda probabilities, answers, actual: _mean(areas_under_curve(probabilities, actual)),
    "log_loss": lambda probabilities, answers, actual: float(binary_losses(probabilities, actual).mean()),
}
"""`accuracy` is the share of rows with all labels right. F1 and F2 are means over labels, with `_rows` over rows;
`f1_micro` is over all decisions. Average precision (`map`), area under the curve and log loss are means over labels."""


def pick_metrics(names: Sequence[str], known: Mapping[str, Metric], task: str) -> dict[str, Metric]:
    """Look up metrics by name.

    Parameters
    ----------
    names
        Names in `known`, or ``file.py:function`` for one of the user's own.
    known
        `CLASS_METRICS`, `LABEL_METRICS` with thresholds applied, or `VALUE_METRICS`.
    task
        The task, for error messages: ``classification``, ``multi-label classification`` or ``regression``.

    Raises
    ------
    UserError
        For an unknown name, or a metric of another task.
    """
    chosen: dict[str, Metric] = {}
    for name in names:
        if name in known:
            chosen[name] = known[name]
        elif name in {*CLASS_METRICS, *LABEL_METRICS, *VALUE_METRICS}:
            raise UserError(f"metrics: {name!r} does not fit {task}; choose among {', '.join(known)}")
        else:
            function, metric = own_part("metrics", name, known)
            chosen[function] = metric
    return chosen
