"""How a sweep goes through a recipe: what trials share is trained once, the rest by each trial.

A stage that several trials have in common leaves its weights in the content cache, under a key of all that they depend
on: data, initial weights, settings and lrs of every stage up to it. Which trials share which stages follows from
these keys alone.
"""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unfreeze.models.images.weights import digest
from unfreeze.models.specs import Stage
from unfreeze.models.training.checkpoints import load_checkpoint, restore_between_stages, save_checkpoint
from unfreeze.models.training.finder import find_lr_curve
from unfreeze.models.training.loop import Step, fit
from unfreeze.tasks.machine.cache import build, cache_path, key_of
from unfreeze.tasks.prefect_run.progress import log_info
from unfreeze.tasks.steps.stage import Recipe

STAGES_VERSION = 1
"""Raise it when the same settings would train other weights; it is part of the key."""


class StageChain:
    """One set of settings on its way through the recipe.

    Parameters
    ----------
    training
        What the sweep was started with: the finder measures at its ratios, whatever a trial's are, so that the
        suggestion is shared and a trial's `lr_factor` has one meaning.
    params
        The trial's own settings.
    shared
        Stages before this one are shared with other trials.
    recipe
        The settings bound to their data.
    inputs
        What identifies the data of each stage, and the settings that all stages depend on.
    """

    def __init__(
        self, training: Any, params: Any, shared: int, recipe: Recipe, inputs: Sequence[str], settings: Any
    ) -> None:
        self.training, self.params, self.shared = training, params, shared
        self.recipe, self._inputs = recipe, inputs
        self.learner = recipe.learner()
        self.prefix_builds = 0
        self.seconds = 0.0
        self._kept: Path | None = None
        self._suggestions: dict[str, float] = {}
        device = [self.learner.device.type, str(self.learner.precision)]
        self._key = key_of(STAGES_VERSION, digest(self.learner.network), settings, device)

    def train(self) -> Iterator[tuple[Stage, Step]]:
        """Train what is not shared; yields each stage with what just ended in it."""
        for position, stage in enumerate(self.params.recipe):
            lr = self._rate(position)
            settings = stage.model_dump(exclude={"name", "lr", "lr_factor", "find_lr"})
            key = key_of(self._key, settings, lr, self._inputs[position])
            if position < self.shared:
                self._share(position, lr, cache_path("stages", key, ".safetensors"))
            else:
                began = time.monotonic()
                for step in self._fit(position, lr):
                    self.seconds += time.monotonic() - began
                    yield stage, step
                    began = time.monotonic()
            self._key = key

    def validate(self) -> dict[str, float]:
        """Loss and metrics of the last stage's weights as they are."""
        last = len(self.params.recipe) - 1
        _, valid = self.recipe.batches(last, self.activations(last))
        return self.learner.validate(valid)

    def save(self, path: Path) -> None:
        """Write the weights as a checkpoint of a finished training."""
        save_checkpoint(self.learner, path)

    def _share(self, position: int, lr: float, path: Path) -> None:
        def train(temporary: list[Path]) -> None:
            self.prefix_builds += 1
            began = time.monotonic()
            for _ in self._fit(position, lr):
                pass
            save_checkpoint(self.learner, temporary[0])
            seconds = time.monotonic() - began
            log_info(f"trained {self.params.recipe[position].name} for every trial that shares it, in {seconds:.1f} s")

        if not path.exists():
            build([path], train)
        self._kept = path

    def _fit(self, position: int, lr: float) -> Iterator[Step]:
        self.catch_up()
        stage = self.params.recipe[position]
        train, valid = self.recipe.batches(position, self.activations(position))
        self.learner.prepare(stage, position, lr)
        return fit(self.learner, stage, train, valid)

    def catch_up(self) -> None:
        """Load the weights of the last shared stage, which was only passed by."""
        if self._kept is not None:
            restore_between_stages(self.learner, load_checkpoint(self._kept))
            self._kept = None

    def activations(self, position: int) -> dict[tuple[str, int], Path]:
        """What a stage has precomputed; nothing, unless a kind of training says otherwise."""
        return {}

    def _rate(self, position: int) -> float:
        stage = self.params.recipe[position]
        if stage.find_lr:
            self._suggestions = self._found(position)
        if stage.lrs is not None:
            return stage.lrs[-1]
        if stage.lr is not None:
            return stage.lr
        return self._suggestions[self.params.finder.method] * stage.lr_factor

    def _found(self, position: int) -> dict[str, float]:
        ratios = self.training.recipe[position].model_dump(include={"ratio", "early_ratio"})
        stage = self.params.recipe[position].model_copy(update=ratios)
        inputs = stage.model_dump(
            include={"train", "precompute", "views", "size", "ratio", "early_ratio", "lrs", "freeze_batchnorm"}
        )
        key = key_of(self._key, inputs, self.params.finder.model_dump(), self._inputs[position])
        path = cache_path("learning_rates", key, ".json")

        def find(temporary: list[Path]) -> None:
            train, _ = self.recipe.batches(position, self.activations(position))
            self.catch_up()
            self.learner.prepare(stage, position, 1.0)
            suggestions = find_lr_curve(self.learner, train, self.params.finder).suggestions()
            temporary[0].write_text(json.dumps(suggestions))
            log_info(f"{stage.name}: learning rate {suggestions[self.params.finder.method]:.2g}, for every trial")

        if not path.exists():
            build([path], find)
        suggestions: dict[str, float] = json.loads(path.read_text())
        return suggestions
