"""What is predicted: one class per way that targets can be, with everything that follows from it.

A target knows its loss and activation, its metrics, the columns of its predictions, what a report shows of its errors,
and how two models are compared on it. Nothing else in the project asks "classes or numbers?".
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch.nn import functional

from unfreeze.models.calibration import (
    calibration_error_by_chance,
    expected_calibration_error,
    reliability,
    temperature,
)
from unfreeze.models.comparison import Comparison, compare_classes, compare_values
from unfreeze.models.errors import choose
from unfreeze.models.findings import Chart, Counts, Findings
from unfreeze.models.label_errors import LabelErrors, find_label_errors
from unfreeze.models.plots import plot_confusion, plot_residuals
from unfreeze.models.sampling import sample_rows
from unfreeze.models.specs import OptimizerSpec
from unfreeze.models.training.losses import LOSSES, Loss
from unfreeze.models.training.metrics import CLASS_METRICS, VALUE_METRICS, Metric, pick_metrics

Category = str | bool | int | float
SMALLEST_PROBABILITY = 1e-7
"""One row that a model is wrong about with certainty must not decide between models."""
MOST_DRAWN = 100_000
"""Rows whose residuals are drawn, at most: a random part of more."""
MOST_CLASSES_COUNTED = 20
"""Classes whose confusion is a table of numbers; that of more is an image."""


def mean_in_order(members: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of arrays of one shape, added up one after another: `numpy.mean` takes another order if there is one row."""
    return np.asarray(reduce(np.add, members) / len(members))


