"""Interface of targets."""

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
from unfreeze.models.own_parts import is_own, own_part
from unfreeze.models.settings import OptimizerSpec
from unfreeze.models.targets.losses import LOSSES, MADE_FOR, Loss

Category = str | bool | int | float


def mean_in_order(members: Sequence[np.ndarray]) -> np.ndarray:
    """Average equal-shaped arrays, summed in order, as `numpy.mean` uses a different order for a single row."""
    return np.asarray(reduce(np.add, members) / len(members))


def _tried_loss(name: str, outputs: int, targets: torch.Tensor, device: torch.device) -> Loss:
    """A loss of the user's own, called once on two rows: an error should not wait for the training."""
    _, loss = own_part("optimizer.loss", name, LOSSES)
    found = loss(torch.zeros(len(targets), outputs, device=device, requires_grad=True), targets.to(device))
    if not (isinstance(found, torch.Tensor) and found.ndim == 0 and found.requires_grad):
        raise UserError(
            f"optimizer.loss: {name} must return the mean loss as a scalar tensor that depends on the outputs, not "
            f"{tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__}"
        )
    return loss


class Target(ABC):
    """Kind of target, registered by `name` in `TARGETS`."""

    name: ClassVar[str]
    task: ClassVar[str]
    default_loss: ClassVar[str]
    known_metrics: ClassVar[Mapping[str, Metric]]
    default_metrics: ClassVar[Sequence[str]]
    exclusive: ClassVar[bool] = False
    """Whether a row has one class."""
    headline: ClassVar[Sequence[str]] = ()
    """Metrics that are always computed if the data request them."""

    classes: Sequence[Category] = ()
    """Names of the classes in the order of the outputs; empty for numbers."""
    class_weights: np.ndarray | None = None
    """Weight of each class's rows in all losses, (C,) float64, see `weighed`; None for equal weights."""
    columns: Sequence[str] = ()
    """Names of the numbers in the order of the outputs; empty for classes."""

    @property
    def outputs(self) -> int:
        """Width of the network's last layer."""
        return len(self.classes) or len(self.columns)

    def check(self, settings: OptimizerSpec) -> None:
        """Reject settings that do not fit the target.

        Raises
        ------
        UserError
            For a loss of another task in `MADE_FOR`, or class weights without one class per row.
        """
        task = MADE_FOR.get(settings.loss, self.task)
        if task != self.task:
            fitting = [name for name in LOSSES if MADE_FOR.get(name, self.task) == self.task]
            raise UserError(
                f"optimizer.loss: {settings.loss} is for {task}, and this is {self.task}; choose auto or one of "
                f"{', '.join(fitting)}"
            )
        if settings.class_weights != "none" and not self.exclusive:
            raise UserError(
                f"optimizer.class_weights: {settings.class_weights} is for one class per row, and this is {self.task}; "
                "set it to none"
            )

    def weighed(self, settings: OptimizerSpec, targets: Callable[[], np.ndarray]) -> Self:
        """Apply the settings' class weights, computed from the `targets` of the training rows."""
        self.check(settings)
        return self

    def imbalance(self, targets: np.ndarray) -> Findings:
        """Report classes with very different numbers of training rows."""
        return Findings()

    def loss(self, settings: OptimizerSpec, targets: np.ndarray, device: torch.device) -> Loss:
        """Make the training loss; `targets` of the training rows are (N,) or (N, T)."""
        self.check(settings)
        name = self.default_loss if settings.loss == "auto" else settings.loss
        if is_own(name):
            return _tried_loss(name, self.outputs, torch.from_numpy(targets[:2]), device)
        return choose(LOSSES, name, "optimizer.loss")(settings, targets, self.outputs, device)

    def metrics(self, names: Sequence[str]) -> dict[str, Metric]:
        """Look up metrics by name; without names, the target's defaults.

        Metrics of the user's own are called once, on a row per class, to find errors before a training does.
        """
        return self.picked(names, self.known_metrics)

    def picked(self, names: Sequence[str], known: Mapping[str, Metric]) -> dict[str, Metric]:
        """`metrics` among `known`."""
        chosen = pick_metrics(names or self.default_metrics, known, self.task)
        own = {name.rpartition(":")[2]: name for name in names if is_own(name)}
        rows = max(2, self.outputs)
        predictions = np.full((rows, self.outputs), 1 / max(self.outputs, 1))
        targets = np.arange(rows) if self.exclusive else np.eye(rows, self.outputs, dtype=bool)
        for function, name in own.items():
            found = chosen[function](predictions, targets + 0.0 if self.columns else targets)
            if not isinstance(found, float | int | np.number):
                raise UserError(f"metrics: {name} must return a number, not {type(found).__name__}")
        return chosen

    def tuned(self, predictions: np.ndarray, actual: np.ndarray) -> Self:
        """Tune the target's decisions on the kept model's predictions of the validation rows."""
        return self

    def unbiased_rows(self, actual: np.ndarray) -> np.ndarray:
        """Validation rows (n,) int64 that `tuned` does not use."""
        return np.arange(len(actual))

    @abstractmethod
    def score(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Validation loss over all rows, a scalar float64, with class weights but without smoothing."""

    @abstractmethod
    def loss_of(self, predictions: np.ndarray, actual: np.ndarray) -> float:
        """Compute the loss of `score` from results of `predictions` and `actual`."""

    def cautious_loss(self, predictions: np.ndarray, actual: np.ndarray) -> float:
        """Compute `loss_of`, for classes and labels with one additional wrong row, see `targets.temperature`."""
        return self.loss_of(predictions, actual)

    @classmethod
    def selectable(cls) -> Mapping[str, Metric]:
        """Metrics for model selection."""
        return cls.known_metrics

    @abstractmethod
    def predictions(self, outputs: torch.Tensor) -> np.ndarray:
        """Convert outputs (N, C) to float64 probabilities, or values in the target's scale."""

    def tempered(self, predictions: np.ndarray, temperature: float) -> np.ndarray:
        """Divide the logits of predictions (N, C) by a temperature; numbers are unchanged."""
        return predictions

    def temperature(self, predictions: np.ndarray, actual: np.ndarray) -> float:
        """Fit the temperature, see `unfreeze.models.targets.temperature.best_temperature`."""
        return 1.0

    def distances(self, predictions: np.ndarray, actual: np.ndarray) -> np.ndarray | None:
        """Distances (N, T) float64 of the truth from predictions (N, C), see `targets.conformal`; or None."""
        return None

    def covering(self, predictions: np.ndarray, margins: np.ndarray) -> pd.DataFrame:
        """Prediction sets or intervals within distances (T,) of predictions (N, C), a row each."""
        raise NotImplementedError

    def average(self, members: Sequence[np.ndarray]) -> np.ndarray:
        """Average the predictions (N, C) of an ensemble's members, float64."""
        return mean_in_order(members)

    @abstractmethod
    def actual(self, targets: torch.Tensor) -> np.ndarray:
        """Targets in the scale of `predictions`."""

    @abstractmethod
    def majority(self, actual: np.ndarray) -> float:
        """Baseline accuracy of always predicting the commonest class; NaN for numbers."""

    @abstractmethod
    def frame(self, predictions: np.ndarray) -> pd.DataFrame:
        """Response of a served model, a row per prediction."""

    @abstractmethod
    def filed(self, predictions: np.ndarray, top_k: int) -> dict[str, pa.Array]:
        """Columns of a predictions file for predictions (N, C), with the `top_k` most probable classes or labels."""

    @abstractmethod
    def evaluated(self, actual: np.ndarray, kept: np.ndarray, others: Mapping[str, np.ndarray]) -> pd.DataFrame:
        """Table of an evaluation: actual values, the kept model's predictions with their loss, and alternative ones.

        Parameters
        ----------
        actual
            Targets, see `actual`.
        kept
            The kept model's predictions (N, C).
        others
            Predictions of the same model with or without TTA, by column suffix: ``tta``, ``plain``.
        """

    def captions(self, rows: pd.DataFrame) -> list[str]:
        """Captions of images, from rows of `evaluated` with their ``path``: the file's name and `facts`."""
        records: list[Any] = rows.to_dict("records")
        facts = ((row["path"], self.facts(row)) for row in records)
        return ["\n".join([Path(path).name, *map(" ".join, each.items())]) for path, each in facts]

    def facts(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Facts by name for the card of a row of `evaluated`."""
        return {"loss": f"{row['loss']:.3f}"}

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Plain JSON stored with a model: ``name`` and the constructor's arguments."""

    @abstractmethod
    def prefixed(self, model: str, predictions: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of one model's predictions in a table of several models'."""

    @abstractmethod
    def errors(self, predictions: np.ndarray, actual: np.ndarray) -> np.ndarray:
        """Size of every row's error, (N,) float64."""

    def mistaken(self, predictions: np.ndarray, actual: np.ndarray) -> np.ndarray:
        """Output responsible for a row's error, (N,) int64; -1 if the row is right or there is no such output."""
        return np.full(len(actual), -1)

    def label_errors(self, predictions: np.ndarray, actual: np.ndarray) -> pd.DataFrame:
        """Find probably mislabelled rows, indexed by row number, most suspicious first; empty for numbers.

        Columns: ``label``, ``suggested``, and ``probability_of_label`` (that the label is right).
        """
        return pd.DataFrame({"label": [], "suggested": [], "probability_of_label": []}, np.empty(0, np.int64))

    @abstractmethod
    def report(
        self, predictions: np.ndarray, actual: np.ndarray, section: str, model: str, dates: Any = None
    ) -> Findings:
        """Report the errors of `model` in tables and figures; artifacts are below `section`."""

    @property
    @abstractmethod
    def paired_test(self) -> tuple[str | list[str], Callable[..., Comparison]]:
        """Answers among the columns of `frame`, and the paired test that compares two models by them."""

    def compare(
        self,
        actual: np.ndarray,
        champion: pd.DataFrame,
        challenger: pd.DataFrame,
        *,
        margin: float = 0.0,
        blocks: Sequence[np.ndarray] = (),
    ) -> Comparison:
        """Compare two models' answers (see `frame`) to actual labels (N,) or numbers (N, T) by a paired test.

        See `compare_values` for the margin and blocks.

        Raises
        ------
        UserError
            If the champion's answers have different columns.
        """
        columns, test = self.paired_test
        wanted = [columns] if isinstance(columns, str) else columns
        if any(name not in champion for name in wanted):
            raise UserError(
                f"the champion and the new model cannot be compared: the new one predicts {', '.join(wanted)}, the "
                f"champion only {', '.join(map(str, champion.columns))}; train the new model as the champion was, or "
                "register it by another name"
            )
        before, after = (each[columns].to_numpy() for each in (champion, challenger))
        return test(actual, before, after, margin=margin, blocks=blocks)
