"""Model folder of a trained image classifier, and its predictor.

MLflow loads it through `_load_pyfunc`; nothing here imports MLflow, so the folder can be served without it.
"""

import io
import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from unfreeze.models.errors import UserError
from unfreeze.models.images.batches import CPU_FORWARD_SIZE
from unfreeze.models.images.networks.backbones import Body, fold_batch_norms
from unfreeze.models.images.networks.classifier import build_classifier, normalise, normalise_bytes
from unfreeze.models.images.networks.weights import Preprocessing
from unfreeze.models.images.pixels.augmentation import apply_views, average_views, numbered_view
from unfreeze.models.images.pixels.bit_depth import Ranges
from unfreeze.models.images.pixels.decode import UnreadableImage, encoded, make_square, read_image
from unfreeze.models.settings import AugmentSpec, DataSpec, ModelSpec, TrainImages, TtaSpec
from unfreeze.models.store.content import hash_image, map_in_order
from unfreeze.models.store.model_folder import (
    TEMPERATURE,
    WITH_TTA,
    load_networks,
    loading,
    read_description,
    save_model_folder,
)
from unfreeze.models.store.rows_on_disk import OnDisk, mapped
from unfreeze.models.targets import Target, target_from
from unfreeze.models.targets.conformal import answers, kept_scores
from unfreeze.models.targets.predictions import Chunk as PredictedChunk
from unfreeze.models.training.network import Network, State
from unfreeze.models.training.precision import pick_precision, ready_device

THREADS = max(2, os.cpu_count() or 2)
"""Decoding threads; PIL and the forward pass release the GIL."""
BATCHES_AHEAD = 4
"""Maximum number of batches decoded ahead of the forward pass."""

ImageSource = bytes | str | Path
"""Encoded bytes, or a file's path."""
LISTING = pa.schema([("name", pa.string()), ("path", pa.binary())])
"""Columns of the file of a listing: the name of each image in the predictions, and its path."""
Compute = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(decoded (B, ...), positions (B,) int64) -> results (B, K)."""


class Chunk(NamedTuple):
    """Results for consecutive images."""

    positions: np.ndarray
    """Positions of the readable images, (n,) int64, ascending."""
    results: np.ndarray
    """One row per readable image, (n, K)."""
    unreadable: dict[int, str]
    """Position -> reason, for unreadable images."""


def save_classifier(
    folder: Path,
    states: Sequence[State],
    params: TrainImages,
    preprocessing: Preprocessing,
    target: Target,
    size: int,
    with_tta: bool = False,
    ranges: Ranges = MappingProxyType({}),
    calibration: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write ``model.safetensors`` and ``model.json`` into `folder`: everything that prediction and TTA need.

    Parameters
    ----------
    states
        Weights of the trained networks; their probabilities are averaged.
    size
        Image side in pixels.
    ranges
        Black and white levels for more than 8 bits per sample.
    calibration
        See `unfreeze.models.recipe.training_data.Candidate.calibration`.
    """
    description = {
        "modality": "images",
        "model": {**params.model.model_dump(), "weights": "none"},
        "preprocessing": asdict(preprocessing),
        "target": target.settings(),
        "size": size,
        "fit": params.data.fit,
        "max_megapixels": params.data.max_megapixels,
        "pixel_ranges": dict(ranges),
        "precision": params.precision,
        "augment": params.augment.model_dump(),
        "tta": params.tta.model_dump(),
        WITH_TTA: with_tta,
        **calibration,
    }
    save_model_folder(folder, states, description)


def example_image(size: int) -> bytes:
    """Generate a PNG of `size` pixels, used as a model's input example instead of a real photo."""
    ramp = np.linspace(0, 255, size).astype(np.uint8)
    return encoded(np.dstack(np.broadcast_arrays(ramp, ramp[:, None], np.uint8(128))))