class Target(ABC):
    """One way that targets can be; registered by `name` in `TARGETS`."""

    name: ClassVar[str]
    task: ClassVar[str]
    default_loss: ClassVar[str]
    known_metrics: ClassVar[Mapping[str, Metric]]
    default_metrics: ClassVar[Sequence[str]]

    classes: Sequence[Category] = ()
    """Names of the classes in the order of the outputs; empty for numbers."""
    columns: Sequence[str] = ()
    """Names of the numbers in the order of the outputs; empty for classes."""

    @property
    def outputs(self) -> int:
        """Width of the network's last layer."""
        return len(self.classes) or len(self.columns)

    def loss(self, settings: OptimizerSpec, targets: np.ndarray, device: torch.device) -> Loss:
        """Training loss; `targets` are those of the training rows, (N,) or (N, T)."""
        name = self.default_loss if settings.loss == "auto" else settings.loss
        return choose(LOSSES, name, "optimizer.loss")(settings, targets, self.outputs, device)

    def metrics(self, names: Sequence[str]) -> dict[str, Metric]:
        """The named metrics, or those that fit the target."""
        return pick_metrics(names or self.default_metrics, self.known_metrics, self.task)

    @abstractmethod
    def score(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Validation loss over all rows, a scalar float64: no smoothing, no class weights."""

    @abstractmethod
    def loss_of(self, predictions: np.ndarray, actual: np.ndarray) -> float:
        """As `score`, of what `predictions` and `actual` return."""

    @abstractmethod
    def predictions(self, outputs: torch.Tensor) -> np.ndarray:
        """Outputs (N, C) as metrics and users want them, float64: probabilities, or values in the target's scale."""

    def average(self, members: Sequence[np.ndarray]) -> np.ndarray:
        """What several models say together: the mean of their predictions (N, C), float64."""
        return mean_in_order(members)

    @abstractmethod
    def actual(self, targets: torch.Tensor) -> np.ndarray:
        """Targets in the same scale."""

    @abstractmethod
    def frame(self, predictions: np.ndarray) -> pd.DataFrame:
        """What a served model answers, one row per row."""

    @abstractmethod
    def prefixed(self, model: str, predictions: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of one model's predictions in a table of several models."""

    @abstractmethod
    def errors(self, predictions: np.ndarray, actual: np.ndarray) -> np.ndarray:
        """Size of every row's error, (N,) float64."""

    def mistaken(self, predictions: np.ndarray, actual: np.ndarray) -> np.ndarray:
        """Number of the output that made a row wrong, (N,) int64; -1 where it is right, or where none is to blame."""
        return np.full(len(actual), -1)

    def label_errors(self, predictions: np.ndarray, actual: np.ndarray) -> LabelErrors:
        """Rows that are probably labelled wrong; none where labels are no classes."""
        none = np.empty(0, np.int64)
        return LabelErrors(none, none)

    @abstractmethod
    def report(self, predictions: np.ndarray, actual: np.ndarray, section: str, dates: Any = None) -> Findings:
        """Tables and figures of where the predictions err; artifacts are below `section`."""

    @abstractmethod
    def compare(
        self,
        actual: np.ndarray,
        champion: pd.DataFrame,
        challenger: pd.DataFrame,
        *,
        margin: float = 0.0,
        blocks: Sequence[np.ndarray] = (),
    ) -> Comparison:
        """Paired test of two models' answers (see `frame`) against actual labels (N,) or numbers (N, T).

        See `compare_values` for the margin and blocks.
        """


class SingleLabel(Target):
    """One class per row.

    Parameters
    ----------
    classes
        Names of the C classes in the order of the logits.
    """

    name, task, default_loss = "single_label", "classification", "cross_entropy"
    known_metrics, default_metrics = CLASS_METRICS, ("accuracy", "auc", "log_loss")

    def __init__(self, classes: Sequence[Category] = ()) -> None:
        self.classes = list(classes)

    def score(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross entropy of logits (N, C) and classes (N,)."""
        return functional.cross_entropy(outputs.double(), targets)

    def loss_of(self, predictions: np.ndarray, actual: np.ndarray) -> float:
        """Log loss of probabilities (N, C) and class numbers (N,); a probability counts as at least 1e-7."""
        chosen = predictions[np.arange(len(actual)), actual]
        return float(-np.log(np.clip(chosen, SMALLEST_PROBABILITY, 1)).mean())

    def predictions(self, outputs: torch.Tensor) -> np.ndarray:
        """Probabilities (N, C)."""
        probabilities: np.ndarray = outputs.double().softmax(dim=1).numpy()
        return probabilities

    def actual(self, targets: torch.Tensor) -> np.ndarray:
        """Class numbers (N,)."""
        numbers: np.ndarray = targets.numpy()
        return numbers

    def frame(self, predictions: np.ndarray) -> pd.DataFrame:
        """``class``, ``probability``, and ``probabilities`` of all classes in their order."""
        top = [self.classes[number] for number in predictions.argmax(1)]
        return pd.DataFrame({"class": top, "probability": predictions.max(1), "probabilities": predictions.tolist()})

    def prefixed(self, model: str, predictions: np.ndarray) -> dict[str, np.ndarray]:
        """``MODEL_class`` and ``MODEL_probability``."""
        names = np.array([str(each) for each in self.classes])
        return {f"{model}_class": names[predictions.argmax(1)], f"{model}_probability": predictions.max(1)}

    def errors(self, predictions: np.ndarray, actual: np.ndarray) -> np.ndarray:
        """One minus the probability of the right class."""
        wrong: np.ndarray = 1 - predictions[np.arange(len(actual)), actual]
        return wrong

    def mistaken(self, predictions: np.ndarray, actual: np.ndarray) -> np.ndarray:
        """The most probable class of rows in which it is not the right one."""
        top = predictions.argmax(1)
        return np.where(top == actual, -1, top)

    def label_errors(self, predictions: np.ndarray, actual: np.ndarray) -> LabelErrors:
        """See `find_label_errors`."""
        return find_label_errors(predictions, actual)

    def report(self, predictions: np.ndarray, actual: np.ndarray, section: str, dates: Any = None) -> Findings:
        """Calibration error, temperature that would mend it, precision, recall and F1 per class, confusion matrix."""
        found, classes = Findings(), [str(each) for each in self.classes]
        found.metrics[f"{section}/ece"] = expected_calibration_error(predictions, actual)
        found.metrics[f"{section}/ece_by_chance"] = calibration_error_by_chance(predictions)
        found.metrics[f"{section}/temperature"] = temperature(predictions, actual)
        precision, recall, f1, support = precision_recall_fscore_support(
            actual, predictions.argmax(1), labels=range(len(classes)), zero_division=0
        )
        table = pd.DataFrame({"class": classes, "precision": precision, "recall": recall, "f1": f1, "rows": support})
        found.frame(f"{section}/per_class.feather", table)
        found.text(f"{section}/per_class.txt", table.to_string(index=False))
        found.table("per-class", f"Per class ({section} rows)", table.round(4))
        figure = plot_confusion(actual, predictions.argmax(1), classes, f"Confusion ({section} rows)")
        found.figure(f"{section}/confusion.png", "Confusion matrix", figure)
        if len(classes) <= MOST_CLASSES_COUNTED:
            counts = confusion_matrix(actual, predictions.argmax(1), labels=range(len(classes)))
            found.counts.append(Counts("Confusion matrix", classes, counts.tolist(), f"{section}/confusion.png"))
        bins = reliability(predictions, actual)
        found.frame(f"{section}/calibration.feather", bins)
        line = (bins["confidence"].tolist(), bins["accuracy"].tolist())
        found.charts.append(Chart("Calibration", "probability", "share that is right", {"model": line}, identity=True))
        return found

    def compare(
        self,
        actual: np.ndarray,
        champion: pd.DataFrame,
        challenger: pd.DataFrame,
        *,
        margin: float = 0.0,
        blocks: Sequence[np.ndarray] = (),
    ) -> Comparison:
        """McNemar's test on which rows each classifies right."""
        before, after = (each["class"].astype(str).to_numpy() for each in (champion, challenger))
        return compare_classes(actual.astype(str), before, after, margin=margin, blocks=blocks)


class Numbers(Target):
    """One or several numbers per row.

    Parameters
    ----------
    columns
        Names of the T numbers in the order of the outputs.
    log
        Whether the network is trained on log(1 + number), so that errors count as ratios.
    deviations
        Of the training targets, in the scale of training: the loss is in units of their squares. None: 1.
    """

    name, task, default_loss = "numbers", "regression", "squared_error"
    known_metrics, default_metrics = VALUE_METRICS, tuple(VALUE_METRICS)

    def __init__(self, columns: Sequence[str], log: bool = False, deviations: Sequence[float] | None = None) -> None:
        self.columns, self.log = list(columns), log
        self._deviations = np.array([each or 1.0 for each in deviations or [1.0] * len(self.columns)])

    def score(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean squared error of outputs and targets (N, T), in the scale of training, in units of their variances."""
        deviations = torch.from_numpy(self._deviations)
        return functional.mse_loss(outputs.double() / deviations, targets.double() / deviations)

    def loss_of(self, predictions: np.ndarray, actual: np.ndarray) -> float:
        """As `score`, of values (N, T) in their own scale."""
        if self.log:
            predictions, actual = (np.log1p(np.maximum(each, 0)) for each in (predictions, actual))
        return float(np.square((predictions - actual) / self._deviations).mean())

    def predictions(self, outputs: torch.Tensor) -> np.ndarray:
        """Values (N, T) in their own scale."""
        values: np.ndarray = (outputs.double().expm1() if self.log else outputs.double()).numpy()
        return values

    def average(self, members: Sequence[np.ndarray]) -> np.ndarray:
        """The mean in the scale of training."""
        if not self.log:
            return super().average(members)
        return np.asarray(np.expm1(super().average([np.log1p(np.maximum(each, 0)) for each in members])))

    def actual(self, targets: torch.Tensor) -> np.ndarray:
        """Values (N, T) in their own scale."""
        return self.predictions(targets)

    def frame(self, predictions: np.ndarray) -> pd.DataFrame:
        """A column per number."""
        return pd.DataFrame(predictions, columns=list(self.columns))

    def prefixed(self, model: str, predictions: np.ndarray) -> dict[str, np.ndarray]:
        """``MODEL_COLUMN`` for every number."""
        return {f"{model}_{name}": predictions[:, place] for place, name in enumerate(self.columns)}

    def errors(self, predictions: np.ndarray, actual: np.ndarray) -> np.ndarray:
        """The largest absolute error of a row's numbers."""
        largest: np.ndarray = np.abs(predictions - actual).max(1)
        return largest

    def report(self, predictions: np.ndarray, actual: np.ndarray, section: str, dates: Any = None) -> Findings:
        """Residuals of every number, with dates also over time."""
        found = Findings()
        rows = sample_rows(np.arange(len(actual)), MOST_DRAWN)
        days = None if dates is None else dates.iloc[rows]
        for place, name in enumerate(self.columns):
            figure = plot_residuals(days, actual[rows, place], predictions[rows, place], name)
            found.figure(f"{section}/residuals_{name}.png", f"Residuals of {name}", figure)
        return found

    def compare(
        self,
        actual: np.ndarray,
        champion: pd.DataFrame,
        challenger: pd.DataFrame,
        *,
        margin: float = 0.0,
        blocks: Sequence[np.ndarray] = (),
    ) -> Comparison:
        """Paired bootstrap of the RMSPE (trained on a logarithm) or the RMSE."""
        before, after = (each[list(self.columns)].to_numpy(dtype=np.float64) for each in (champion, challenger))
        metric = "rmspe" if self.log else "rmse"
        return compare_values(actual.astype(np.float64), before, after, metric, margin=margin, blocks=blocks)


TARGETS: dict[str, type[Target]] = {each.name: each for each in (SingleLabel, Numbers)}
"""Name -> class; what a spec's task comes to, once the data are known."""


def check_metrics(task: str, names: Sequence[str]) -> None:
    """Reject, before anything is read, names that no target of the task knows; ``auto`` allows those of any task.

    Raises
    ------
    UserError
        See `pick_metrics`.
    """
    if task != "auto":
        known = next(each.known_metrics for each in TARGETS.values() if each.task == task)
        pick_metrics(names, known, task)
    else:
        pick_metrics(names, {**VALUE_METRICS, **CLASS_METRICS}, task)
