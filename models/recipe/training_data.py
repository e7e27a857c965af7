"""A spec bound to its prepared data: what the recipe trains on, and the models that it can end with."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
from unfreeze.models.targets.conformal import Scores
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
"""Position of a stage -> what it reads precomputed."""


@dataclass(frozen=True)
class Prepared:
    """Prepared data as plain JSON.

    Attributes
    ----------
    modality
        Name of the modality.
    digest
        Equal digests have equal rows, targets and split.
    fingerprint
        Equal fingerprints have equal data, whatever the split.
    files
        Name -> path of what `TrainingData` reads.
    splits
        Rows of ``train``, ``valid`` and ``test``.
    """

    modality: str
    digest: str
    fingerprint: str
    files: dict[str, str]
    splits: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model that a training can end with.

    Attributes
    ----------
    name
        Shown: ``full``, ``head``, ``network and trees``.
    states
        Weights of its networks, whose predictions are averaged.
    position
        The stage whose inputs it takes.
    parts
        Parts other than networks, by a name that its modality knows.
    margin
        By how many standard errors of the difference the best model must be better, or this one is kept instead.
    lacks
        What the network as trained has and this model does not, as a report names it: ``fine-tuning``.
    stages
        Position of the stage that each network is the end of, None for a mean of weights or a fitted head; empty: none.
    fitted
        Temperature of its plain predictions of the validation rows, from the comparison with other models.
    temperature
        What its logits are divided by, see `unfreeze.models.targets.temperature`.
    scores
        How far it was from the truth of validation rows, see `unfreeze.models.targets.conformal`.
    with_tta
        Whether it predicts with test-time augmentation; None where that is not decided, or there is none.
    judged
        Where it was refitted on all rows but the test's: the model before that, which the validation rows judged.
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
        """What a model folder keeps of the validation rows."""
        return {TEMPERATURE: self.temperature, SCORES: self.scores}

    @property
    def title(self) -> str:
        """The name, and how it predicts: ``full without TTA``."""
        return self.name if self.with_tta is None else f"{self.name} with{'' if self.with_tta else 'out'} TTA"


class TrainingData(ABC):
    """A spec bound to its prepared data: makes the network and each stage's batches, describes and evaluates.

    Attributes
    ----------
    params
        The whole spec, with what follows from the number of rows: see `unfreeze.models.training.lengths`.
    prepared
        The handle.
    target
        What is predicted.
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
    """Bounds of a batch size that the spec leaves open."""
    evaluates_head_alone: ClassVar[bool] = False
    """Whether the head on a frozen body is a result of its own, to compare the unfrozen network with."""

    @abstractmethod
    def network(self) -> Network:
        """The network with its initial weights, seeded by the spec."""

    @abstractmethod
    def targets(self, split: str) -> np.ndarray:
        """Targets of a split as the network is trained on them: (N,) int64 or (N, T) float32."""

    def actual(self, split: str) -> np.ndarray:
        """Targets of a split in their own scale, see `Target.actual`."""
        return self.target.actual(torch.from_numpy(self.targets(split)))

    @abstractmethod
    def batches(self, position: int, split: str, activations: Activations) -> Batches:
        """Rows of a split as stage `position` takes them."""

    def stage_inputs(self, position: int) -> str:
        """Identifies what stage `position` trains on, for the keys of shared stages."""
        return self.prepared.digest

    def precompute(self, learner: Learner, position: int, workspace: Workspace) -> dict[tuple[str, int], Path]:
        """Write what stage `position` reads precomputed, if anything; see `Activations`."""
        return {}

    def regressed_head(self, activations: Activations) -> State:
        """Weights of the head by a regression on precomputed activations, see `Stage.regression`."""
        raise NotImplementedError

    def frozen_body(self, learner: Learner, position: int) -> nn.Module:
        """What `precompute` computes stage `position`'s activations with."""
        return learner.network.body

    @property
    def batch_size(self) -> int:
        """Rows of a training batch."""
        return cast(int, self.params.optimizer.batch_size)

    def learner(self) -> Learner:
        """A learner with the initial network.

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
        """What is usual for the head's lr in a stage, by the optimizer; None for one that is not known."""
        return LR_PRIORS.get(self.params.optimizer.name)

    def metric_names(self) -> list[str]:
        """Metrics to compute; none: those that fit the target."""
        return list(self.params.metrics)

    def comparison_metrics(self) -> dict[str, Metric]:
        """What differences of models are measured by: the loss that choices go by, and the first metric."""
        name, metric = next(iter(self.target.metrics(self.metric_names()).items()))
        return {"loss": self.target.loss_of, name: metric}

    def blocks(self, split: str) -> np.ndarray | None:
        """Block of every row of a split (N,), such as its week, where rows are not independent of each other."""
        return None

    @property
    @abstractmethod
    def kept_file(self) -> Path:
        """The prepared file that is kept with a run: which rows there are, or how they are encoded."""

    @abstractmethod
    def describe(self) -> Findings:
        """Tables and figures of what goes into the training."""

    @abstractmethod
    def reference(self) -> pd.DataFrame:
        """A sample of the training rows, or their distributions: what later data are compared with."""

    def decided(self) -> list[str]:
        """Lines on settings that were left open and that the data decided."""
        return []

    def tags(self) -> dict[str, str]:
        """More that a run keeps of its data."""
        return {}

    def candidates(
        self, learner: Learner, position: int, activations_of: ActivationsOf, snapshots: Sequence[State]
    ) -> Iterator[Candidate]:
        """Models that the training could end with, the network as it was trained first.

        Parameters
        ----------
        learner
            After the last stage.
        position
            Of that stage.
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
        """Whether a sweep scores the model that a trial's training would keep, rather than its network alone."""
        return False

    @abstractmethod
    def predictions(self, learner: Learner, candidate: Candidate, activations: Activations, split: str) -> np.ndarray:
        """A candidate's predictions for a split, see `Target.predictions`."""

    def cross_validation(self, activations_of: ActivationsOf, workspace: Workspace) -> Findings:
        """Where there are few validation rows, what training and validation rows together say by k-fold; or nothing."""
        return Findings()

    @abstractmethod
    def evaluate(
        self, learner: Learner, candidate: Candidate, activations: Activations, section: str
    ) -> tuple[Findings, Candidate]:
        """Evaluate a candidate as it predicts, with metrics named ``SECTION/NAME``.

        Parameters
        ----------
        section
            ``valid`` or ``test`` (the split) or ``baseline`` (the head alone, on the validation rows).

        Returns
        -------
        tuple of Findings and Candidate
            The candidate has what the validation rows decided; the same holds for `target`.
        """

    def with_all_rows(self) -> Self:
        """The same with the validation rows among the training rows."""
        whole = copy.copy(self)
        whole.rows = {**self.rows, "train": np.union1d(self.rows["train"], self.rows["valid"])}
        return whole

    def refits(self, candidate: Candidate) -> bool:
        """Whether something of the model that is kept is refitted, see `refitted`."""
        return False

    def refitted(
        self, candidate: Candidate, results: Sequence[Mapping[str, Any]], workspace: Workspace
    ) -> tuple[Candidate, str]:
        """Refit the kept model on training and validation rows, after its evaluation on the latter.

        Parameters
        ----------
        results
            Of every stage, see `unfreeze.models.recipe.run.Train`.
        workspace
            Where precomputed activations are kept.

        Returns
        -------
        tuple of Candidate and str
            `Candidate.judged` is the model as it was; the text names the refitted parts.
        """
        raise NotImplementedError

    @abstractmethod
    def save(self, folder: Path, candidate: Candidate) -> None:
        """Write a model folder: all that prediction needs."""

    @abstractmethod
    def example(self) -> pd.DataFrame:
        """Rows as a served model takes them; real ones only with `tracking.keep_examples`."""

    @abstractmethod
    def summary(self, candidate: Candidate, metrics: Mapping[str, float]) -> str:
        """A line for the description of a registered model."""
