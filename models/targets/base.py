"""What every target knows."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from unfreeze.models.errors import UserError, choose
from unfreeze.models.evaluation.comparison import Comparison
from unfreeze.models.evaluation.metrics import Metric, pick_metrics
from unfreeze.models.evaluation.results import Findings
from unfreeze.models.settings import OptimizerSpec
from unfreeze.models.targets.losses import LOSSES, MADE_FOR, Loss

Category = str | bool | int | float


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
    headline: ClassVar[Sequence[str]] = ()
    """Metrics that are computed whatever else is wanted, where the data say so."""

    classes: Sequence[Category] = ()
    """Names of the classes in the order of the outputs; empty for numbers."""
    class_weights: np.ndarray | None = None
    """What a row of each class counts in all losses, (C,) float64, see `weighed`; None: all the same."""
    columns: Sequence[str] = ()
    """Names of the numbers in the order of the outputs; empty for classes."""

    @property
    def outputs(self) -> int:
        """Width of the network's last layer."""
        return len(self.classes) or len(self.columns)

    def check(self, settings: OptimizerSpec) -> None:
        """Reject settings that cannot work with such targets.

        Raises
        ------
        UserError
            For a loss of `MADE_FOR` that is for other targets.
        """
        task = MADE_FOR.get(settings.loss, self.task)
        if task != self.task:
            fitting = [name for name in LOSSES if MADE_FOR.get(name, self.task) == self.task]
            raise UserError(
                f"optimizer.loss: {settings.loss} is for {task}, and this is {self.task}; choose auto or one of "
                f"{', '.join(fitting)}"
            )

    def weighed(self, settings: OptimizerSpec, targets: Callable[[], np.ndarray]) -> Self:
        """The target with the class weights that the settings ask for, from the `targets` of the training rows."""
        self.check(settings)
        return self

    def imbalance(self, targets: np.ndarray) -> Findings:
        """Notices about classes with very different numbers of training rows."""
        return Findings()

    def loss(self, settings: OptimizerSpec, targets: np.ndarray, device: torch.device) -> Loss:
        """Training loss; `targets` are those of the training rows, (N,) or (N, T)."""
        self.check(settings)
        name = self.default_loss if settings.loss == "auto" else settings.loss
        return choose(LOSSES, name, "optimizer.loss")(settings, targets, self.outputs, device)

    def metrics(self, names: Sequence[str]) -> dict[str, Metric]:
        """The named metrics, or those that fit the target."""
        return pick_metrics(names or self.default_metrics, self.known_metrics, self.task)

    def tuned(self, predictions: np.ndarray, actual: np.ndarray) -> Self:
        """The target with its decisions tuned on the kept model's predictions of the validation rows."""
        return self

    def unbiased_rows(self, actual: np.ndarray) -> np.ndarray:
        """Validation rows (n,) int64 that `tuned` does not use."""
        return np.arange(len(actual))

    @abstractmethod
    def score(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Validation loss over all rows, a scalar float64: with class weights, but without smoothing."""

    @abstractmethod
    def loss_of(self, predictions: np.ndarray, actual: np.ndarray) -> float:
        """As `score`, of what `predictions` and `actual` return."""

    def cautious_loss(self, predictions: np.ndarray, actual: np.ndarray) -> float:
        """`loss_of`; of classes and labels with one more row that is wrong, see `targets.temperature`."""
        return self.loss_of(predictions, actual)

    @classmethod
    def selectable(cls) -> Mapping[str, Metric]:
        """Metrics that a model can be chosen by."""
        return cls.known_metrics

    @abstractmethod
    def predictions(self, outputs: torch.Tensor) -> np.ndarray:
        """Outputs (N, C) as metrics and users want them, float64: probabilities, or values in the target's scale."""

    def tempered(self, predictions: np.ndarray, temperature: float) -> np.ndarray:
        """Predictions (N, C) with their logits divided by a temperature; numbers have none and are as they were."""
        return predictions

    def temperature(self, predictions: np.ndarray, actual: np.ndarray) -> float:
        """What their logits are best divided by, see `unfreeze.models.targets.temperature.best_temperature`."""
        return 1.0

    def distances(self, predictions: np.ndarray, actual: np.ndarray) -> np.ndarray | None:
        """How far the truth was from predictions (N, C), (N, T) float64, see `targets.conformal`; or None."""
        return None

    def covering(self, predictions: np.ndarray, margins: np.ndarray) -> pd.DataFrame:
        """Prediction sets or intervals: everything within distances (T,) of predictions (N, C), one row per row."""
        raise NotImplementedError

    def average(self, members: Sequence[np.ndarray]) -> np.ndarray:
        """Prediction of an ensemble: the mean of its members' predictions (N, C), float64."""
        return mean_in_order(members)

    @abstractmethod
    def actual(self, targets: torch.Tensor) -> np.ndarray:
        """Targets in the same scale."""

    @abstractmethod
    def majority(self, actual: np.ndarray) -> float:
        """Accuracy of always answering the commonest class, which any model must beat; NaN for numbers."""

    @abstractmethod
    def frame(self, predictions: np.ndarray) -> pd.DataFrame:
        """Answers of a served model, one row per row."""

    @abstractmethod
    def fields(self, top_k: int) -> list[pa.Field]:
        """Columns of a file of predictions; of classes or labels the `top_k` most probable ones."""

    @abstractmethod
    def values(self, predictions: np.ndarray, top_k: int) -> list[pa.Array]:
        """Values of these columns for predictions (N, C)."""

    @abstractmethod
    def evaluated(self, actual: np.ndarray, kept: np.ndarray, others: Mapping[str, np.ndarray]) -> pd.DataFrame:
        """Rows of an evaluation: actual values, the kept model's predictions with their loss, and those of others.

        Parameters
        ----------
        actual
            Targets, see `actual`.
        kept
            The kept model's predictions (N, C).
        others
            Predictions of the same model with or without TTA, by the suffix of their columns: ``tta``, ``plain``.
        """

    def captions(self, rows: pd.DataFrame) -> list[str]:
        """Texts below images: rows of `evaluated` with their ``path``."""
        return [f"{Path(path).name}\nloss {loss:.2f}" for path, loss in zip(rows["path"], rows["loss"], strict=True)]

    def facts(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Facts on a card about a row of `evaluated`, by name."""
        return {"loss": f"{row['loss']:.3f}"}

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Plain JSON that is stored with a model: ``name`` and the arguments of the constructor."""

    @abstractmethod
    def prefixed(self, model: str, predictions: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of one model's predictions in a table of several models."""

    @abstractmethod
    def errors(self, predictions: np.ndarray, actual: np.ndarray) -> np.ndarray:
        """Size of every row's error, (N,) float64."""

    def mistaken(self, predictions: np.ndarray, actual: np.ndarray) -> np.ndarray:
        """Output that made a row wrong, (N,) int64; -1 where the row is right or no output is to blame."""
        return np.full(len(actual), -1)

    def label_errors(self, predictions: np.ndarray, actual: np.ndarray) -> pd.DataFrame:
        """Rows that are probably labelled wrong, by number, the most suspicious first; none of numbers.

        ``label``, ``suggested``, and ``probability_of_label``: that the label is right.
        """
        return pd.DataFrame({"label": [], "suggested": [], "probability_of_label": []}, np.empty(0, np.int64))

    @abstractmethod
    def report(
        self, predictions: np.ndarray, actual: np.ndarray, section: str, model: str, dates: Any = None
    ) -> Findings:
        """Tables and figures of where the predictions of `model` err; artifacts are below `section`."""

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

        Raises
        ------
        UserError
            If the champion's answers have other columns.
        """


def require_answers(frame: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    """Reject a champion whose answers lack the `columns` that such a target's have."""
    absent = [name for name in columns if name not in frame]
    if absent:
        raise UserError(
            f"the champion and the new model cannot be compared: the new one predicts {what}, the champion only "
            f"{', '.join(map(str, frame.columns))}; train the new model as the champion was, or register it by another "
            "name"
        )
