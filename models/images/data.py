"""A spec bound to its images: the network, each stage's batches, and what is shown of both."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from unfreeze.models.evaluation.drift import SHIFTS, ImageSample, image_drift, image_statistics, shown_shift
from unfreeze.models.evaluation.plots import plot_images
from unfreeze.models.evaluation.results import Findings
from unfreeze.models.evaluation.verdict import SECTION_NAMES
from unfreeze.models.images.activations import View, precompute
from unfreeze.models.images.backbone_choice import described, read_ranking, with_backbone
from unfreeze.models.images.batches import ActivationBatches, ImageBatches
from unfreeze.models.images.candidates import image_candidates, parts_to_refit, refit
from unfreeze.models.images.evaluation import evaluate, predict_views
from unfreeze.models.images.folds import FEW_ROWS, cross_validate
from unfreeze.models.images.networks.backbones import Body, Preprocessing, preprocessing_of
from unfreeze.models.images.networks.classifier import DEFAULT_HEAD, HEADS, build_classifier, summarise
from unfreeze.models.images.networks.folding import fold_batch_norms
from unfreeze.models.images.networks.linear_head import fit_linear_head
from unfreeze.models.images.notes import notes_of
from unfreeze.models.images.pixels.augmentation import apply_views, draw_views, numbered_view
from unfreeze.models.images.pixels.cache import ImageCache, usable_size
from unfreeze.models.images.pixels.index import CONTRADICTION, COPY, Index
from unfreeze.models.images.pixels.row_shards import ShardedRows
from unfreeze.models.images.serving.predictor import example_image, save_classifier
from unfreeze.models.reading.sampling import sample_rows
from unfreeze.models.recipe.training_data import (
    SPLITS,
    Activations,
    ActivationsOf,
    Candidate,
    Prepared,
    TrainingData,
)
from unfreeze.models.settings import Stage, TrainImages, TtaSpec
from unfreeze.models.settings.names import BACKBONE
from unfreeze.models.store.sealed_files import JUDGED
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.training.batches import Batches
from unfreeze.models.training.learner import Learner, Result
from unfreeze.models.training.lengths import plan, planned
from unfreeze.models.training.network import Network, State
from unfreeze.models.training.precision import pick_precision, ready_device
from unfreeze.models.training.suggestions import LrPrior

TRAINED_HEAD_SHARE, PRETRAINED_SHARE = 0.25, 0.05
"""Usual lrs over that of new layers: of a head that is trained already, and of a pretrained body's late layers."""
LABEL_SMOOTHING = 0.05
"""Where every image has one class: on six development sets as good as a temperature, which few rows cannot tell."""
MOST_ROWS_SHOWN = 500
PREVIEWED = 4
"""Images in the preview of augmentation, each with three random views beside it."""
SAMPLED = 256
"""Training images whose statistics are kept."""


def image_sizes(params: TrainImages, index: Index, preprocessing: Preprocessing) -> list[int]:
    """Side of the images in every stage, in pixels."""
    default = params.data.size or usable_size(index, preprocessing.size)
    return [stage.size or default for stage in params.recipe]


def wanted_activations(stage: Stage, n_aug: int, splits: Sequence[str] = ("valid",)) -> list[View]:
    """The precomputed views that training a stage, and evaluating it with TTA, read; none if the body is trainable.

    A stage with fresh augmentation (``views=None``) trains on images and precomputes nothing.
    """
    if not stage.precomputes:
        return []
    train = [("train", view) for view in range(0 if stage.precompute else 1, (stage.views or 0) + 1)]
    return [*train, *((split, view) for split in splits for view in range(n_aug + 1))]