class ImagePredictor:
    """Predictor of classes or labels of encoded images; matches the evaluation to within rounding.

    Parameters
    ----------
    folder
        Folder that `save_classifier` wrote.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Attributes
    ----------
    classes : list of str
        The C classes or labels, in the order of the probabilities.
    size : int
        Side of the input squares, in pixels.
    batch_size : int
        Images per forward pass.
    overlaps : bool
        Whether images are decoded during the forward pass.
    ranges : Ranges
        Black and white levels for more than 8 bits per sample.
    tta : TtaSpec
        Views of test-time augmentation.
    with_tta : bool
        Whether the model predicts with TTA, as it was evaluated.
    runs : sequence of callables
        Map normalised images to logits: the networks or their replacements.
    """

    def __init__(self, folder: Path, device: str = "auto") -> None:
        with loading(folder):
            about = read_description(folder)
            self.target = target_from(about["target"])
            self.classes = [str(each) for each in self.target.classes]
            if not (self.classes and about["networks"] > 0):
                raise UserError("its description has no classes or no network; train and register it again")
            data = DataSpec.model_validate({name: about[name] for name in ("size", "fit", "max_megapixels")})
            self.size, self.fit, self.max_megapixels = int(about["size"]), data.fit, data.max_megapixels
            # Models of release 0.1 have no ranges.
            self.ranges: Ranges = {kind: tuple(ends) for kind, ends in about.get("pixel_ranges", {}).items()}
            self.preprocessing = Preprocessing(**about["preprocessing"])
            self.augment, self.tta = AugmentSpec(**about["augment"]), TtaSpec(**about["tta"])
            self.with_tta = bool(about.get(WITH_TTA, False))
            self.temperature, self.scores = float(about.get(TEMPERATURE, 1.0)), kept_scores(about)
            self.device = ready_device(device)
            self.overlaps = self.device.type != "cpu"
            self.batch_size = 64 if self.overlaps else CPU_FORWARD_SIZE
            self.precision = pick_precision(about["precision"], self.device)
            model = ModelSpec(**about["model"])

            def make() -> Network:
                return build_classifier(model, len(self.classes), 0, [self.size])

            self.networks = []
            for network in load_networks(folder, make):
                fold_batch_norms(cast(Body, network.body), self.size)
                self.networks.append(network.to(self.device).to(memory_format=torch.channels_last))
            self.runs: Sequence[Callable[[torch.Tensor], torch.Tensor]] = self.networks

    def probabilities(self, images: Sequence[ImageSource], tta: bool | None = None) -> np.ndarray:
        """Predict probabilities (N, C) float64 of encoded images (bytes) or image files (paths).

        Parameters
        ----------
        images
            TTA views are seeded by each image's content, independent of the others.
        tta
            Whether to average the plain view with random ones, see `evaluation.predict_views`; None: as evaluated.

        Raises
        ------
        UserError
            For an unreadable image; names the row.
        """
        chunks = self.stream(images, self.batch_size, tta)
        return _strictly(chunks, np.empty((0, len(self.classes))), images)

    def features(self, images: Sequence[ImageSource]) -> np.ndarray:
        """Compute the body's pooled features (N, D) float32; raises a `UserError` that names an unreadable image."""

        def compute(squares: np.ndarray, positions: np.ndarray) -> np.ndarray:
            with torch.inference_mode(), self.precision.autocast(training=False):
                features = self.networks[0].body(normalise_bytes(self.pixels(squares), self.preprocessing))
            in_memory: np.ndarray = features.float().cpu().numpy()
            return in_memory

        chunks = stream(images, self.square, compute, self.batch_size, self.batch_size, overlap=self.overlaps)
        return _strictly(chunks, np.empty((0, cast(Body, self.networks[0].body).features), np.float32), images)

    def stream(
        self, images: Sequence[ImageSource], chunk: int = 1024, tta: bool | None = None, start: int = 0
    ) -> Generator[Chunk, None, None]:
        """Yield probabilities chunk by chunk; unreadable images are reported with the reason.

        Parameters
        ----------
        images, tta
            See `probabilities`.
        chunk, start
            See the function `stream`.

        Yields
        ------
        Chunk
            With probabilities (n, C) float64.
        """
        numbers = range(1, self.tta.n_aug + 1) if (self.with_tta if tta is None else tta) else ()

        def compute(squares: np.ndarray, positions: np.ndarray) -> np.ndarray:
            pixels = self.pixels(squares)
            plain = self._classify(normalise_bytes(pixels, self.preprocessing))
            if not numbers:
                return self.target.tempered(plain, self.temperature)
            shares = pixels.float().div_(255)
            contents = [hash_image(images[position]) for position in positions]
            views = [numbered_view(number, contents, self.augment) for number in numbers]
            others = [self._classify(normalise(apply_views(shares, view), self.preprocessing)) for view in views]
            return self.target.tempered(average_views(plain, others), self.temperature)

        return stream(images, self.square, compute, self.batch_size, chunk, start, overlap=self.overlaps)

    def chunks(
        self, source: Mapping[str, Any], size: int, first: int, tta: bool | None
    ) -> Generator[PredictedChunk, None, None]:
        """Predict a listing of images from position `first`, `size` images at a time; unreadable ones are reported.

        Raises
        ------
        UserError
            If TTA is requested from a model trained without it.
        """
        if tta and not self.tta.n_aug:
            raise UserError("tta: this model was trained with tta.n_aug 0, so that it has no views; omit --tta")
        listed = mapped(Path(source["path"]))
        names_of = OnDisk(listed.select(["name"]), str)
        files: OnDisk[str] = OnDisk(listed.select(["path"]), os.fsdecode)
        with closing(self.stream(files, size, tta, first)) as chunks:
            for chunk in chunks:
                names = names_of[first : first + size]
                errors = {
                    position - first: reason if files[position] else "there is no path in this row"
                    for position, reason in chunk.unreadable.items()
                }
                yield PredictedChunk(names, chunk.positions - first, chunk.results, errors)
                first += len(names)

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Predict a frame with a column ``image`` of encoded bytes; see `conformal.answers` for the result.

        Paths are refused, because a client could make a server open its own files. `probabilities` accepts them.

        Raises
        ------
        UserError
            For rows without bytes, and for an unreadable image (names the row).
        """
        images = model_input["image"].tolist() if "image" in model_input else []
        contents = [image for image in images if isinstance(image, bytes)]
        if not len(contents) == len(images) == len(model_input):
            raise UserError("predict: give the encoded bytes of every image in a column `image`, not its path")
        return answers(self.target, self.probabilities(contents), self.scores, params)

    def square(self, source: ImageSource) -> np.ndarray:
        """The network's input square of an image, uint8 (S, S, 3)."""
        file = io.BytesIO(source) if isinstance(source, bytes) else Path(source)
        image = read_image(file, self.max_megapixels, self.size, self.ranges)
        return make_square(image, self.size, self.fit, self.preprocessing.interpolation)

    def pixels(self, squares: np.ndarray) -> torch.Tensor:
        """Move squares (B, S, S, 3) uint8 to the device as a batch (B, 3, S, S)."""
        return torch.from_numpy(squares).to(self.device).permute(0, 3, 1, 2)

    def _classify(self, inputs: torch.Tensor) -> np.ndarray:
        with torch.inference_mode(), self.precision.autocast(training=False):
            logits = [run(inputs).double().cpu() for run in self.runs]
        return self.target.average([self.target.predictions(each) for each in logits])


