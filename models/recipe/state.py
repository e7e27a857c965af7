"""State of a training in progress: its finished parts, and the objects its steps share."""

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
    """Finished parts of a training, by stage position.

    Attributes
    ----------
    suggestions
        The finder's learning rates by method.
    results
        See `Train.result`.
    evaluated
        Sections already evaluated.
    checkpoint
        The latest; None before the first.
    """

    suggestions: dict[int, dict[str, float]] = field(default_factory=dict)
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    evaluated: set[str] = field(default_factory=set)
    checkpoint: Checkpoint | None = None

    def lr(self, params: Any, position: int) -> float:
        """Return the head's lr in a stage: its own, or the latest suggestion times the stage's factor."""
        stage = params.recipe[position]
        if stage.lrs is not None:
            return float(stage.lrs[-1])
        if stage.lr is not None:
            return float(stage.lr * stage.lr_factor)
        latest = max(earlier for earlier in self.suggestions if earlier <= position)
        return float(self.suggestions[latest][params.finder.method] * stage.lr_factor)


class TrainingState:
    """Objects shared by the steps of a training: data, learner, activations and record."""

    def __init__(self, data: TrainingData, workspace: Workspace, record: Record) -> None:
        self.data, self.workspace, self.record, self.params = data, workspace, record, data.params
        self.learner = data.learner()
        self.unloaded: Path | None = None
        """Weights of the latest shared stage, not loaded yet."""
        self.built = 0
        """Number of shared files built."""
        self.chosen: Candidate | None = None
        self._activations: dict[int, Mapping[tuple[str, int], Path]] = {}
        if record.checkpoint is not None:
            restore_between_stages(self.learner, record.checkpoint)
        # Code between steps must not consume the training's random numbers, or a resumed run would differ.
        self._random = random_states(self.learner)

    @property
    def kept(self) -> Candidate:
        """The kept model, set by `SelectModel`."""
        if self.chosen is None:
            raise RuntimeError("no model is chosen yet")
        return self.chosen

    def skips(self, position: int) -> str:
        """Reason to skip a stage, see `Stage.fewest_errors`; empty to train it."""
        fewest, before = self.params.recipe[position].fewest_errors, self.record.results.get(position - 1, {})
        accuracy = before.get("metrics", {}).get("accuracy")
        if fewest is None or accuracy is None:
            return ""
        wrong = round((1 - accuracy) * len(self.data.rows["valid"]))
        if wrong >= fewest:
            return ""
        return f"skipped: {wrong} of {len(self.data.rows['valid']):,} validation rows are wrong, too few to show a gain"

    def begin(self) -> None:
        """Restore weights and random states as of the latest stage's end."""
        if self.unloaded is not None:
            restore_between_stages(self.learner, load_checkpoint(self.unloaded))
            self._random, self.unloaded = random_states(self.learner), None
        set_random_states(self.learner, self._random)

    def end(self) -> None:
        """Keep the random states for the next stage."""
        self._random = random_states(self.learner)

    def keep_head(self) -> None:
        """Keep a copy of the head from before the body becomes trainable."""
        if self.learner.head_alone is None:
            self.begin()
            state = self.learner.network.head.state_dict()
            self.learner.head_alone = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def activations(self, position: int) -> Mapping[tuple[str, int], Path]:
        """Precomputed activations of a stage, if any; computed once."""
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
        # The body may have been trained since, as in a resumed training; these stages use the initial one.
        initial = self.data.network().state_dict()
        return learner.of_members([initial], lambda: self.data.precompute(learner, position, self.workspace))[0]
