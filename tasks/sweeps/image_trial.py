"""How a sweep tries settings of an image training, and what it does with the best."""

from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from unfreeze.models.images.backbones import Body
from unfreeze.models.images.recipe import View
from unfreeze.models.specs import DataSpec, TrainImages
from unfreeze.tasks.steps.describe import describe
from unfreeze.tasks.steps.evaluate import evaluate
from unfreeze.tasks.steps.index_images import index_images, list_images
from unfreeze.tasks.steps.precompute import fill_activations, precompute_activations
from unfreeze.tasks.steps.register import register_model
from unfreeze.tasks.steps.resize_images import resize_images
from unfreeze.tasks.steps.stage import bind
from unfreeze.tasks.sweeps.stage_chain import StageChain
from unfreeze.tasks.tracking.training_run import model_name


class ImageTrial(StageChain):
    """One set of settings of an image training; see `StageChain`."""

    def __init__(self, training: TrainImages, params: TrainImages, shared: int) -> None:
        index = index_images(_listing(params.data), params.data)
        self._caches = resize_images(index, params)
        self._images = bind(params, index, self._caches)
        images = [Path(self._caches[str(size)]).stem for size in self._images.sizes]
        settings = params.model_dump(include={"model", "augment", "optimizer", "seed"})
        super().__init__(training, params, shared, self._images, images, [self._images.index.digest, settings])

    def activations(self, position: int) -> dict[View, Path]:
        """The precomputed views of a stage, computed here if no trial did before."""
        if not self.params.recipe[position].precomputes:
            return {}
        self.catch_up()
        body = cast(Body, self.learner.network.body)
        files, built = fill_activations(self._images, body, self._caches, position)
        self.prefix_builds += bool(built)
        return files


@lru_cache(maxsize=64)
def _listing(data: DataSpec) -> str:
    """The source's files, listed and hashed once in a worker: a sweep is about one state of the data."""
    return str(list_images(data))


def describe_images(training: TrainImages, run_id: str) -> None:
    """Log the images and the network of a sweep to its run."""
    index = index_images(_listing(training.data), training.data)
    describe(training, index, resize_images(index, training), run_id)


def register_images(params: TrainImages, run_id: str) -> dict[str, Any]:
    """Evaluate the weights of a trial's run with TTA and register them; the metrics and the model."""
    index = index_images(_listing(params.data), params.data)
    images = resize_images(index, params)
    last = len(params.recipe) - 1
    activations = {}
    if params.recipe[last].precomputes:
        activations = precompute_activations(params, index, images, run_id, last)
    metrics = evaluate(params, index, images, activations, run_id, last, "valid")
    model = register_model(params, index, images, run_id, last, model_name(params), metrics)
    return {"metrics": metrics, "model": model}
