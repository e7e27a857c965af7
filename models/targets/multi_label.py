"""Target with any number of labels per row."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from sklearn.metrics import precision_recall_fscore_support
from torch.nn import functional

from unfreeze.models.evaluation.calibration import DEFAULT, tuned_thresholds
from unfreeze.models.evaluation.comparison import Comparison, compare_labels
from unfreeze.models.evaluation.label_errors import find_label_set_errors
from unfreeze.models.evaluation.metrics import (
    LABEL_METRICS,
    LabelMetric,
    Metric,
    ShareOfRows,
    areas_under_curve,
    average_precisions,
    binary_losses,
)
from unfreeze.models.evaluation.plots import plot_labels
from unfreeze.models.evaluation.results import Findings
from unfreeze.models.reading.labels import join
from unfreeze.models.reading.sampling import stratify
from unfreeze.models.targets.base import Category, Target
from unfreeze.models.targets.single_label import columns_of_probabilities, ranked
from unfreeze.models.targets.temperature import best_temperature, scaled, with_one_more


def _at(thresholds: np.ndarray | float, metric: LabelMetric) -> Metric:
    """Metric of probabilities (N, L) and labels (N, L), with decisions by thresholds (L,)."""
    if isinstance(metric, ShareOfRows):
        holds = metric.holds
        return ShareOfRows(lambda given, actual: holds(given, given >= thresholds, actual.astype(bool)))
    return lambda given, actual: metric(given, given >= thresholds, actual.astype(bool))


def _yes_or_no(predictions: np.ndarray) -> np.ndarray:
    """Reshape probabilities (N, L) to rows of two classes, (N L, 2)."""
    return np.stack([1 - predictions.ravel(), predictions.ravel()], axis=1)


class MultiLabel(Target):
    """Any number of labels per row, none included; each has an independent probability.

    Parameters
    ----------
    classes
        Names of the L labels in the order of the logits.
    thresholds
        Minimum probability to predict each label, (L,); 0.5 by default.
    """

    name, task, default_loss = "multi_label", "multi-label classification", "binary_cross_entropy"
    known_metrics: ClassVar[Mapping[str, Metric]] = {name: _at(DEFAULT, each) for name, each in LABEL_METRICS.items()}
    default_metrics = headline = ("accuracy", "f1", "f2", "map", "auc")

    def __init__(self, classes: Sequence[Category] = (), thresholds: Sequence[float] | None = None) -> None:
        self.classes = self._names = [str(each) for each in classes]
        self.thresholds = np.full(len(self.classes), DEFAULT) if thresholds is None else np.array(thresholds)

    def metrics(self, names: Sequence[str]) -> dict[str, Metric]:
        """Look up metrics by name; those of decisions use the target's thresholds."""
        known = {name: _at(self.thresholds, metric) for name, metric in LABEL_METRICS.items()}
        return self.picked(names, known)

    def tuned(self, predictions: np.ndarray, actual: np.ndarray) -> Self:
        """Tune the thresholds for the highest F1 on one half of the rows; `unbiased_rows` are the other."""
        tuning = np.setdiff1d(np.arange(len(actual)), self.unbiased_rows(actual))
        return type(self)(self.classes, tuned_thresholds(predictions[tuning], actual[tuning].astype(bool)).tolist())

    def unbiased_rows(self, actual: np.ndarray) -> np.ndarray:
        """Stratified half of the validation rows, always the same."""
        order = np.random.default_rng(0).permutation(len(actual))
        half: np.ndarray = np.sort(order[stratify(actual[order], (0.5, 0.5)) == 1])
        return half if len(half) else np.arange(len(actual))

    def score(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Binary cross entropy of logits (N, L) and labels (N, L), averaged over both axes."""
        return functional.binary_cross_entropy_with_logits(outputs.double(), targets.double())

    def loss_of(self, predictions: np.ndarray, actual: np.ndarray) -> float:
        """Binary cross entropy of probabilities and labels (N, L); probabilities are clipped to 1e-7 from below."""
        return float(binary_losses(predictions, actual.astype(bool)).mean())

    def cautious_loss(self, predictions: np.ndarray, actual: np.ndarray) -> float:
        """Compute `loss_of` with one additional wrong label."""
        wrong = self.loss_of(predictions, ~actual.astype(bool))
        return with_one_more(self.loss_of(predictions, actual), wrong, actual.size)

    @classmethod
    def selectable(cls) -> Mapping[str, Metric]:
        """Metrics without thresholds, which are tuned only after selection."""
        return {name: cls.known_metrics[name] for name in ("map", "auc", "log_loss")}

    def predictions(self, outputs: torch.Tensor) -> np.ndarray:
        """Independent probabilities (N, L)."""
        probabilities: np.ndarray = outputs.double().sigmoid().numpy()
        return probabilities

    def tempered(self, predictions: np.ndarray, temperature: float) -> np.ndarray:
        """Divide every label's logit by the same temperature."""
        return scaled(_yes_or_no(predictions), temperature)[:, 1].reshape(predictions.shape)

    def temperature(self, predictions: np.ndarray, actual: np.ndarray) -> float:
        """Fit one temperature for all labels."""
        return best_temperature(_yes_or_no(predictions), actual.astype(np.int64).ravel())

    def actual(self, targets: torch.Tensor) -> np.ndarray:
        """Labels (N, L) bool."""
        labels: np.ndarray = targets.numpy().astype(bool)
        return labels

    def answers(self, predictions: np.ndarray) -> np.ndarray:
        """Labels whose probability (N, L) reaches its threshold, (N, L) bool."""
        said: np.ndarray = predictions >= self.thresholds
        return said

    def majority(self, actual: np.ndarray) -> float:
        """Share of the commonest combination of labels."""
        return float(np.unique(actual, axis=0, return_counts=True)[1].max() / len(actual))

    def frame(self, predictions: np.ndarray) -> pd.DataFrame:
        """``labels``, a list per row, and ``probabilities`` of all labels in their order."""
        return pd.DataFrame({"labels": self._named(self.answers(predictions)), "probabilities": predictions.tolist()})

    def filed(self, predictions: np.ndarray, top_k: int) -> dict[str, pa.Array]:
        """``labels`` as one text (see `reading.labels.join`), then ``label`` and ``probability`` by rank."""
        labels = pa.array(self._texts(self.answers(predictions)), pa.string())
        return {"labels": labels, **ranked("label", pa.array(self.classes, pa.string()), predictions, top_k)}

    def evaluated(self, actual: np.ndarray, kept: np.ndarray, others: Mapping[str, np.ndarray]) -> pd.DataFrame:
        """Columns ``labels`` and ``predicted_labels`` (texts), ``predicted_labels_tta`` of others, and ``loss``.

        Then ``p(LABEL)`` and ``p_tta(LABEL)`` per label.
        """
        table = {
            "labels": self._texts(actual.astype(bool)),
            "predicted_labels": self._texts(self.answers(kept)),
            **{f"predicted_labels_{other}": self._texts(self.answers(each)) for other, each in others.items()},
            "loss": self.errors(kept, actual),
        }
        return pd.DataFrame({**table, **columns_of_probabilities(self.classes, kept, others)})

    def facts(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Labels, prediction and loss."""
        return {
            "labels": row["labels"] or "none",
            "predicted": row["predicted_labels"] or "none",
            **super().facts(row),
        }

    def settings(self) -> dict[str, Any]:
        """``classes`` and ``thresholds``."""
        return {"name": self.name, "classes": list(self.classes), "thresholds": self.thresholds.tolist()}

    def prefixed(self, model: str, predictions: np.ndarray) -> dict[str, np.ndarray]:
        """``MODEL_labels``, texts."""
        return {f"{model}_labels": np.array(self._texts(self.answers(predictions)))}

    def errors(self, predictions: np.ndarray, actual: np.ndarray) -> np.ndarray:
        """Binary cross entropy of every row, averaged over its labels."""
        losses: np.ndarray = binary_losses(predictions, actual.astype(bool)).mean(axis=1)
        return losses

    def mistaken(self, predictions: np.ndarray, actual: np.ndarray) -> np.ndarray:
        """Label with the largest error in probability, in rows with any wrong label."""
        farthest = np.abs(predictions - actual).argmax(1)
        return np.where((self.answers(predictions) == actual.astype(bool)).all(1), -1, farthest)

    def label_errors(self, predictions: np.ndarray, actual: np.ndarray) -> pd.DataFrame:
        """See `find_label_set_errors`; the probability is that of the most suspicious label."""
        actual = actual.astype(bool)
        rows, changed, worst = find_label_set_errors(predictions, actual)
        sets = (actual[rows], actual[rows] ^ changed)
        label, suggested = ([text or "none" for text in self._texts(each)] for each in sets)
        table = {"label": label, "suggested": suggested, "probability_of_label": worst.round(4)}
        return pd.DataFrame(table, rows)

    def report(
        self, predictions: np.ndarray, actual: np.ndarray, section: str, model: str, dates: Any = None
    ) -> Findings:
        """Report threshold, precision, recall, F1, average precision and area under the curve per label."""
        found, actual = Findings(), actual.astype(bool)
        of_rows = f"{model}, {len(actual):,} {section} rows"
        precision, recall, f1, support = precision_recall_fscore_support(
            actual, self.answers(predictions), average=None, zero_division=0
        )
        table = pd.DataFrame(
            {
                "label": self.classes,
                "threshold": self.thresholds,
                "precision": precision,
                "recall": recall,
                "f1": f1,
                "average_precision": average_precisions(predictions, actual),
                "auc": areas_under_curve(predictions, actual),
                "rows": support,
            }
        )
        found.frame(f"{section}/per_label.feather", table)
        found.text(f"{section}/per_label.txt", table.to_string(index=False))
        found.table(
            "per-label",
            f"Per label: {of_rows}",
            table.round(4).astype(object).where(table.notna(), ""),
        )
        title = f"F1 and average precision: {of_rows}"
        found.figure(f"{section}/labels.png", title, lambda: plot_labels(table, title))
        return found

    @property
    def paired_test(self) -> tuple[str, Callable[..., Comparison]]:
        """Paired bootstrap of the mean F1 over labels; actual labels are lists (N,)."""
        return "labels", compare_labels

    def _named(self, marks: np.ndarray) -> list[list[str]]:
        return [[self._names[label] for label in np.flatnonzero(row)] for row in marks]

    def _texts(self, marks: np.ndarray) -> list[str]:
        return [join(labels) for labels in self._named(marks)]
