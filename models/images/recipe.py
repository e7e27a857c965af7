"""A recipe bound to its images: makes the learner, each stage's batches, and the views to evaluate on."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from unfreeze.models.images.activations import precompute
from unfreeze.models.images.augmentation import numbered_view
from unfreeze.models.images.backbones import Body, Preprocessing, preprocessing_of
from unfreeze.models.images.batches import ActivationBatches, ImageBatches
from unfreeze.models.images.cache import ImageCache, usable_size
from unfreeze.models.images.classifier import build_classifier
from unfreeze.models.images.index import Index
from unfreeze.models.images.row_file import RowFile
from unfreeze.models.specs import Stage, TrainImages
from unfreeze.models.training.allocator import ready_device
from unfreeze.models.training.batches import Batches
from unfreeze.models.training.learner import Learner
from unfreeze.models.training.losses import cross_entropy
from unfreeze.models.training.metrics import pick_metrics
from unfreeze.models.training.precision import pick_precision

View = tuple[str, int]
"""A split (``train`` or ``valid``) and the number of a view: 0 is plain, others are random but fixed."""


def image_sizes(params: TrainImages, index: Index, preprocessing: Preprocessing) -> list[int]:
    """Side of the images in every stage, in pixels."""
    default = params.data.size or usable_size(index, preprocessing.size)
    return [stage.size or default for stage in params.recipe]


def wanted_activations(stage: Stage, n_aug: int) -> list[View]:
    """The precomputed views that training a stage, and evaluating it with TTA, read; none where the body is trainable.

    A stage with fresh augmentation (``views=None``) trains on images and precomputes nothing.
    """
    if stage.precompute:
        return [("train", 0), *(("valid", view) for view in range(n_aug + 1))]
    if stage.views:
        train = [("train", view) for view in range(1, stage.views + 1)]
        return [*train, *(("valid", view) for view in range(n_aug + 1))]
    return []


class ImageRecipe:
    """A spec, an index and the images at the recipe's sizes.

    Parameters
    ----------
    params
        The whole spec.
    index
        The images.
    caches
        Side in pixels -> image cache, for every size of the recipe.
    """

    def __init__(self, params: TrainImages, index: Index, caches: Mapping[int, Path]) -> None:
        self.params, self.index = params, index
        self.device = ready_device(params.device)
        self.precision = pick_precision(params.precision, self.device)
        self.preprocessing = preprocessing_of(params.model)
        self.sizes = image_sizes(params, index, self.preprocessing)
        self.rows = {"train": index.train_rows(), "valid": index.valid_rows()}
        self.targets = {split: index.targets()[rows] for split, rows in self.rows.items()}
        self._caches = {size: ImageCache(path) for size, path in caches.items()}

    def learner(self) -> Learner:
        """A learner with pretrained body and new head, seeded by the spec."""
        params = self.params
        network = build_classifier(params.model, len(self.index.classes), params.seed, self.sizes[0])
        loss = cross_entropy(params.optimizer, self.targets["train"], len(self.index.classes), self.device)
        metrics = pick_metrics(params.metrics)
        return Learner(network, params.optimizer, loss, self.device, self.precision, params.seed, metrics)

    def cache(self, position: int) -> ImageCache:
        """Images of all rows at the size of stage `position`."""
        return self._caches[self.sizes[position]]

    def images(self, position: int, split: str, view: int | None = None) -> ImageBatches:
        """Images of a split at the size of stage `position`, with the fixed view of that number if one is given."""
        fixed = None
        if view:
            fixed = numbered_view(view, len(self.index), self.params.augment)[torch.from_numpy(self.rows[split])]
        return ImageBatches(
            self.cache(position),
            self.rows[split],
            self.targets[split],
            self.params.augment,
            self.preprocessing,
            self.device,
            self.params.optimizer.batch_size,
            fixed,
        )

    def precompute(
        self, body: Body, position: int, view: View, path: Path, progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Write the activations of one view of a split at the size of stage `position`."""
        metadata = {"split": view[0], "view": str(view[1]), "size": str(self.sizes[position])}
        precompute(body, self.images(position, *view), self.precision, path, metadata, progress)

    def batches(self, position: int, activations: Mapping[View, Path]) -> tuple[Batches, Batches]:
        """Training and validation batches of stage `position`, from its `wanted_activations` if it has any."""
        stage = self.params.recipe[position]
        if not activations:
            return self.images(position, "train"), self.images(position, "valid")
        views = range(1, stage.views + 1) if stage.views else range(1)
        return self._activations("train", views, activations), self._activations("valid", [0], activations)

    def evaluation_views(self, position: int, activations: Mapping[View, Path]) -> Callable[[int], Batches]:
        """Number of a view -> the validation rows' batches, from precomputed activations if there are any."""
        if activations:
            return lambda view: self._activations("valid", [view], activations)
        return partial(self.images, position, "valid")

    def _activations(self, split: str, views: Iterable[int], activations: Mapping[View, Path]) -> ActivationBatches:
        files = [RowFile(activations[split, view]) for view in views]
        return ActivationBatches(files, self.targets[split], self.device, self.params.optimizer.batch_size)


def majority_share(targets: np.ndarray) -> float:
    """Accuracy of always answering the commonest class: what any classifier must beat."""
    return float(np.bincount(targets).max() / len(targets))
