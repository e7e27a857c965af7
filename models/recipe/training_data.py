"""A spec bound to its prepared data, and the candidate models of a training."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import pandas as pd
import torch
from torch import nn

from unfreeze.models.evaluation.metrics import Metric
from unfreeze.models.evaluation.results import Findings
from unfreeze.models.settings import Stage
from unfreeze.models.store.model_folder import SCORES, TEMPERATURE
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.targets import Target, check_select
from unfreeze.models.targets.conformal import Scores, scores_of
from unfreeze.models.targets.temperature import Calibration
from unfreeze.models.training.batches import Batches
from unfreeze.models.training.learner import LR_PRIORS, Learner
from unfreeze.models.training.network import Network, State
from unfreeze.models.training.precision import Precision
from unfreeze.models.training.suggestions import LrPrior

SPLITS = ("train", "valid", "test")
Activations = Mapping[tuple[str, int], Path]
"""(split, number of a view) -> file of precomputed activations; view 0 is the plain one."""
ActivationsOf = Callable[[int], Activations]
"""Position of a stage -> its precomputed activations."""


@dataclass(frozen=True)
class Prepared:
    """Prepared data as plain JSON.

    Attributes
    ----------
    modality
        Name of the modality.
    digest
        Equal for equal rows, targets and split.
    fingerprint
        Equal for equal data, regardless of the split.
    files
        Name -> path of the files that `TrainingData` reads.
    splits
        Number of rows in ``train``, ``valid`` and ``test``.
    """

    modality: str
    digest: str
    fingerprint: str
    files: dict[str, str]
    splits: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Candidate:
    """Model that a training may keep.

    Attributes
    ----------
    name
        Display name: ``full``, ``head``, ``network and trees``.
    states
        Weights of its networks, whose predictions are averaged.
    position
        Stage whose inputs it takes.
    parts
        Parts other than networks, by names that its modality defines.
    ablated
        Difference from the network as trained, as reports name it: ``fine-tuning``.
    margin
        Standard errors of the difference by which the best model must win, or this one is kept instead.
    stages
        Per network, position of the stage that ended with it; None for averaged weights or a fitted head. May be
        empty.
    fitted
        Temperature of its plain predictions of the validation rows, from model selection.
    temperature
        Divisor of its logits, see `unfreeze.models.targets.temperature`.
    scores
        Conformal scores on validation rows, see `unfreeze.models.targets.conformal`.
    with_tta
        Whether it predicts with test-time augmentation; None if undecided or unavailable.
    judged
        If refitted on training and validation rows: the model before, which has the validation metrics.
    """

    name: str
    states: Sequence[State]
    position: int
    parts: Mapping[str, Any] = field(default_factory=dict)
    ablated: str = ""
    margin: float = 0.0
    with_tta: bool | None = None
    stages: Sequence[int | None] = ()
    fitted: Calibration | None = None
    temperature: float = 1.0
    scores: Scores | None = None
    judged: "Candidate | None" = None

    @property
    def calibration(self) -> dict[str, Any]:
        """Temperature and conformal scores, for the model folder."""
        return {TEMPERATURE: self.temperature, SCORES: self.scores}

    def calibrated(
        self, way: Calibration, target: Target, predictions: np.ndarray, actual: np.ndarray
    ) -> tuple["Candidate", np.ndarray]:
        """Set the temperature, and the conformal scores it gives; also return the scaled predictions.

        `predictions` are its raw ones of the validation rows, `actual` their targets.
        """
        final = target.tempered(predictions, way.temperature)
        return replace(self, temperature=way.temperature, scores=scores_of(target, final, actual)), final

    @property
    def title(self) -> str:
        """Name with its use of TTA: ``full without TTA``."""
        return self.name if self.with_tta is None else f"{self.name} with{'' if self.with_tta else 'out'} TTA"


class TrainingData(ABC):
    """Spec bound to its prepared data; makes the network and batches, describes and evaluates.

    Attributes
    ----------
    params
        The complete spec, with values derived from the number of rows, see `unfreeze.models.training.schedules`.
    prepared
        The handle.
    target
        Target of the predictions.
    rows
        Row numbers (n,) int64 of every split.
    """

    params: Any
    prepared: Prepared
    target: Target
    rows: dict[str, np.ndarray]
    device: torch.device
    precision: Precision
    batch_sizes: ClassVar[tuple[int, int]]
    """Bounds of the batch size if the spec does not set it."""
    evaluates_head_alone: ClassVar[bool] = False
    """Whether to evaluate the head on a frozen body as a baseline for the unfrozen network."""

    @abstractmethod
    def network(self) -> Network:
        """Create the network with its initial weights, seeded by the spec."""

    @abstractmethod
    def targets(self, split: str) -> np.ndarray:
        """Targets of a split as the network sees them: (N,) int64 or (N, T) float32."""

    def actual(self, split: str) -> np.ndarray:
        """Targets of a split in their own scale, see `Target.actual`."""
        return self.target.actual(torch.from_numpy(self.targets(split)))

    @abstractmethod
    def batches(self, position: int, split: str, activations: Activations) -> Batches:
        """Batches of a split for stage `position`."""

    def stage_inputs(self, position: int) -> str:
        """Identify the inputs of stage `position`, for the keys of shared stages."""
        return self.prepared.digest

    def precompute(self, learner: Learner, position: int, workspace: Workspace) -> dict[tuple[str, int], Path]:
        """Write the precomputed activations of stage `position`, if any; see `Activations`."""
        return {}

    def regressed_head(self, activations: Activations) -> State:
        """Fit the head by regression on precomputed activations, see `Stage.regression`."""
        raise NotImplementedError

    def frozen_body(self, learner: Learner, position: int) -> nn.Module:
        """Module that `precompute` runs for stage `position`."""
        return learner.network.body

    @property
    def batch_size(self) -> int:
        """Rows of a training batch."""
        return cast(int, self.params.optimizer.batch_size)

    def learner(self) -> Learner:
        """Create a learner with the initial network.

        Raises
        ------
        UserError
            For metrics, a loss or `select` that do not fit the target.
        """
        params = self.params
        check_select([self.target], params.select)
        metrics = self.target.metrics(self.metric_names())
        loss = self.target.loss(params.optimizer, self.targets("train"), self.device)
        return Learner(
            self.network(), params.optimizer, loss, self.device, self.precision, params.seed, metrics, self.target
        )

    def lr_prior(self, stage: Stage) -> LrPrior | None:
        """Prior of the head's lr in a stage, by optimizer; None if unknown."""
        return LR_PRIORS.get(self.params.optimizer.name)

    def metric_names(self) -> list[str]:
        """Metrics to compute; empty for those that fit the target."""
        return list(self.params.metrics)

    def comparison_metrics(self) -> dict[str, Metric]:
        """Metrics for differences between models: the loss, and the first metric."""
        name, metric = next(iter(self.target.metrics(self.metric_names()).items()))
        return {"loss": self.target.loss_of, name: metric}

    def blocks(self, split: str) -> np.ndarray | None:
        """Block of every row of a split (N,), such as its week; None if rows are independent."""
        return None

    @property
    @abstractmethod
    def kept_file(self) -> Path:
        """Prepared file kept with a run: its rows, or their encoding."""

    @abstractmethod
    def describe(self) -> Findings:
        """Describe the training's inputs in tables and figures."""

    @abstractmethod
    def reference(self) -> pd.DataFrame:
        """Sample of the training rows, or their distributions, to measure drift of later data against."""

    def decided(self) -> list[str]:
        """Lines on settings derived from the data."""
        return []

    def tags(self) -> dict[str, str]:
        """Additional tags of the run on its data."""
        return {}

    def candidates(
        self, learner: Learner, position: int, activations_of: ActivationsOf, snapshots: Sequence[State]
    ) -> Iterator[Candidate]:
        """Yield the models that the training may keep, the network as trained first.

        Parameters
        ----------
        learner
            After the last stage.
        position
            The last stage's.
        activations_of
            Position of a stage -> its activations.
        snapshots
            Weights at the ends of earlier cycles.
        """
        states, stages = [*snapshots, learner.state()], self.params.recipe[: position + 1]
        name = "logistic regression" if stages[-1].regression else stages[-1].name
        kind = f"{name}, {len(states)} snapshots" if snapshots else name
        yield Candidate(kind, states, position, stages=() if snapshots else [position])

    @property
    def judged_as_kept(self) -> bool:
        """Whether a sweep scores the model that a trial would keep, rather than its network alone."""
        return False

    @abstractmethod
    def predictions(self, learner: Learner, candidate: Candidate, activations: Activations, split: str) -> np.ndarray:
        """A candidate's predictions for a split, see `Target.predictions`."""

    def cross_validation(self, activations_of: ActivationsOf, workspace: Workspace) -> Findings:
        """With few validation rows, cross-validate (k-fold) on training and validation rows; otherwise empty."""
        return Findings()

    @abstractmethod
    def evaluate(
        self, learner: Learner, candidate: Candidate, activations: Activations, section: str
    ) -> tuple[Findings, Candidate]:
        """Evaluate a candidate; metrics are named ``SECTION/NAME``.

        Parameters
        ----------
        section
            ``valid`` or ``test`` (the split) or ``baseline`` (the head alone, on the validation rows).

        Returns
        -------
        tuple of Findings and Candidate
            The candidate, like `target`, with the settings chosen on the validation rows.
        """

    def with_all_rows(self) -> Self:
        """Copy with the validation rows added to the training rows."""
        whole = copy.copy(self)
        whole.rows = {**self.rows, "train": np.union1d(self.rows["train"], self.rows["valid"])}
        return whole

    def refits(self, candidate: Candidate) -> bool:
        """Whether `refitted` applies to the kept model."""
        return False

    def refitted(
        self, candidate: Candidate, results: Sequence[Mapping[str, Any]], workspace: Workspace
    ) -> tuple[Candidate, str]:
        """Refit the kept model on training and validation rows, after its validation.

        Parameters
        ----------
        results
            Of every stage, see `unfreeze.models.recipe.run.Train`.
        workspace
            Where precomputed activations are kept.

        Returns
        -------
        tuple of Candidate and str
            `Candidate.judged` is the previous model; the text names the refitted parts.
        """
        raise NotImplementedError

    @abstractmethod
    def save(self, folder: Path, candidate: Candidate) -> None:
        """Write a model folder with everything prediction needs."""

    @abstractmethod
    def example(self) -> pd.DataFrame:
        """Example input rows of a served model; real ones only with `tracking.keep_examples`."""

    @abstractmethod
    def summary(self, candidate: Candidate, metrics: Mapping[str, float]) -> str:
        """One line for a registered model's description."""
