"""The image modality: preparation, binding, loading and comparison."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from unfreeze.models.errors import UserError, choose
from unfreeze.models.evaluation.comparison import Comparison
from unfreeze.models.evaluation.drift import ImageSample, image_drift, image_statistics
from unfreeze.models.evaluation.results import Explanation
from unfreeze.models.images.backbone_choice import (
    AUTO,
    RANKING_VERSION,
    at_hand,
    rank,
    read_ranking,
    sample_of,
    with_backbone,
)
from unfreeze.models.images.bound import SAMPLED, image_sizes
from unfreeze.models.images.data import ImageData
from unfreeze.models.images.listing.packed import local_images
from unfreeze.models.images.listing.rows import Listing, unite_copies, without_excluded
from unfreeze.models.images.listing.sources import Unlabelled, list_unlabelled, resolve_source
from unfreeze.models.images.listing.splits import group_label, grouped
from unfreeze.models.images.networks.backbones import preprocessing_of
from unfreeze.models.images.networks.classifier import DEFAULT_HEAD, HEADS
from unfreeze.models.images.networks.weights import check_backbone
from unfreeze.models.images.pixels.augmentation import MIXES
from unfreeze.models.images.pixels.cache import build_image_caches, image_store
from unfreeze.models.images.pixels.index import Index, build_index
from unfreeze.models.images.serving.explain import explain_images
from unfreeze.models.images.serving.predictor import LISTING, THREADS, ImagePredictor
from unfreeze.models.own_parts import is_own
from unfreeze.models.reading.sampling import sample_rows
from unfreeze.models.recipe.modality import Modality, ModelVersion
from unfreeze.models.recipe.training_data import SPLITS, Prepared
from unfreeze.models.settings import DataSpec, TrainImages
from unfreeze.models.settings.predict import Explain, Predict
from unfreeze.models.store.content import hash_file
from unfreeze.models.store.known_contents import hash_changed
from unfreeze.models.store.model_folder import judged_folder
from unfreeze.models.store.paths import given_path
from unfreeze.models.store.rows_on_disk import texts_on_disk, write_rows
from unfreeze.models.store.sealed_files import is_intact
from unfreeze.models.store.workspace import Derived, Workspace, key_of
from unfreeze.models.targets import MultiLabel, SingleLabel, Target, check_metrics

INDEX_VERSION = 7
"""Increment when the same files would give another index; part of the cache key."""
_LABELS = {True: "any number of labels", False: "one label"}
_TARGETS: dict[str, type[Target]] = {"single": SingleLabel, "multiple": MultiLabel}
"""`data.labels` -> kind of target."""
FEWEST_NEW = 32
"""Below this number of new images, drift is measured on all images."""


class Images(Modality):
    """Single-label or multi-label images."""

    name, spec, suffix, rows = "images", TrainImages, "classifier", "images"
    loader = "unfreeze.models.images.serving.predictor"
    requirements = (
        *("torch", "torchvision", "timm", "safetensors", "pydantic", "pillow", "numpy", "pandas", "pyarrow"),
        *("scikit-learn", "matplotlib", "filelock", "xxhash"),
    )
    chunk, key = 1024, pa.field("path", pa.string())

    def check(self, params: TrainImages) -> None:
        """Reject unknown backbones, heads and metrics."""
        if params.model.backbone != AUTO:
            check_backbone(params.model.backbone)
        if not is_own(params.model.head or DEFAULT_HEAD):
            choose(HEADS, params.model.head or DEFAULT_HEAD, "model.head")
        if params.augment.mix != "none":
            choose(MIXES, params.augment.mix, "augment.mix")
        known = [each for each in _TARGETS if params.data.labels in ("auto", each)]
        check_metrics([_TARGETS[each].task for each in known], params.metrics, params.select)
        if len(known) == 1:
            _TARGETS[known[0]]().check(params.optimizer)

    # --- preparation

    def prepare(self, params: TrainImages, workspace: Workspace, earlier: Path | None = None) -> Prepared:
        """List, hash, verify and split the files; resize every image once per size of the recipe."""
        index_path = self.index(params, workspace, earlier)
        index = Index.load(index_path)
        ranking = self._rank_backbones(params, index, workspace)
        params = with_backbone(params, read_ranking(ranking.get("backbones")))
        caches = self._resize(params, index, workspace)
        files = {"index": str(index_path), **ranking, **caches}
        splits = {split: len(index.rows_of(split)) for split in SPLITS}
        return Prepared(self.name, index.digest, index.fingerprint(), files, splits)

    def index(self, params: TrainImages, workspace: Workspace, earlier: Path | None = None) -> Path:
        """Verify every image by decoding it, exclude unusable ones and split; returns the index's path."""
        data, before = params.data, Index.load(earlier) if earlier is not None else None
        if before is not None and data.labels == "auto":
            data = data.model_copy(update={"labels": "multiple" if before.multiple else "single"})

        limit = str(data.max_megapixels)
        contents = workspace.path(Derived("contents", key_of(data.source)))
        latest = contents.with_name(f"{contents.stem}-{key_of(limit, INDEX_VERSION)}.latest")

        def list_files() -> tuple[Listing, Sequence[str]]:
            local = _local(data, workspace)
            listing = grouped(resolve_source(local, workspace.datasets), local)
            listing, left_out = without_excluded(listing, data.exclude)
            hashes: Sequence[str] = hash_changed((path for (path,) in listing.files.columns("path")), contents, THREADS)
            listing, hashes = unite_copies(listing, hashes, data.labels)
            workspace.log(f"{listing.name}: {listing.understood} ({len(hashes):,} files)")
            if before is not None and before.multiple != listing.multiple:
                now, then = (_LABELS[each.multiple] for each in (listing, before))
                raise UserError(
                    f"data.labels: {listing.name} has {now} per image, and the training of data.split_like had {then}; "
                    "set data.labels to auto, or train a model of another name"
                )
            for note in (listing.note, listing.how, group_label(listing), left_out):
                if note:
                    workspace.notice(f"{listing.name}: {note}")
            return listing, hashes

        # Not cached: changes are found only by looking at the files.
        listing, hashes = workspace.step(f"list images of {data.source}", list_files)

        def build(wanted: dict[str, Path]) -> None:
            sides = before.sides() if before is not None else {}
            known = _latest_rows(latest)
            with workspace.progress("Verifying images") as advance:
                build_index(listing, hashes, data, advance, earlier=sides, known=known).save(wanted["index"])

        rows = listing.files.columns("path", "label", "split", "group")
        files = (
            [path.decode(), label, split, content, group]
            for (path, label, split, group), content in zip(rows, hashes, strict=True)
        )
        settings = data.model_dump(
            include={"valid_fraction", "test_fraction", "split_seed", "split_like", "max_megapixels", "pixel_range"}
        )
        derived = Derived(
            "indexes", key_of(listing.name, listing.multiple, listing.told, files, settings, INDEX_VERSION)
        )
        path = workspace.derive("index images", {"index": derived}, build)["index"]
        latest.write_text(str(path))
        return path

    def _rank_backbones(self, params: TrainImages, index: Index, workspace: Workspace) -> dict[str, str]:
        """Rank the networks whose weights are on this machine, if the training leaves the choice open."""
        if params.model.backbone != AUTO:
            return {}
        names, sizes = at_hand(), [stage.size for stage in params.recipe]
        of_data = params.data.model_dump(include={"size", "fit", "max_megapixels"})
        key = key_of(index.digest, names, of_data, sizes, params.optimizer.class_weights, RANKING_VERSION)
        inner, sample = Workspace(workspace.folder), sample_of(index)

        def build(wanted: dict[str, Path]) -> None:
            drawn = {"index": Derived("indexes", f"{key}-sample")}
            path = inner.derive("draw a sample", drawn, lambda missing: sample.save(missing["index"]))["index"]

            def bind(name: str) -> ImageData:
                model = params.model.model_copy(update={"backbone": name})
                tried = params.model_copy(update={"model": model})
                files = {"index": str(path), **self._resize(tried, sample, inner)}
                return ImageData(tried, Prepared(self.name, sample.digest, "", files))

            with workspace.progress("Ranking backbones") as advance:
                _write(wanted["backbones"], rank(names, bind, len(index.rows_of("train")), inner, advance))

        files = {"backbones": Derived("backbones", key, ".json")}
        return {"backbones": str(workspace.derive("rank backbones", files, build)["backbones"])}

    def _resize(self, params: TrainImages, index: Index, workspace: Workspace) -> dict[str, str]:
        """Side in pixels -> image cache."""
        preprocessing, fit = preprocessing_of(params.model), params.data.fit
        contents, interpolation = index.contents, preprocessing.interpolation
        sizes = sorted(set(image_sizes(params, index, preprocessing)))
        stores = {size: image_store(workspace, size, fit, interpolation, index.ranges) for size in sizes}
        files = {str(size): store.list_of(contents) for size, store in stores.items()}

        def build(wanted: dict[str, Path]) -> None:
            targets = {int(size): path for size, path in wanted.items()}
            limit = params.data.max_megapixels
            with workspace.progress("Resizing images") as advance:
                build_image_caches(index, targets, fit, interpolation, limit, THREADS, workspace, advance)

        return {size: str(path) for size, path in workspace.derive("resize images", files, build).items()}

    def bind(self, params: TrainImages, prepared: Prepared) -> ImageData:
        """The spec bound to its images."""
        return ImageData(params, prepared)

    def look(self, params: TrainImages, workspace: Workspace) -> list[Path]:
        """List the source's files."""
        return [file.path for file in list_labelled(params.data, workspace).files]

    # --- the trained model

    def load(self, folder: Path, device: str = "auto") -> ImagePredictor:
        """Load the classifier in a model folder."""
        return ImagePredictor(folder, device)

    def use_onnxruntime(self, predictor: ImagePredictor, folder: Path, workspace: Workspace) -> None:
        """See `unfreeze.models.images.serving.export`."""
        from unfreeze.models.images.serving.export import use_onnxruntime

        use_onnxruntime(predictor, folder, workspace)

    def list_source(
        self, params: Predict, model: str, folder: Path, workspace: Workspace, without: Sequence[Path]
    ) -> dict[str, Any]:
        """List images without labels, identified by size and time: hashing would read every image twice."""
        listed = list_images(params, workspace, without)
        workspace.notice(f"{params.source}: {listed.understood}")
        content = key_of(iter(listed.names), map(_stamp, listed.files))

        def write(wanted: dict[str, Path]) -> None:
            rows = ((name, os.fsencode(file)) for name, file in zip(listed.names, listed.files, strict=True))
            write_rows(rows, LISTING, wanted["listing"])

        built = workspace.derive("keep listing", {"listing": Derived("listings", content)}, write)
        return {"path": str(built["listing"]), "rows": len(listed.files), "content": content}

    def explain(self, params: Explain, model: str, folder: Path, workspace: Workspace) -> Explanation:
        """Explain by Grad-CAM."""
        listed = [list_images(Predict(source=source), workspace) for source in params.source]
        paths = [path for each in listed for path in each.files if path]
        return explain_images(ImagePredictor(folder, params.device), paths)

    def compare(self, data: Any, champion: ModelVersion, challenger: ModelVersion, margin: float = 0.0) -> Comparison:
        """Compare both versions on test images (validation images if there are none) unseen by the champion.

        Raises
        ------
        UserError
            If there is no such image.
        """
        index: Index = data.index
        sides = Index.load(champion.kept_file).sides()
        contents = index.rows["content"].to_pylist()
        tests = index.rows_of("test")
        known = {"train", "valid"} if len(tests) else {"train"}  # the champion was selected on its validation images
        judged = tests if len(tests) else index.rows_of("valid")
        rows = [row for row in judged if sides.get(contents[row]) not in known]
        if not rows:
            split = "test" if len(tests) else "validation"
            raise UserError(f"no {split} image is left that the champion was not trained on; add images")
        paths = index.rows["path"].take(rows).to_pylist()
        folders = [each.folder if len(tests) else judged_folder(each.folder) for each in (champion, challenger)]
        predictors = [ImagePredictor(folder) for folder in folders]
        before, after = (each.target.frame(each.probabilities(paths)) for each in predictors)
        groups = index.groups(rows)
        blocks = [groups] if groups is not None else []
        return predictors[1].target.compare(index.labels(rows), before, after, margin=margin, blocks=blocks)

    def drift(self, data: Any, champion: ModelVersion, reference: pd.DataFrame) -> tuple[pd.DataFrame, str]:
        """Compare all images' class balance, and new images' statistics and features, with the champion's data."""
        predictor, index = ImagePredictor(champion.folder), data.index
        before = Index.load(champion.kept_file)
        known = before.sides()
        contents = index.rows["content"].to_pylist()
        new = np.array([position for position, content in enumerate(contents) if content not in known], dtype=np.int64)
        rows = sample_rows(new if len(new) >= FEWEST_NEW else np.arange(len(index)), SAMPLED)
        paths = index.rows["path"].take(rows).to_pylist()
        looks = image_statistics(np.stack([predictor.square(path) for path in paths]))
        # Features of the champion's images can be computed only for files that still exist.
        old = sample_rows(before.rows_of("train"), SAMPLED)
        columns = (before.rows[name].take(old).to_pylist() for name in ("path", "content"))
        there = [path for path, content in zip(*columns, strict=True) if hash_file(Path(path)) == content]
        report = image_drift(
            ImageSample(before.occurrences(before.rows_of("train")), reference, predictor.features(there)),
            ImageSample(index.occurrences(range(len(index))), looks, predictor.features(paths)),
        )
        return report, f"{len(new):,} of {len(index):,} images are new; {len(rows)} were compared"


