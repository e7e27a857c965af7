"""Stages shared by the trials of a sweep, trained once."""

import json
from pathlib import Path
from typing import Any

from unfreeze.models.recipe.run import Evaluate, FindLr, SelectModel, Step, Train
from unfreeze.models.recipe.state import TrainingState
from unfreeze.models.store.workspace import Derived, key_of
from unfreeze.models.training.checkpoints import save_checkpoint
from unfreeze.models.training.network import weights_digest

STAGES_VERSION = 5
"""Part of the keys of shared stages; raise it when the same settings would train different weights."""


class SharedStages:
    """Stages common to several trainings: trained once, stored under a key of all their inputs.

    Parameters
    ----------
    count
        Number of leading stages that are shared.
    settings
        Settings that all stages depend on.
    """

    def __init__(self, count: int, settings: Any) -> None:
        self.count, self._settings = count, settings
        self._key: str | None = None

    def handles(self, step: Step) -> bool:
        """Carry out or skip a step and return True, or False for evaluations and stages that are not shared.

        The finder's suggestions and the weights of shared stages are read from the workspace, or computed into it.
        """
        if isinstance(step, FindLr):
            self._suggest(step)
        if isinstance(step, Train):
            return self._passes(step)
        return not isinstance(step, Evaluate | SelectModel) or step.name == "evaluate baseline"

    def _suggest(self, step: FindLr) -> None:
        """Load the finder's suggestions for a stage with these ratios, measuring them if needed."""
        state, stage = step.state, step.stage
        inputs = stage.model_dump(include={"train", "precompute", "views", "size"})
        if stage.train != "head":
            inputs |= stage.model_dump(include={"ratio", "early_ratio", "layer_decay", "lrs", "freeze_batchnorm"})
        finder = state.params.finder.model_dump()
        key = key_of(self._chain(state), inputs, finder, state.data.stage_inputs(step.position))

        def build(wanted: dict[str, Path]) -> None:
            suggestions = step.run().suggestions()
            wanted["suggestions"].write_text(json.dumps(suggestions))
            state.workspace.log(
                f"{stage.name}: lr {suggestions[state.params.finder.method]:.2g}, for every trial with its ratios"
            )

        files = {"suggestions": Derived("learning_rates", key, ".json")}
        built = state.workspace.derive(f"find lr for {stage.name}", files, build)
        state.record.suggestions[step.position] = json.loads(built["suggestions"].read_text())

    def _passes(self, step: Train) -> bool:
        """Note the stage's key; if the stage is shared, train or load it and return True."""
        state, stage = step.state, step.stage
        settings = stage.model_dump(exclude={"name", "lr", "lr_factor", "find_lr"})
        self._key = key = key_of(self._chain(state), settings, step.lr, state.data.stage_inputs(step.position))
        if step.position >= self.count:
            return False

        def build(wanted: dict[str, Path]) -> None:
            state.built += 1
            for _ in step.run():
                pass
            save_checkpoint(state.learner, wanted["weights"])
            seconds = step.result["seconds"]
            state.workspace.log(f"trained {stage.name} for every trial that shares it, in {seconds:.1f} s")

        files = {"weights": Derived("stages", key, ".safetensors")}
        state.unloaded = state.workspace.derive(f"train {stage.name}", files, build)["weights"]
        return True

    def _chain(self, state: TrainingState) -> str:
        """Key of all stages so far."""
        if self._key is None:
            device = [state.learner.device.type, str(state.learner.precision)]
            self._key = key_of(STAGES_VERSION, weights_digest(state.learner.network), self._settings, device)
        return self._key
