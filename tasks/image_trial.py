"""How a sweep tries settings of an image training: what trials share is trained once, the rest here.

A stage that several trials have in common leaves its weights in the content cache, under a key of all that they depend
on: pictures, initial weights, settings and rates of every stage up to it. Which trials share which stages follows from
these keys alone.
"""

import json
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from models.images.backbones import Body
from models.images.recipe import View
from models.images.weights import digest
from models.specs import DataSpec, Stage, TrainImages
from models.training.checkpoints import load_checkpoint, restore_between_stages, save_checkpoint
from models.training.finder import find_learning_rate
from models.training.loop import Step, fit
from tasks.describe import describe
from tasks.evaluate import evaluate
from tasks.index_images import index_images, list_pictures
from tasks.precompute import fill_activations, precompute_activations
from tasks.progress import say
from tasks.register import register_model
from tasks.resize_images import resize_images
from tasks.run import source_name
from tasks.stage import bind
from tasks.storage import build, cache_path, key_of

STAGES_VERSION = 1
"""Raise it when the same settings would train other weights; it is part of the key."""


class ImageTrial:
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
    """

    def __init__(self, training: TrainImages, params: TrainImages, shared: int) -> None:
        self.training, self.params, self.shared = training, params, shared
        index = index_images(_listing(params.data), params.data)
        self.caches = resize_images(index, params)
        self.index_path = index
        self.recipe = bind(params, index, self.caches)
        self.learner = self.recipe.learner()
        self.prefix_builds = 0
        self.seconds = 0.0
        self._kept: Path | None = None
        self._suggestions: dict[str, float] = {}
        device = [self.recipe.device.type, str(self.recipe.precision)]
        weights = digest(self.learner.network)
        settings = params.model_dump(include={"model", "augment", "optimizer", "seed"})
        self._key = key_of(STAGES_VERSION, self.recipe.index.digest, weights, settings, device)

    def train(self) -> Iterator[tuple[Stage, Step]]:
        """Train what is not shared; yields each stage with what just ended in it."""
        for position, stage in enumerate(self.params.recipe):
            rate = self._rate(position)
            pictures = Path(self.caches[str(self.recipe.sizes[position])]).stem
            settings = stage.model_dump(exclude={"name", "lr", "lr_factor", "find_lr"})
            key = key_of(self._key, settings, rate, pictures)
            if position < self.shared:
                self._share(position, rate, cache_path("stages", key, ".safetensors"))
            else:
                began = time.monotonic()
                for step in self._fit(position, rate):
                    self.seconds += time.monotonic() - began
                    yield stage, step
                    began = time.monotonic()
            self._key = key

    def validate(self) -> dict[str, float]:
        """Loss and metrics of the last stage's weights as they are."""
        last = len(self.params.recipe) - 1
        _, valid = self.recipe.batches(last, self._activations(last))
        return self.learner.validate(valid)

    def save(self, path: Path) -> None:
        """Write the weights as a checkpoint of a finished training."""
        save_checkpoint(self.learner, path)

    def _share(self, position: int, rate: float, path: Path) -> None:
        def train(temporary: list[Path]) -> None:
            self.prefix_builds += 1
            began = time.monotonic()
            for _ in self._fit(position, rate):
                pass
            save_checkpoint(self.learner, temporary[0])
            seconds = time.monotonic() - began
            say(f"trained {self.params.recipe[position].name} for every trial that shares it, in {seconds:.1f} s")

        if not path.exists():
            build([path], train)
        self._kept = path

    def _fit(self, position: int, rate: float) -> Iterator[Step]:
        self._catch_up()
        stage = self.params.recipe[position]
        train, valid = self.recipe.batches(position, self._activations(position))
        self.learner.prepare(stage, position, rate)
        return fit(self.learner, stage, train, valid)

    def _catch_up(self) -> None:
        """Load what was only passed by: the weights of the last shared stage."""
        if self._kept is not None:
            restore_between_stages(self.learner, load_checkpoint(self._kept))
            self._kept = None

    def _activations(self, position: int) -> dict[View, Path]:
        if not self.params.recipe[position].precomputes:
            return {}
        self._catch_up()
        body = cast(Body, self.learner.network.body)
        files, built = fill_activations(self.recipe, body, self.caches, position)
        self.prefix_builds += bool(built)
        return files

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
        pictures = Path(self.caches[str(self.recipe.sizes[position])]).stem
        key = key_of(self._key, inputs, self.params.finder.model_dump(), pictures)
        path = cache_path("learning_rates", key, ".json")

        def find(temporary: list[Path]) -> None:
            train, _ = self.recipe.batches(position, self._activations(position))
            self._catch_up()
            self.learner.prepare(stage, position, 1.0)
            suggestions = find_learning_rate(self.learner, train, self.params.finder).suggestions()
            temporary[0].write_text(json.dumps(suggestions))
            say(f"{stage.name}: learning rate {suggestions[self.params.finder.method]:.2g}, for every trial")

        if not path.exists():
            build([path], find)
        suggestions: dict[str, float] = json.loads(path.read_text())
        return suggestions


@lru_cache(maxsize=64)
def _listing(data: DataSpec) -> str:
    """The source's files, listed and hashed once in a worker: a sweep is about one state of the data."""
    return str(list_pictures(data))


def describe_images(training: TrainImages, run_id: str) -> None:
    """Log the pictures and the network of a sweep to its run."""
    index = index_images(_listing(training.data), training.data)
    describe(training, index, resize_images(index, training), run_id)


def register_images(params: TrainImages, run_id: str) -> dict[str, Any]:
    """Evaluate the weights of a trial's run with TTA and register them; the metrics and the model."""
    index = index_images(_listing(params.data), params.data)
    pictures = resize_images(index, params)
    last = len(params.recipe) - 1
    activations = {}
    if params.recipe[last].precomputes:
        activations = precompute_activations(params, index, pictures, run_id, last)
    metrics = evaluate(params, index, pictures, activations, run_id, last, "valid")
    name = params.tracking.model_name or f"{source_name(params.data.source)}-classifier"
    model = register_model(params, index, pictures, run_id, last, name, metrics)
    return {"metrics": metrics, "model": model}