def stream(
    images: Sequence[ImageSource],
    decode: Callable[[ImageSource], np.ndarray],
    compute: Compute,
    batch_size: int,
    chunk: int,
    start: int = 0,
    overlap: bool = True,
    threads: int = THREADS,
) -> Generator[Chunk, None, None]:
    """Decode and compute, chunk by chunk, in order; threads decode ahead of the forward pass, in bounded memory.

    With an accelerator, decoding overlaps the forward pass. On a CPU both compete for the same cores, so a few batches
    are decoded on all cores and then computed on all cores: a sixth faster than overlapping (185 against 161 images a
    second on two cores, efficientnet-lite0).

    Batches never cross a chunk boundary, so a stream resumed at a chunk gives bit-identical results. Memory:
    `BATCHES_AHEAD` decoded batches, the current batch, a chunk of results and an image per thread.

    Parameters
    ----------
    decode
        Decodes an image to an array of a fixed shape, or raises `UnreadableImage`. Called on threads.
    compute
        Called in the caller's thread, with at most `batch_size` images.
    start
        Position of the first image to read; chunks start there.
    overlap
        Whether to decode while `compute` runs, instead of alternating.
    """

    def decoded(position: int) -> tuple[int, np.ndarray | str]:
        try:
            return position, decode(images[position])
        except UnreadableImage as error:
            return position, str(error)

    def in_turns(lot: int) -> Generator[tuple[int, np.ndarray | str], None, None]:
        for first in range(start, len(images), lot):
            yield from list(map_in_order(decoded, range(first, min(first + lot, len(images))), threads, lot))

    lot = BATCHES_AHEAD * batch_size
    ahead = map_in_order(decoded, range(start, len(images)), threads, lot) if overlap else in_turns(lot)
    with closing(ahead):  # stops the threads if the generator is closed early
        for first in range(start, len(images), chunk):
            yield _one_chunk(islice(ahead, min(chunk, len(images) - first)), compute, batch_size)


def _one_chunk(decoded: Iterable[tuple[int, np.ndarray | str]], compute: Compute, batch_size: int) -> Chunk:
    unreadable: dict[int, str] = {}

    def readable() -> Generator[tuple[int, np.ndarray], None, None]:
        for position, image in decoded:
            if isinstance(image, str):
                unreadable[position] = image
            else:
                yield position, image

    images = readable()
    positions: list[int] = []
    results: list[np.ndarray] = []
    while batch := list(islice(images, batch_size)):
        here, squares = zip(*batch, strict=True)
        positions += here
        results.append(compute(np.stack(squares), np.array(here, dtype=np.int64)))
    together = np.concatenate(results) if results else np.empty((0, 0))
    return Chunk(np.array(positions, dtype=np.int64), together, unreadable)


def _strictly(chunks: Generator[Chunk, None, None], nothing: np.ndarray, images: Sequence[ImageSource]) -> np.ndarray:
    """Concatenate all results; raises an error for the first unreadable image."""
    results = [nothing]
    with closing(chunks):
        for chunk in chunks:
            if chunk.unreadable:
                row, reason = min(chunk.unreadable.items())
                image = images[row]
                named = "the image" if isinstance(image, bytes) else str(image)
                raise UserError(f"row {row}: {named} cannot be read: {reason.removeprefix('cannot be read: ')}")
            results.append(chunk.results)
    return np.concatenate(results)


def _load_pyfunc(data_path: str) -> ImagePredictor:
    """Entry point for ``mlflow.pyfunc.load_model``."""
    return ImagePredictor(Path(data_path))
