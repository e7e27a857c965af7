"""State of a training in progress: what is done, and what its steps share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unfreeze.models.recipe.training_data import Candidate, TrainingData
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.training.checkpoints import (
    Checkpoint,
    load_checkpoint,
    random_states,
    restore_between_stages,
    set_random_states,
)


@dataclass
class Record:
    """Finished parts of a training, by position of the stage.

    Attributes
    ----------
    suggestions
        The finder's learning rates by method.
    results
        See `Train.result`.
    evaluated
        Sections that need not be evaluated again.
    checkpoint
        Where the training stopped; None before its first checkpoint.
    """

    suggestions: dict[int, dict[str, float]] = field(default_factory=dict)
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    evaluated: set[str] = field(default_factory=set)
    checkpoint: Checkpoint | None = None

    def lr(self, params: Any, position: int) -> float:
        """The head's lr in a stage: its own, or the latest suggestion times the stage's factor."""
        stage = params.recipe[position]
        if stage.lrs is not None:
            return float(stage.lrs[-1])
        if stage.lr is not None:
            return float(stage.lr * stage.lr_factor)
        latest = max(earlier for earlier in self.suggestions if earlier <= position)
        return float(self.suggestions[latest][params.finder.method] * stage.lr_factor)


class TrainingState:
    """What the steps of a training share: its data, learner, activations and record."""

    def __init__(self, data: TrainingData, workspace: Workspace, record: Record) -> None:
        self.data, self.workspace, self.record, self.params = data, workspace, record, data.params
        self.learner = data.learner()
        self.unloaded: Path | None = None
        """Weights of the latest shared stage, which was only passed by so far."""
        self.built = 0
        """How often something shared was built."""
        self.chosen: Candidate | None = None
        self._activations: dict[int, Mapping[tuple[str, int], Path]] = {}
        if record.checkpoint is not None:
            restore_between_stages(self.learner, record.checkpoint)
        # What happens between steps must not draw from the training's random numbers: a resumed run would differ.
        self._random = random_states(self.learner)

    @property
    def kept(self) -> Candidate:
        """The model that the training ends with; it is chosen by `SelectModel`."""
        if self.chosen is None:
            raise RuntimeError("no model is chosen yet")
        return self.chosen

    def skips(self, position: int) -> str:
        """Why a stage is not worth its time, see `Stage.fewest_errors`; empty if it is."""
        fewest, before = self.params.recipe[position].fewest_errors, self.record.results.get(position - 1, {})
        accuracy = before.get("metrics", {}).get("accuracy")
        if fewest is None or accuracy is None:
            return ""
        wrong = round((1 - accuracy) * len(self.data.rows["valid"]))
        if wrong >= fewest:
            return ""
        return f"skipped: {wrong} of {len(self.data.rows['valid']):,} validation rows are wrong, too few to show a gain"

    def begin(self) -> None:
        """Put weights and random numbers where the latest stage left them."""
        if self.unloaded is not None:
            restore_between_stages(self.learner, load_checkpoint(self.unloaded))
            self._random, self.unloaded = random_states(self.learner), None
        set_random_states(self.learner, self._random)

    def end(self) -> None:
        """Keep the random numbers for the next stage."""
        self._random = random_states(self.learner)

    def keep_head(self) -> None:
        """Keep the head as it is before the body becomes trainable."""
        if self.learner.head_alone is None:
            self.begin()
            state = self.learner.network.head.state_dict()
            self.learner.head_alone = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def activations(self, position: int) -> Mapping[tuple[str, int], Path]:
        """What a stage reads precomputed, if anything; computed once."""
        if position not in self._activations:
            self.begin()
            before = self.workspace.built
            self._activations[position] = self._precomputed(position)
            self.built += self.workspace.built > before
        return self._activations[position]

    def _precomputed(self, position: int) -> Mapping[tuple[str, int], Path]:
        learner, leading = self.learner, all(stage.train == "head" for stage in self.params.recipe[: position + 1])
        if learner.head_alone is None or not leading:
            return self.data.precompute(learner, position, self.workspace)
        # The body may be another one by now, as in a resumed training: that stage saw the initial one.
        initial = self.data.network().state_dict()
        return learner.of_members([initial], lambda: self.data.precompute(learner, position, self.workspace))[0]
