"""The photos, prepared once: a recipe bound to its images by calling `models` directly."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from unfreeze.models.images.recipe import ImageRecipe, View, image_sizes, preprocessing_of, wanted_activations

from unfreeze.models.images.cache import build_image_caches
from unfreeze.models.images.evaluation import predict_views
from unfreeze.models.images.index import Index, build_index, hash_files
from unfreeze.models.images.sources import resolve_source
from unfreeze.models.specs import TrainImages
from unfreeze.models.training.finder import find_lr_curve
from unfreeze.models.training.loop import fit

SHARED = Path(__file__).parents[2] / "shared"
PHOTOS = SHARED / "data" / "cats_dogs"
MOBILENET = SHARED / "weights" / "mobilenet_v2-b0353104.pth"
SEEDS = range(5)


class Prepared:
    """Index, image cache and activations of one spec in a temporary folder, with the seconds each took."""

    def __init__(self, params: TrainImages, folder: Path) -> None:
        self.params, self.folder, self.seconds = params, folder, dict[str, float]()
        with self.timed("index"):
            listing = resolve_source(params.data, folder)
            hashes = hash_files([file.path for file in listing.files], 2)
            self.index: Index = build_index(listing, hashes, params.data)
        with self.timed("resize"):
            preprocessing = preprocessing_of(params.model)
            self.caches = {size: folder / f"{size}.arrow" for size in image_sizes(params, self.index, preprocessing)}
            build_image_caches(
                self.index, self.caches, params.data.fit, preprocessing.interpolation, params.data.max_megapixels, 2
            )
        self.activations: dict[View, Path] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def bind(self, **changes: object) -> ImageRecipe:
        """The recipe with other settings at the top level, such as the seed."""
        return ImageRecipe(self.params.model_copy(update=changes), self.index, self.caches)

    def precompute(self) -> None:
        """All views that the recipe's frozen stages want."""
        recipe = self.bind()
        body = recipe.learner().network.body
        for position, stage in enumerate(self.params.recipe):
            for view in wanted_activations(stage, self.params.tta.n_aug):
                if view not in self.activations:
                    path = self.folder / f"{view[0]}-{view[1]}.arrow"
                    with self.timed("precompute"):
                        recipe.precompute(body, position, view, path)
                    self.activations[view] = path

    def train(self, recipe: ImageRecipe) -> tuple[float, float]:
        """Run the recipe's stages; validation accuracy plain and with TTA."""
        learner, lr = recipe.learner(), 0.0
        for position, stage in enumerate(recipe.params.recipe):
            activations = self.activations if stage.precomputes else {}
            train, valid = recipe.batches(position, activations)
            if stage.find_lr:
                learner.prepare(stage, position, 1.0)
                lr = find_lr_curve(learner, train, recipe.params.finder).suggestions()[recipe.params.finder.method]
            learner.prepare(stage, position, stage.lr or lr)
            for _ in fit(learner, stage, train, valid):
                pass
        plain, averaged = predict_views(learner, recipe.evaluation_views(position, activations), recipe.params.tta)
        targets = recipe.targets["valid"]
        return tuple(float((each.argmax(1) == targets).mean()) for each in (plain, averaged))  # type: ignore[return-value]


@contextmanager
def prepared(params: TrainImages) -> Iterator[Prepared]:
    """Prepare in a folder that is removed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        yield Prepared(params, Path(folder))


def median(values: list[float]) -> float:
    return float(np.median(values))