def list_images(params: Predict, workspace: Workspace, without: Sequence[Path] = ()) -> Unlabelled:
    """See `list_unlabelled`; images of a URL or an archive are named by it."""
    local = str(local_images(params.source, workspace).path)
    listed = list_unlabelled(params.model_copy(update={"source": local}), workspace.datasets, without)
    if local == str(given_path(params.source)):
        return listed
    given = params.source.rstrip("/")
    names = (given + name.removeprefix(local) if name.startswith(local) else name for name in listed.names)
    return replace(listed, names=texts_on_disk(names))


def list_labelled(data: DataSpec, workspace: Workspace) -> Listing:
    """See `resolve_source`; files of a URL or in shards are fetched and unpacked first."""
    return resolve_source(_local(data, workspace), workspace.datasets)


def _local(data: DataSpec, workspace: Workspace) -> DataSpec:
    """The settings, with the local files of the source."""
    path, table = local_images(data.source, workspace)
    return data.model_copy(update={"source": str(table or path)})


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def _latest_rows(latest: Path) -> pa.Table | None:
    """Rows of the index that was made last of a source, if it is intact."""
    try:
        path = Path(latest.read_text())
        return Index.load(path).rows if is_intact(path) else None
    except (OSError, ValueError, UserError):
        return None


def _stamp(file: str) -> tuple[int, int]:
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return -1, -1
    return status.st_size, status.st_mtime_ns