class ImageData(TrainingData):
    """A spec, an index and the images at the recipe's sizes.

    Parameters
    ----------
    params
        The whole spec.
    prepared
        With files ``index`` and the side in pixels of every image cache.
    """

    evaluates_head_alone = True
    batch_sizes = (8, 64)

    def __init__(self, params: TrainImages, prepared: Prepared) -> None:
        self.prepared, self.ranking = prepared, read_ranking(prepared.files.get("backbones"))
        params = with_backbone(params, self.ranking)
        self.index = Index.load(Path(prepared.files["index"]))
        self.rows = {split: self.index.rows_of(split) for split in SPLITS}
        kind = params.model.head or ("linear" if any(stage.regression for stage in params.recipe) else DEFAULT_HEAD)
        smoothing = params.optimizer.label_smoothing
        if smoothing is None:
            smoothing = 0.0 if self.index.multiple else LABEL_SMOOTHING
        model, optimizer = params.model, params.optimizer
        changes: dict[str, object] = {
            "model": model.model_copy(update={"head": kind}),
            "optimizer": optimizer.model_copy(update={"label_smoothing": smoothing}),
        }
        if params.augment.preset == "none":  # every view would be the plain one
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

    # --- training

    def network(self) -> Network:
        """Pretrained body and new head."""
        return build_classifier(self.params.model, len(self.index.classes), self.params.seed, self.sizes[0])

    def lr_prior(self, stage: Stage) -> LrPrior | None:
        """As for other data; where a pretrained body is trained, low enough for its late layers as well."""
        prior = super().lr_prior(stage)
        if prior is None or stage.train == "head" or self.params.model.weights == "none":
            return prior
        return prior._replace(lr=prior.lr * min(TRAINED_HEAD_SHARE, PRETRAINED_SHARE * stage.ratio))

    def metric_names(self) -> list[str]:
        """The target's headline first, whatever else is wanted."""
        return list(dict.fromkeys([*self.target.headline, *self.params.metrics]))

    def targets(self, split: str) -> np.ndarray:
        """Class numbers (N,) int64, or labels (N, L) float32 of 0 and 1."""
        targets: np.ndarray = self.index.targets()[self.rows[split]]
        return targets

    def stage_inputs(self, position: int) -> str:
        """Index, and the images at the stage's size."""
        return f"{self.prepared.digest} {Path(self.prepared.files[str(self.sizes[position])]).stem}"

    def blocks(self, split: str) -> np.ndarray | None:
        """Groups of images, if there are several."""
        groups = self.index.groups(self.rows[split])
        return groups if groups is not None and len(set(groups)) > 1 else None

    def contents(self, split: str) -> list[str]:
        """Hashes of the contents of a split's images."""
        hashes: list[str] = self.index.rows["content"].take(self.rows[split]).to_pylist()
        return hashes

    def cache(self, position: int) -> ImageCache:
        """Images of all rows at the size of stage `position`."""
        return self._caches[self.sizes[position]]

    def images(self, position: int, split: str, view: int | None = None) -> ImageBatches:
        """Images of a split at the size of stage `position`, with the fixed view of that number if one is given."""
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
        """Images, or the stage's precomputed activations if it has any."""
        if not activations:
            return self.images(position, split)
        views = self.params.recipe[position].views if split == "train" else None
        return self._activations(split, range(1, views + 1) if views else [0], activations)

    def evaluation_views(self, position: int, split: str, activations: Activations) -> Callable[[int], Batches]:
        """Number of a view -> the split's batches, from precomputed activations if there are any."""
        if activations:
            return lambda view: self._activations(split, [view], activations)
        return partial(self.images, position, split)

    def _activations(self, split: str, views: Iterable[int], activations: Activations) -> ActivationBatches:
        files = [ShardedRows(activations[split, view]) for view in views]
        return ActivationBatches(files, self.targets(split), self.device, self.batch_size)

    def precompute(self, learner: Learner, position: int, workspace: Workspace) -> dict[View, Path]:
        """Make sure that the views which stage `position` reads are there: see `activations.precompute`."""
        views = wanted_activations(self.params.recipe[position], self.params.tta.n_aug, self._judged_splits())
        return precompute(self, learner, position, views, workspace) if views else {}

    def regressed_head(self, activations: Activations) -> State:
        """A linear head fitted to all precomputed views of the training rows."""
        views = [ShardedRows(activations[key]) for key in sorted(activations) if key[0] == "train"]
        rows = np.arange(len(self.rows["train"]))
        fitted_on = [view.gather(rows).numpy() for view in views]
        return fit_linear_head(fitted_on, self.targets("train"), self.target.outputs, self.target.class_weights)

    def frozen_body(self, learner: Learner, position: int) -> Body:
        """The body with its batch norms folded into its convolutions."""
        folded = copy.deepcopy(cast(Body, learner.network.body)).cpu().eval()
        fold_batch_norms(folded, self.sizes[position])
        return folded.to(self.device).to(memory_format=torch.channels_last)

    def _judged_splits(self) -> list[str]:
        return [split for split in ("valid", "test") if len(self.rows[split])]

    # --- what is shown

    @property
    def kept_file(self) -> Path:
        """The index of images."""
        return Path(self.prepared.files["index"])

    def describe(self) -> Findings:
        """Rejected files, a grid of augmented images, the model's summary."""
        found, params = Findings(), self.params
        rejected = self.index.rejected.to_pylist()
        if rejected:
            found.frame("data/rejected.feather", self.index.rejected.to_pandas())
            note = f"{len(rejected):,} files were rejected"
            if len(rejected) > MOST_ROWS_SHOWN:
                note += f"; the first {MOST_ROWS_SHOWN} are shown, all are in data/rejected.feather of the MLflow run"
            found.table("rejected", note, rejected[:MOST_ROWS_SHOWN])
        found.notices += notes_of(self.index)
        found.add(self.target.imbalance(self.targets("train")))
        if contradicting := [row for row in rejected if row["reason"].startswith(CONTRADICTION)]:
            row = contradicting[0]
            found.notices.append(
                f"warning: {len(contradicting):,} files are rejected because the same image has another label "
                f"elsewhere, such as {row['path']} (labelled {row['label']!r}): "
                f"{row['reason'].removeprefix(CONTRADICTION).strip()}; keep the right ones, or set data.labels to "
                "multiple if images in class folders have several labels"
            )
        for split in ("valid", "test"):
            copies = [row for row in rejected if row["split"] == split and row["reason"].startswith(COPY)]
            if copies:
                found.notices.append(
                    f"warning: {len(copies):,} {SECTION_NAMES[split]} images are left out because they are byte for "
                    f"byte those of another split, such as {copies[0]['path']}: {copies[0]['reason']}"
                )
        sizes = self.prepared.splits
        test = f", {sizes['test']:,} test" if sizes["test"] else ""
        found.lines.append(self.index.understood)
        found.lines.append(
            f"{sizes['train']:,} training and {sizes['valid']:,} validation{test} images of {self._kinds}"
        )
        if self.ranking:
            found.lines += self.decided()
            found.table("backbones", "Backbones, the lowest log loss first", described(self.ranking)[1])
        found.lines += plan(params, sizes["train"])
        title = f"Augmentation: {params.augment.preset}"
        found.figure("data/augmentation.png", title, lambda: plot_images(*self._augmented(), title))
        trained = self._sample("train")
        for split in self._judged_splits():
            shift = shown_shift(image_drift(trained, self._sample(split)))
            found.table(SHIFTS[split], f"{SECTION_NAMES[split].capitalize()} images against training images", shift)
        summary = pd.DataFrame(summarise(self.network()))
        found.text("model_summary.txt", f"{params.model.backbone}\n\n{summary.to_string(index=False)}\n")
        return found

    def decided(self) -> list[str]:
        """The ranking of backbones, if the choice was left open."""
        return described(self.ranking)[0] if self.ranking else []

    def tags(self) -> dict[str, str]:
        """The backbone that was found."""
        return {BACKBONE: self.params.model.backbone} if self.ranking else {}

    @property
    def _kinds(self) -> str:
        """What the images are of: ``3 classes``."""
        count = len(self.index.classes)
        if not self.index.multiple:
            return f"{count} classes"
        return f"{count} labels, {self.index.targets().sum() / len(self.index):.2f} an image"

    def _augmented(self) -> tuple[np.ndarray, list[str]]:
        """Some training images with random views beside each, (N, S, S, 3) uint8, and captions."""
        rows = self.rows["train"][:PREVIEWED].repeat(4)
        images = self.cache(0).gather(rows).float().div_(255)
        generator = torch.Generator().manual_seed(self.params.seed)
        augmented = apply_views(images, draw_views(len(rows), self.params.augment, generator))
        augmented[::4] = images[::4]
        captions = ["original" if number % 4 == 0 else "augmented" for number in range(len(rows))]
        return augmented.mul(255).byte().permute(0, 2, 3, 1).numpy(), captions

    def reference(self) -> pd.DataFrame:
        """Statistics and labels of a sample of the training images."""
        sample = self._sample("train")
        return sample.statistics.assign(label=list(sample.labels))

    def _sample(self, split: str) -> ImageSample:
        """Statistics and labels of a sample of a split, without features."""
        rows = sample_rows(self.rows[split], SAMPLED)
        statistics = image_statistics(self.cache(0).gather(rows).permute(0, 2, 3, 1).numpy())
        return ImageSample(self.index.rows["label"].take(rows).to_pylist(), statistics, np.empty((0, 1)))

    def candidates(
        self, learner: Learner, position: int, activations_of: ActivationsOf, snapshots: Sequence[State]
    ) -> Iterator[Candidate]:
        """See `unfreeze.models.images.candidates.image_candidates`."""
        yield from super().candidates(learner, position, activations_of, snapshots)
        yield from image_candidates(self, learner, position, activations_of, bool(snapshots))

    def predictions(self, learner: Learner, candidate: Candidate, activations: Activations, split: str) -> np.ndarray:
        """Probabilities (N, C) float64 of the plain view."""
        views = self.evaluation_views(candidate.position, split, activations)
        none = TtaSpec(n_aug=0)
        members = self.of_members(learner, candidate, lambda: predict_views(learner, views, none)[0])
        return np.asarray(np.mean(members, axis=0))

    def of_members(self, learner: Learner, candidate: Candidate, predict: Callable[[], Result]) -> list[Result]:
        """What `predict` returns with each of the candidate's networks in the learner's place."""
        kind, model = candidate.parts.get("head"), self.params.model
        body = cast(Body, learner.network.body)
        head = HEADS[kind](body.features, len(self.index.classes), model.head_width, model.dropout) if kind else None
        return learner.of_members(candidate.states, predict, head)

    def evaluate(
        self, learner: Learner, candidate: Candidate, activations: Activations, section: str
    ) -> tuple[Findings, Candidate]:
        """See `unfreeze.models.images.evaluation.evaluate`."""
        return evaluate(self, learner, candidate, activations, section)

    def plain_activations(self, activations: Activations) -> tuple[np.ndarray, np.ndarray]:
        """Of training and then validation rows, without augmentation: (N, D) float32, and their targets."""
        files = [ShardedRows(activations[split, 0]) for split in ("train", "valid")]
        rows = np.concatenate([file.gather(np.arange(len(file))).numpy() for file in files])
        return rows, np.concatenate([self.targets(split) for split in ("train", "valid")])

    def plain_groups(self) -> np.ndarray | None:
        """Groups of the rows of `plain_activations`, int64, if there are any."""
        return self.index.groups(np.concatenate([self.rows["train"], self.rows["valid"]]))

    def cross_validation(self, activations_of: ActivationsOf, workspace: Workspace) -> Findings:
        """Of logistic regression, where a stage reads precomputed activations of the plain training images."""
        plain = [place for place, stage in enumerate(self.params.recipe) if stage.precompute]
        if len(self.rows["valid"]) >= FEW_ROWS or not plain:
            return Findings()
        metrics = self.target.metrics(self.metric_names())
        activations, targets = self.plain_activations(activations_of(plain[0]))
        with workspace.progress("Cross-validating logistic regression") as advance:
            return cross_validate(activations, targets, self.target, metrics, self.plain_groups(), advance)

    # --- the model

    def refits(self, candidate: Candidate) -> bool:
        """See `unfreeze.models.images.candidates`."""
        return bool(parts_to_refit(self, candidate))

    def refitted(
        self, candidate: Candidate, results: Sequence[Mapping[str, Any]], workspace: Workspace
    ) -> tuple[Candidate, str]:
        """See `unfreeze.models.images.candidates`."""
        return refit(self, candidate, results, workspace)

    def save(self, folder: Path, candidate: Candidate) -> None:
        """Write ``model.safetensors`` and ``model.json``, and beside them the model that was judged, if another."""
        if candidate.judged is not None:
            self.save(folder / JUDGED, candidate.judged)
        model = self.params.model.model_copy(update={"head": candidate.parts.get("head", self.params.model.head)})
        params = self.params.model_copy(update={"model": model})
        save_classifier(
            folder,
            candidate.states,
            params,
            self.preprocessing,
            self.target,
            self.sizes[candidate.position],
            bool(candidate.with_tta),
            self.index.ranges,
            candidate.calibration,
        )

    def example(self) -> pd.DataFrame:
        """One encoded image; a synthetic one unless real data may be kept."""
        image = example_image(self.sizes[-1])
        if self.params.tracking.keep_examples:
            image = Path(self.index.rows["path"][int(self.rows["valid"][0])].as_py()).read_bytes()
        return pd.DataFrame({"image": [image]})

    def summary(self, candidate: Candidate, metrics: Mapping[str, float]) -> str:
        """Classes, source, the model that is kept, and its headline of the validation."""
        defined = [name for name in self.target.headline if f"valid/{name}" in metrics]
        shown = ", ".join(f"{name} {metrics[f'valid/{name}']:.4f}" for name in defined)
        return f"{self._kinds} of {self.params.data.source}; {candidate.title}, validation rows: {shown}"
