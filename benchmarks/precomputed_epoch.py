"""An epoch of the head from precomputed activations against one through the frozen body, in one process."""

import sys
import time
from pathlib import Path

import yaml

from benchmarks._prepared import PHOTOS, median, prepared
from unfreeze.models.images.data import ImageData
from unfreeze.models.settings import AugmentSpec, TrainImages
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.training.batches import Batches
from unfreeze.models.training.learner import Learner
from unfreeze.models.training.loop import train_epoch

HEAD_ONLY = Path(__file__).parents[1] / "deployments" / "configs" / "head_only.yaml"
REPEATS = 3


def epoch_seconds(learner: Learner, recipe: ImageData, train: Batches) -> float:
    """Seconds of one training epoch of the head."""
    learner.prepare(recipe.params.recipe[1], 1, 1e-3)
    began = time.perf_counter()
    for _ in train_epoch(learner, train, lambda batch: 1.0, 0):
        pass
    return time.perf_counter() - began


def main() -> None:
    """Measure and print the ratios."""
    if not PHOTOS.exists():
        sys.exit(f"{PHOTOS} is not there: nothing to measure")
    config = yaml.safe_load(HEAD_ONLY.read_text())
    params = build_spec(TrainImages, config, {"data.source": str(PHOTOS), "recipe.1.views": 1, "tta.n_aug": 0})
    with prepared(params) as photos:
        activations = photos.precompute()[0]
        recipe = photos.bind()
        learner = recipe.learner()
        rows = {
            "precomputed activations": recipe.batches(0, "train", activations),
            "plain images through the frozen body": photos.bind(augment=AugmentSpec(preset="none")).images(0, "train"),
            "augmented images through the frozen body": recipe.images(0, "train"),
        }
        seconds = {
            name: median([epoch_seconds(learner, recipe, train) for _ in range(REPEATS)])
            for name, train in rows.items()
        }
    fastest = seconds["precomputed activations"]
    for name, value in seconds.items():
        print(f"{name:45} {value:8.3f} s an epoch   {value / fastest:6.0f}x")


if __name__ == "__main__":
    main()
