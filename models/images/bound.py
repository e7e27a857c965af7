"""A training spec bound to its images: network, images of each stage, precomputed activations."""

import copy
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch

from unfreeze.models.evaluation.drift import ImageSample, image_statistics
from unfreeze.models.images.batches import ActivationBatches, ImageBatches
from unfreeze.models.images.networks.backbones import Body, fold_batch_norms, preprocessing_of
from unfreeze.models.images.networks.classifier import DEFAULT_HEAD, build_classifier, head_of
from unfreeze.models.images.networks.linear_head import fit_linear_head
from unfreeze.models.images.networks.weights import Preprocessing
from unfreeze.models.images.pixels.augmentation import numbered_view
from unfreeze.models.images.pixels.cache import ImageCache, usable_size
from unfreeze.models.images.pixels.index import Index
from unfreeze.models.reading.sampling import sample_rows
from unfreeze.models.recipe.training_data import SPLITS, Activations, Candidate, Prepared, TrainingData
from unfreeze.models.settings import Stage, TrainImages
from unfreeze.models.store.row_store import StoredRows
from unfreeze.models.training import ranks
from unfreeze.models.training.batches import Batches
from unfreeze.models.training.learner import Learner, Result
from unfreeze.models.training.network import Network, State
from unfreeze.models.training.precision import pick_precision, ready_device
from unfreeze.models.training.schedules import planned
from unfreeze.models.training.suggestions import LrPrior

TRAINED_HEAD_SHARE, PRETRAINED_SHARE = 0.25, 0.05
"""Typical lrs relative to a new layer's: of a trained head, and of a pretrained body's late layers."""
LABEL_SMOOTHING = 0.05
"""Single-label default: on six development sets as good as a temperature, which few rows cannot estimate."""
SAMPLED = 256
"""Training images sampled for the drift reference."""


def image_sizes(params: TrainImages, index: Index, preprocessing: Preprocessing) -> list[int]:
    """Image side of every stage, in pixels."""
    default = params.data.size or usable_size(index, preprocessing.size)
    return [stage.size or default for stage in params.recipe]


