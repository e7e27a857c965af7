"""Metrics by name, computed on all predictions at once, never averaged over batches."""

import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from sklearn import metrics as sklearn_metrics

from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.label_metrics import LABEL_METRICS
from unfreeze.models.evaluation.shares import ShareOfRows

Metric = Callable[[np.ndarray, np.ndarray], float]
"""(probabilities (N, C) float64, targets (N,) int64), or (values (N, T), targets (N, T)), or (probabilities (N, L),
labels (N, L) bool) -> a number over all rows."""


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
    scores /= scores.sum(axis=1, keepdims=True)  # float32 adds up to 1 only nearly, of which scikit-learn warns
    return float(sklearn_metrics.log_loss(targets, scores, labels=np.arange(scores.shape[1])))


def rmspe(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Root mean squared percentage error, as a share, over rows with a target other than 0 (Rossmann competition)."""
    predictions = predictions.reshape(targets.shape)
    counted = targets != 0
    if not counted.any():
        return float("nan")
    known = targets[counted].astype(np.float64)
    return float(np.sqrt(np.mean(np.square((known - predictions[counted]) / known))))


def _of_values(score: Callable[..., float], rows: int = 1) -> Metric:
    """A metric of values; with several targets the mean of theirs, NaN for fewer rows than it needs."""

    def metric(predictions: np.ndarray, targets: np.ndarray) -> float:
        return float(score(targets, predictions.reshape(targets.shape))) if len(targets) >= rows else float("nan")

    return metric


rmse = _of_values(sklearn_metrics.root_mean_squared_error)
mae = _of_values(sklearn_metrics.mean_absolute_error)
r2 = _of_values(sklearn_metrics.r2_score, rows=2)

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
"""Of probabilities and classes."""
VALUE_METRICS: dict[str, Metric] = {"rmspe": rmspe, "rmse": rmse, "mae": mae, "r2": r2}
"""Of values in the targets' own scale."""


def pick_metrics(names: Sequence[str], known: Mapping[str, Metric], task: str) -> dict[str, Metric]:
    """The named metrics of a task.

    Parameters
    ----------
    names
        Names in `known`, ``torchmetrics:FUNCTION``, or ``package.module:function`` for one's own.
    known
        `CLASS_METRICS`, those of `LABEL_METRICS` with their thresholds, or `VALUE_METRICS`.
    task
        What they measure, for errors: ``classification``, ``multi-label classification`` or ``regression``.

    Raises
    ------
    UserError
        For a name that is neither, or that belongs to the other task.
    """
    chosen: dict[str, Metric] = {}
    for name in names:
        if name in known:
            chosen[name] = known[name]
        elif name in {*CLASS_METRICS, *LABEL_METRICS, *VALUE_METRICS}:
            raise UserError(f"metrics: {name!r} does not fit {task}; choose among {', '.join(known)}")
        elif name.partition(":")[0] == LIBRARY and ":" in name:
            function = name.partition(":")[2]
            chosen[function] = library_metric(function, task)
        else:
            function, metric = own_metric(name, known)
            chosen[function] = metric
    return chosen


def own_metric(name: str, known: Collection[str]) -> tuple[str, Metric]:
    """Import the metric that ``package.module:function`` names; returns the function's name and the function.

    The working folder is searched after Python's own import path, whichever way the program was started.

    Raises
    ------
    UserError
        If it cannot be imported or called; says what was looked for and where, or lists the `known` names.
    """
    module, colon, function = name.partition(":")
    if not (colon and function.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(
            f"metrics: {name!r} is not one of {', '.join(known)}, nor a `package.module:function` of your own{hint}"
        )
    imported = _imported(module, name)
    metric: Metric | None = getattr(imported, function, None)
    if callable(metric):
        return function, metric
    where = getattr(imported, "__file__", None) or module
    if metric is not None:
        raise UserError(f"metrics: {name!r}: {function} in {where} cannot be called; name a function")
    functions = [each for each, value in vars(imported).items() if callable(value) and not each.startswith("_")]
    close = difflib.get_close_matches(function, functions, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise UserError(f"metrics: {name!r}: there is no function {function} in {where}{hint}")


def _imported(module: str, name: str) -> ModuleType:
    folder = Path.cwd()
    if not {"", str(folder)} & set(sys.path):
        sys.path.append(str(folder))  # for good: what the module imports later must be found as well
    importlib.invalidate_caches()  # the file may be newer than the last look at its folder
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise UserError(
                f"metrics: {name!r}: there is no module {error.name}; looked for {error.name.replace('.', '/')}.py in "
                f"the working folder {folder} and on Python's import path; put the file there, or its folder into "
                "PYTHONPATH of the process that trains"
            ) from error
        raise _failed(module, name, error) from error
    except (Exception, SystemExit) as error:  # importing runs the file, in which anything may go wrong
        raise _failed(module, name, error) from error


def _failed(module: str, name: str, error: BaseException) -> UserError:
    spec = importlib.util.find_spec(module.split(".", maxsplit=1)[0])
    where = spec.origin if spec is not None and spec.origin is not None else module
    detail = " ".join(str(error).split())
    return UserError(f"metrics: {name!r}: importing {where} failed: {type(error).__name__}: {detail}; mend the module")


LIBRARY = "torchmetrics"


def library_metric(function: str, task: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """A function of ``torchmetrics.functional`` as a metric of predictions (N, C) and actual targets.

    Parameters
    ----------
    function
        Its name. One that takes a ``task`` is told whether there is one class per row or several labels.
    task
        As for `unfreeze.models.evaluation.metrics.pick_metrics`; several with ``or`` between them.

    Raises
    ------
    UserError
        If torchmetrics is not installed, has no such function, or the function is for other targets.
    """
    try:
        functional = importlib.import_module(f"{LIBRARY}.functional")
    except ModuleNotFoundError as error:
        raise UserError(
            f"metrics: '{LIBRARY}:{function}' needs torchmetrics: pip install 'unfreeze[metrics]'"
        ) from error
    known = [name for name in functional.__all__ if callable(getattr(functional, name))]
    if function not in known:
        close = difflib.get_close_matches(function, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"metrics: torchmetrics.functional has no {function!r}{hint}")
    measure = getattr(functional, function)
    classifies = "task" in inspect.signature(measure).parameters
    if task == "regression" if classifies else "regression" not in task:
        raise UserError(
            f"metrics: '{LIBRARY}:{function}' is for {'classes or labels' if classifies else 'numbers'}, and the task "
            f"is {task}"
        )

    def metric(predictions: np.ndarray, actual: np.ndarray) -> float:
        given, wanted = torch.from_numpy(predictions), torch.from_numpy(np.asarray(actual))
        options: dict[str, Any] = {}
        if classifies and wanted.ndim == 2:
            options, wanted = {"task": "multilabel", "num_labels": given.shape[1]}, wanted.long()
        elif classifies:
            options = {"task": "multiclass", "num_classes": given.shape[1]}
        elif given.ndim == 2 and given.shape[1] == 1:
            given, wanted = given.flatten(), wanted.flatten()
        return float(measure(given, wanted, **options))

    return metric
