"""Target of one or several numbers per row."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch.nn import functional

from unfreeze.models.evaluation.comparison import Comparison, compare_values
from unfreeze.models.evaluation.metrics import VALUE_METRICS
from unfreeze.models.evaluation.plots import plot_residuals
from unfreeze.models.evaluation.results import Findings
from unfreeze.models.reading.sampling import sample_rows
from unfreeze.models.settings.names import safe_name
from unfreeze.models.targets.base import Target

MOST_DRAWN = 100_000
"""Maximum rows to plot residuals of; more are sampled."""


class Numbers(Target):
    """One or several numbers per row.

    Parameters
    ----------
    columns
        Names of the T numbers in the order of the outputs.
    log
        Whether the network is trained on log(1 + number), which measures errors as ratios.
    deviations
        Standard deviations of the training targets, in the training scale; the loss is in units of their squares. None
        for 1.
    """

    name, task, default_loss = "numbers", "regression", "squared_error"
    known_metrics, default_metrics = VALUE_METRICS, tuple(VALUE_METRICS)

    def __init__(self, columns: Sequence[str], log: bool = False, deviations: Sequence[float] | None = None) -> None:
        self.columns, self.log = list(columns), log
        self._deviations = np.array([each or 1.0 for each in deviations or [1.0] * len(self.columns)])

    def score(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean squared error of outputs and targets (N, T) in the training scale, in units of their variances."""
        deviations = torch.from_numpy(self._deviations)
        return functional.mse_loss(outputs.double() / deviations, targets.double() / deviations)

    def loss_of(self, predictions: np.ndarray, actual: np.ndarray) -> float:
        """Compute the loss of `score` from values (N, T) in their own scale."""
        return float(np.square((self._inner(predictions) - self._inner(actual)) / self._deviations).mean())

    def _inner(self, values: np.ndarray) -> np.ndarray:
        """Convert values to the training scale."""
        return np.log1p(np.maximum(values, 0)) if self.log else values

    def predictions(self, outputs: torch.Tensor) -> np.ndarray:
        """Values (N, T) in their own scale."""
        values: np.ndarray = (outputs.double().expm1() if self.log else outputs.double()).numpy()
        return values

    def average(self, members: Sequence[np.ndarray]) -> np.ndarray:
        """Average in the training scale."""
        mean = super().average([self._inner(each) for each in members])
        return np.asarray(np.expm1(mean)) if self.log else mean

    def distances(self, predictions: np.ndarray, actual: np.ndarray) -> np.ndarray:
        """Absolute differences (N, T), of logarithms if trained on them."""
        return np.asarray(np.abs(self._inner(predictions) - self._inner(actual)))

    def covering(self, predictions: np.ndarray, margins: np.ndarray) -> pd.DataFrame:
        """``NAME_low`` and ``NAME_high`` of every number."""
        inner = self._inner(predictions)
        ends = {"low": inner - margins, "high": inner + margins}
        own = {end: np.expm1(each) if self.log else each for end, each in ends.items()}
        columns = [
            (f"{name}_{end}", each[:, place]) for place, name in enumerate(self.columns) for end, each in own.items()
        ]
        return pd.DataFrame(dict(columns))

    def actual(self, targets: torch.Tensor) -> np.ndarray:
        """Values (N, T) in their own scale."""
        return self.predictions(targets)

    def majority(self, actual: np.ndarray) -> float:
        """NaN."""
        return float("nan")

    def frame(self, predictions: np.ndarray) -> pd.DataFrame:
        """One column per number."""
        return pd.DataFrame(predictions, columns=list(self.columns))

    def filed(self, predictions: np.ndarray, top_k: int) -> dict[str, pa.Array]:
        """One column per number."""
        return {name: pa.array(column) for name, column in zip(self.columns, predictions.T, strict=True)}

    def evaluated(self, actual: np.ndarray, kept: np.ndarray, others: Mapping[str, np.ndarray]) -> pd.DataFrame:
        """Per number the actual value, ``NAME_predicted`` and ``NAME_predicted_tta``; and ``loss``, the row's error."""
        table = {name: actual[:, place] for place, name in enumerate(self.columns)}
        for suffix, predictions in {"": kept, **{f"_{other}": each for other, each in others.items()}}.items():
            table |= {f"{name}_predicted{suffix}": predictions[:, place] for place, name in enumerate(self.columns)}
        return pd.DataFrame({**table, "loss": self.errors(kept, actual)})

    def settings(self) -> dict[str, Any]:
        """``columns``, ``log`` and ``deviations``."""
        return {
            "name": self.name,
            "columns": list(self.columns),
            "log": self.log,
            "deviations": self._deviations.tolist(),
        }

    def prefixed(self, model: str, predictions: np.ndarray) -> dict[str, np.ndarray]:
        """``MODEL_COLUMN`` for every number."""
        return {f"{model}_{name}": predictions[:, place] for place, name in enumerate(self.columns)}

    def errors(self, predictions: np.ndarray, actual: np.ndarray) -> np.ndarray:
        """Largest absolute error of a row's numbers."""
        largest: np.ndarray = np.abs(predictions - actual).max(1)
        return largest

    def report(
        self, predictions: np.ndarray, actual: np.ndarray, section: str, model: str, dates: Any = None
    ) -> Findings:
        """Plot the residuals of every number, with dates also over time."""
        found = Findings()
        rows = sample_rows(np.arange(len(actual)), MOST_DRAWN)
        days = None if dates is None else dates.iloc[rows]
        for place, name in enumerate(self.columns):
            title = f"Residuals of {name}: {model}, {len(actual):,} {section} rows"
            draw = partial(plot_residuals, days, actual[rows, place], predictions[rows, place], name, title)
            found.figure(f"{section}/residuals_{safe_name(name)}.png", title, draw)
        return found

    @property
    def paired_test(self) -> tuple[list[str], Callable[..., Comparison]]:
        """Paired bootstrap of the RMSPE (if trained on a logarithm) or the RMSE."""
        return list(self.columns), partial(compare_values, metric="rmspe" if self.log else "rmse")