class BoundImages(TrainingData):
    """A spec with its index and its images at the recipe's sizes.

    Parameters
    ----------
    params
        Complete spec with a named backbone.
    prepared
        Files: ``index``, and each image cache under its side in pixels.
    """

    params: TrainImages
    batch_sizes = (8, 64)

    def __init__(self, params: TrainImages, prepared: Prepared) -> None:
        self.prepared = prepared
        self.index = Index.load(self.kept_file)
        self.rows = {split: self.index.rows_of(split) for split in SPLITS}
        kind = params.model.head or ("linear" if any(stage.regression for stage in params.recipe) else DEFAULT_HEAD)
        smoothing = params.optimizer.label_smoothing
        if smoothing is None:
            smoothing = 0.0 if self.index.multiple else LABEL_SMOOTHING
        changes: dict[str, object] = {
            "model": params.model.model_copy(update={"head": kind}),
            "optimizer": params.optimizer.model_copy(update={"label_smoothing": smoothing}),
        }
        if params.augment.preset == "none":  # all views would be plain
            plain = [stage.model_copy(update={"views": None}) if stage.precompute else stage for stage in params.recipe]
            changes |= {"tta": params.tta.model_copy(update={"n_aug": 0}), "recipe": plain}
        params = params.model_copy(update=changes)
        self.params = params = planned(params, len(self.rows["train"]), *self.batch_sizes)
        self.target = self.index.target().weighed(params.optimizer, partial(self.targets, "train"))
        self.device = ready_device(params.device)
        self.precision = pick_precision(params.precision, self.device)
        self.preprocessing = preprocessing_of(params.model)
        self.sizes = image_sizes(params, self.index, self.preprocessing)
        sizes = {int(name): Path(path) for name, path in prepared.files.items() if name.isdecimal()}
        self._caches = {size: ImageCache(path) for size, path in sizes.items()}

    @property
    def kept_file(self) -> Path:
        """The index of images."""
        return Path(self.prepared.files["index"])

    def network(self) -> Network:
        """Pretrained body and new head."""
        return build_classifier(self.params.model, len(self.index.classes), self.params.seed, self.sizes)

    def lr_prior(self, stage: Stage) -> LrPrior | None:
        """The general prior, lowered for a pretrained body's late layers if the body is trained."""
        prior = super().lr_prior(stage)
        if prior is None or stage.train == "head" or self.params.model.weights == "none":
            return prior
        return prior._replace(lr=prior.lr * min(TRAINED_HEAD_SHARE, PRETRAINED_SHARE * stage.ratio))

    def metric_names(self) -> list[str]:
        """Requested metrics, with the target's headline first."""
        return list(dict.fromkeys([*self.target.headline, *self.params.metrics]))

    def targets(self, split: str) -> np.ndarray:
        """Class numbers (N,) int64, or binary labels (N, L) float32."""
        targets: np.ndarray = self.index.targets()[self.rows[split]]
        return targets

    def stage_inputs(self, position: int) -> str:
        """Key of the index and of the images at the stage's size."""
        return f"{self.prepared.digest} {Path(self.prepared.files[str(self.sizes[position])]).stem}"

    def blocks(self, split: str) -> np.ndarray | None:
        """Group of each image; None if there are no groups."""
        groups = self.index.groups(self.rows[split])
        return groups if groups is not None and len(set(groups)) > 1 else None

    def contents(self, split: str) -> np.ndarray:
        """Content hashes of a split's images, (n,) S32."""
        hashes: np.ndarray = self.index.contents[self.rows[split]]
        return hashes

    def cache(self, position: int) -> ImageCache:
        """Image cache of all rows at the size of stage `position`."""
        return self._caches[self.sizes[position]]

    def images(self, position: int, split: str, view: int | None = None) -> ImageBatches:
        """Images of a split at the size of stage `position`, with fixed view number `view` if given."""
        fixed = None
        if view:
            fixed = numbered_view(view, self.contents(split), self.params.augment)
        return ImageBatches(
            self.cache(position),
            self.rows[split],
            self.targets(split),
            self.target.outputs,
            self.params.augment,
            self.preprocessing,
            self.device,
            self.batch_size,
            fixed,
        )

    def batches(self, position: int, split: str, activations: Activations) -> Batches:
        """Precomputed activations of the stage if it has any, otherwise images."""
        if not activations:
            return self.images(position, split)
        views = self.params.recipe[position].views if split == "train" else None
        return self._activations(split, range(1, views + 1) if views else [0], activations)

    def evaluation_views(self, position: int, split: str, activations: Activations) -> Callable[[int], Batches]:
        """View number -> the split's batches, from precomputed activations if available."""
        if activations:
            return lambda view: self._activations(split, [view], activations)
        return partial(self.images, position, split)

    def _activations(self, split: str, views: Iterable[int], activations: Activations) -> ActivationBatches:
        files = [StoredRows(activations[split, view]) for view in views]
        return ActivationBatches(files, self.targets(split), self.device, self.batch_size)

    def plain_activations(self, activations: Activations) -> tuple[np.ndarray, np.ndarray]:
        """Plain-view activations (N, D) float32 of training rows, then validation rows, and their targets."""
        files = [StoredRows(activations[split, 0]) for split in ("train", "valid")]
        rows = np.concatenate([file.gather(np.arange(len(file))).numpy() for file in files])
        return rows, np.concatenate([self.targets(split) for split in ("train", "valid")])

    def plain_groups(self) -> np.ndarray | None:
        """Groups of the rows of `plain_activations`, int64; None if there are no groups."""
        return self.index.groups(np.concatenate([self.rows["train"], self.rows["valid"]]))

    def regressed_head(self, activations: Activations) -> State:
        """Fit a linear head to all precomputed views of the training rows."""
        views = [StoredRows(activations[key]) for key in sorted(activations) if key[0] == "train"]
        rows = np.arange(len(self.rows["train"]))
        fitted_on = [view.gather(rows).numpy() for view in views]
        fit = partial(fit_linear_head, fitted_on, self.targets("train"), self.target.outputs, self.target.class_weights)
        return ranks.once(fit)

    def frozen_body(self, learner: Learner, position: int) -> Body:
        """The body with batch norms folded into its convolutions."""
        folded = copy.deepcopy(cast(Body, learner.network.body)).cpu().eval()
        fold_batch_norms(folded, self.sizes[position])
        return folded.to(self.device).to(memory_format=torch.channels_last)

    def of_members(self, learner: Learner, candidate: Candidate, predict: Callable[[], Result]) -> list[Result]:
        """Call `predict` with each of the candidate's networks loaded into the learner."""
        head = None
        if kind := candidate.parts.get("head"):
            model = self.params.model.model_copy(update={"head": kind})
            head = head_of(model, cast(Body, learner.network.body).features, len(self.index.classes))
        return learner.of_members(candidate.states, predict, head)

    def sample(self, split: str) -> ImageSample:
        """Image statistics and labels of a sample of a split, without features."""
        rows = sample_rows(self.rows[split], SAMPLED)
        statistics = image_statistics(self.cache(0).gather(rows).permute(0, 2, 3, 1).numpy())
        return ImageSample(self.index.rows["label"].take(rows).to_pylist(), statistics, np.empty((0, 1)))
