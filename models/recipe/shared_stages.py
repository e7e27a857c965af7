"""Stages that the trials of a sweep have in common, trained once."""

import json
from pathlib import Path
from typing import Any

from unfreeze.models.recipe.run import Choose, Evaluate, FindLr, Step, Train
from unfreeze.models.recipe.state import Course
from unfreeze.models.store.workspace import Derived, key_of
from unfreeze.models.training.checkpoints import save_checkpoint
from unfreeze.models.training.network import digest

STAGES_VERSION = 5
"""Raise it when the same settings would train other weights; it is part of the keys of shared stages."""


class SharedStages:
    """Stages that several trainings have in common: trained once, kept under a key of all that they depend on.

    Parameters
    ----------
    count
        Stages before this one are shared.
    settings
        Settings that all stages depend on.
    """

    def __init__(self, count: int, settings: Any) -> None:
        self.count, self._settings = count, settings
        self._key: str | None = None

    def takes(self, step: Step) -> bool:
        """Whether a step is done here, or not needed: all but training the stages that are not shared, and evaluation.

        The finder's suggestions and the weights of shared stages are taken from the workspace, or computed into it.
        """
        if isinstance(step, FindLr):
            self._suggest(step)
        if isinstance(step, Train):
            return self._passes(step)
        return not isinstance(step, Evaluate | Choose) or step.name == "evaluate baseline"

    def _suggest(self, step: FindLr) -> None:
        """The suggestions of the finder on a stage with its own ratios, measured if no training did before."""
        course, stage = step.course, step.stage
        inputs = stage.model_dump(include={"train", "precompute", "views", "size"})
        if stage.train != "head":
            inputs |= stage.model_dump(include={"ratio", "early_ratio", "layer_decay", "lrs", "freeze_batchnorm"})
        finder = course.params.finder.model_dump()
        key = key_of(self._chain(course), inputs, finder, course.data.stage_inputs(step.position))

        def build(wanted: dict[str, Path]) -> None:
            suggestions = step.run().suggestions()
            wanted["suggestions"].write_text(json.dumps(suggestions))
            course.workspace.log(
                f"{stage.name}: lr {suggestions[course.params.finder.method]:.2g}, for every trial with its ratios"
            )

        files = {"suggestions": Derived("learning_rates", key, ".json")}
        built = course.workspace.derive(f"find lr for {stage.name}", files, build)
        course.record.suggestions[step.position] = json.loads(built["suggestions"].read_text())

    def _passes(self, step: Train) -> bool:
        """Whether the stage is a shared one, which is then trained or passed by; otherwise its key is noted."""
        course, stage = step.course, step.stage
        settings = stage.model_dump(exclude={"name", "lr", "lr_factor", "find_lr"})
        self._key = key = key_of(self._chain(course), settings, step.lr, course.data.stage_inputs(step.position))
        if step.position >= self.count:
            return False

        def build(wanted: dict[str, Path]) -> None:
            course.built += 1
            for _ in step.run():
                pass
            save_checkpoint(course.learner, wanted["weights"])
            seconds = step.result["seconds"]
            course.workspace.log(f"trained {stage.name} for every trial that shares it, in {seconds:.1f} s")

        files = {"weights": Derived("stages", key, ".safetensors")}
        course.unloaded = course.workspace.derive(f"train {stage.name}", files, build)["weights"]
        return True

    def _chain(self, course: Course) -> str:
        """Key of everything up to here."""
        if self._key is None:
            device = [course.learner.device.type, str(course.learner.precision)]
            self._key = key_of(STAGES_VERSION, digest(course.learner.network), self._settings, device)
        return self._key
