"""Target with one class per row."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch.nn import functional

from unfreeze.models.evaluation.calibration import (
    calibration_error_by_chance,
    expected_calibration_error,
    reliability,
)
from unfreeze.models.evaluation.comparison import Comparison, compare_classes
from unfreeze.models.evaluation.label_errors import find_label_errors
from unfreeze.models.evaluation.metrics import CLASS_METRICS
from unfreeze.models.evaluation.plots import plot_confusion
from unfreeze.models.evaluation.results import Chart, Counts, Findings
from unfreeze.models.settings import OptimizerSpec
from unfreeze.models.targets.base import Category, Target
from unfreeze.models.targets.losses import balanced_weights
from unfreeze.models.targets.temperature import best_temperature, effective_rows, scaled, second, with_one_more

SMALLEST_PROBABILITY = 1e-7
"""Lower clip of probabilities, to keep one confidently wrong row from deciding between models."""
UNEQUAL = 5
"""Ratio of the largest to the smallest class that triggers a notice."""
MOST_CLASSES_COUNTED = 20
"""Maximum classes for a confusion matrix as a table; with more it is only an image."""


class SingleLabel(Target):
    """One class per row.

    Parameters
    ----------
    classes
        Names of the C classes in the order of the logits.
    class_weights
        Weight of each class's rows, (C,); None for equal weights.
    """

    name, task, default_loss = "single_label", "classification", "cross_entropy"
    known_metrics, default_metrics = CLASS_METRICS, ("accuracy", "auc", "log_loss")
    headline, exclusive = ("accuracy",), True

    def __init__(self, classes: Sequence[Category] = (), class_weights: np.ndarray | None = None) -> None:
        self.classes, self.class_weights = list(classes), class_weights

    def weighed(self, settings: OptimizerSpec, targets: Callable[[], np.ndarray]) -> Self:
        """Apply `balanced_weights` if the settings ask for them.

        All models are fitted with them, so probabilities assume equally frequent classes. Early stopping, selection and
        calibration must weight rows in the same way.
        """
        super().weighed(settings, targets)
        if settings.class_weights == "none":
            return self
        return type(self)(self.classes, balanced_weights(targets(), len(self.classes)).double().numpy())

    def imbalance(self, targets: np.ndarray) -> Findings:
        """Report class weights, or without any a notice if one class has `UNEQUAL` times the rows of another."""
        counts = np.bincount(targets, minlength=len(self.classes))
        least, most = int(np.where(counts, counts, len(targets) + 1).argmin()), int(counts.argmax())
        small, large = self.classes[least], self.classes[most]
        if self.class_weights is not None:
            ratio = self.class_weights[least] / self.class_weights[most]
            said = f"class weights: a row of {small} counts {ratio:.3g} times as much as one of {large}"
            return Findings(lines=[f"{said}, in training and in every loss; probabilities are those of equal classes"])
        if counts[most] < UNEQUAL * counts[least]:
            return Findings()
        said = (
            f"classes are of very different sizes: {counts[least]:,} training rows of {small}, {counts[most]:,} "
            f"({counts[most] / len(targets):.0%}) of {large}; accuracy hides how small ones fare, balanced_accuracy "
            "(--metrics) shows it, and --optimizer.class_weights balanced makes every class count the same"
        )
        return Findings(notices=[said])

    def score(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross entropy of logits (N, C) and classes (N,)."""
        weights = None if self.class_weights is None else torch.from_numpy(self.class_weights)
        return functional.cross_entropy(outputs.double(), targets, weights)

    def loss_of(self, predictions: np.ndarray, actual: np.ndarray) -> float:
        """Log loss of probabilities (N, C) and class numbers (N,); probabilities are clipped to 1e-7 from below."""
        losses = -np.log(np.clip(predictions[np.arange(len(actual)), actual], SMALLEST_PROBABILITY, 1))
        return float(np.average(losses, weights=self._counts(actual)))

    def _counts(self, actual: np.ndarray) -> np.ndarray | None:
        """Weights of rows, (N,)."""
        return None if self.class_weights is None else self.class_weights[actual]

    def cautious_loss(self, predictions: np.ndarray, actual: np.ndarray) -> float:
        """Compute `loss_of` with one additional row labelled with its most probable wrong class."""
        rows = effective_rows(len(actual), self._counts(actual))
        return with_one_more(
            self.loss_of(predictions, actual), self.loss_of(predictions, second(predictions, actual)), rows
        )

    def predictions(self, outputs: torch.Tensor) -> np.ndarray:
        """Probabilities (N, C)."""
        probabilities: np.ndarray = outputs.double().softmax(dim=1).numpy()
        return probabilities

    def tempered(self, predictions: np.ndarray, temperature: float) -> np.ndarray:
        """See `unfreeze.models.targets.temperature.scaled`."""
        return scaled(predictions, temperature)

    def temperature(self, predictions: np.ndarray, actual: np.ndarray) -> float:
        """Fit one temperature for all classes."""
        return best_temperature(predictions, actual, self._counts(actual))

    def distances(self, predictions: np.ndarray, actual: np.ndarray) -> np.ndarray:
        """One minus the class's probability, (N, 1); gives the smallest sets on average (Sadinle et al. 2019)."""
        return self.errors(predictions, actual)[:, None]

    def covering(self, predictions: np.ndarray, margins: np.ndarray) -> pd.DataFrame:
        """``set``, a list of classes per row, most probable first; ``abstains`` unless it has exactly one."""
        order = np.argsort(-predictions, axis=1, kind="stable")
        counts = (1 - predictions <= margins[0]).sum(1)
        sets = [[self.classes[number] for number in row[:count]] for row, count in zip(order, counts, strict=True)]
        return pd.DataFrame({"set": pd.Series(sets, dtype=object), "abstains": counts != 1})

    def actual(self, targets: torch.Tensor) -> np.ndarray:
        """Class numbers (N,)."""
        numbers: np.ndarray = targets.numpy()
        return numbers

    def majority(self, actual: np.ndarray) -> float:
        """Share of the commonest class."""
        return float(np.bincount(actual).max() / len(actual))

    def frame(self, predictions: np.ndarray) -> pd.DataFrame:
        """``class``, ``probability``, and ``probabilities`` of all classes in their order."""
        top = [self.classes[number] for number in predictions.argmax(1)]
        return pd.DataFrame({"class": top, "probability": predictions.max(1), "probabilities": predictions.tolist()})

    def filed(self, predictions: np.ndarray, top_k: int) -> dict[str, pa.Array]:
        """``class`` and ``probability`` of the most probable class, ``class_2`` and so on of the next ones."""
        return ranked("class", pa.array(self.classes), predictions, top_k)

    def evaluated(self, actual: np.ndarray, kept: np.ndarray, others: Mapping[str, np.ndarray]) -> pd.DataFrame:
        """Columns ``label``, ``predicted``, ``probability`` and ``loss``, then ``p(CLASS)`` per class.

        For others ``predicted_tta``, ``probability_tta`` and ``p_tta(CLASS)``.
        """
        names, chosen = np.asarray(self.classes), kept[np.arange(len(actual)), actual]
        table = {
            "label": names[actual],
            "predicted": names[kept.argmax(1)],
            "probability": kept.max(1),
            "loss": -np.log(np.maximum(chosen, np.finfo(np.float64).tiny)),
        }
        for other, probabilities in others.items():
            table[f"predicted_{other}"] = names[probabilities.argmax(1)]
            table[f"probability_{other}"] = probabilities.max(1)
        return pd.DataFrame({**table, **columns_of_probabilities(names, kept, others)})

    def facts(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Label, prediction and loss."""
        return {
            "label": str(row["label"]),
            "predicted": f"{row['predicted']} ({row['probability']:.3f})",
            **super().facts(row),
        }

    def settings(self) -> dict[str, Any]:
        """``classes``."""
        return {"name": self.name, "classes": list(self.classes)}

    def prefixed(self, model: str, predictions: np.ndarray) -> dict[str, np.ndarray]:
        """``MODEL_class`` and ``MODEL_probability``."""
        names = np.array([str(each) for each in self.classes])
        return {f"{model}_class": names[predictions.argmax(1)], f"{model}_probability": predictions.max(1)}

    def errors(self, predictions: np.ndarray, actual: np.ndarray) -> np.ndarray:
        """One minus the probability of the right class."""
        wrong: np.ndarray = 1 - predictions[np.arange(len(actual)), actual]
        return wrong

    def mistaken(self, predictions: np.ndarray, actual: np.ndarray) -> np.ndarray:
        """Most probable class, if wrong."""
        top = predictions.argmax(1)
        return np.where(top == actual, -1, top)

    def label_errors(self, predictions: np.ndarray, actual: np.ndarray) -> pd.DataFrame:
        """See `find_label_errors`."""
        rows, suggested = find_label_errors(predictions, actual)
        names = np.array([str(each) for each in self.classes], object)
        own = predictions[rows, actual[rows]].round(4)
        table = {"label": names[actual[rows]], "suggested": names[suggested], "probability_of_label": own}
        return pd.DataFrame(table, rows)

    def report(
        self, predictions: np.ndarray, actual: np.ndarray, section: str, model: str, dates: Any = None
    ) -> Findings:
        """Report calibration error, precision, recall and F1 per class, and the confusion matrix."""
        found, classes = Findings(), [str(each) for each in self.classes]
        of_rows = f"{model}, {len(actual):,} {section} rows"
        found.metrics[f"{section}/ece"] = expected_calibration_error(predictions, actual)
        found.metrics[f"{section}/ece_by_chance"] = calibration_error_by_chance(predictions)
        precision, recall, f1, support = precision_recall_fscore_support(
            actual, predictions.argmax(1), labels=range(len(classes)), zero_division=0
        )
        table = pd.DataFrame({"class": classes, "precision": precision, "recall": recall, "f1": f1, "rows": support})
        found.frame(f"{section}/per_class.feather", table)
        found.text(f"{section}/per_class.txt", table.to_string(index=False))
        found.table("per-class", f"Per class: {of_rows}", table.round(4))
        title = f"Confusion matrix: {of_rows}"
        answers = predictions.argmax(1)
        found.figure(f"{section}/confusion.png", title, lambda: plot_confusion(actual, answers, classes, title))
        if len(classes) <= MOST_CLASSES_COUNTED:
            counts = confusion_matrix(actual, answers, labels=range(len(classes)))
            found.counts.append(Counts(title, classes, counts.tolist(), f"{section}/confusion.png"))
        bins = reliability(predictions, actual)
        found.frame(f"{section}/calibration.feather", bins)
        line = (bins["confidence"].tolist(), bins["accuracy"].tolist())
        axes = ("probability", "share that is right")
        found.charts.append(Chart(f"Calibration: {of_rows}", *axes, {"model": line}, identity=True))
        return found

    @property
    def paired_test(self) -> tuple[str, Callable[..., Comparison]]:
        """McNemar's test of the accuracy, see `compare_classes`."""
        return "class", compare_classes


def ranked(name: str, names: pa.Array, probabilities: np.ndarray, count: int) -> dict[str, pa.Array]:
    """``NAME`` and ``probability`` of the most probable of `names` per row of probabilities (N, C).

    Then ``NAME_2`` and ``probability_2``, and so on, `count` at most.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
    columns = {}
    for rank, best in enumerate(order.T):
        suffix = f"_{rank + 1}" if rank else ""
        columns[f"{name}{suffix}"] = names.take(pa.array(best))
        columns[f"probability{suffix}"] = pa.array(probabilities[np.arange(len(best)), best])
    return columns


def columns_of_probabilities(
    names: Sequence[Any] | np.ndarray, kept: np.ndarray, others: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """``p(NAME)``, and ``p_tta(NAME)`` of others, see `Target.evaluated`."""
    every = {"p": kept, **{f"p_{other}": probabilities for other, probabilities in others.items()}}
    return {f"{p}({name})": each[:, number] for p, each in every.items() for number, name in enumerate(names)}
