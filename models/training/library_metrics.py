"""Metrics of torchmetrics by name: ``torchmetrics:auroc``."""

import difflib
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from unfreeze.models.errors import UserError

LIBRARY = "torchmetrics"


def library_metric(function: str, task: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """A function of ``torchmetrics.functional`` as a metric of predictions (N, C) and actual targets.

    Parameters
    ----------
    function
        Its name. One that takes a ``task`` is told whether there is one class per row or several labels.
    task
        As for `unfreeze.models.training.metrics.pick_metrics`; several with ``or`` between them.

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
