"""A trained classifier as a folder of plain files, and the predictor that reads it.

MLflow loads it through `_load_pyfunc`; nothing here imports MLflow, so the folder can be served alone.
"""

import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from models.errors import UserError
from models.images.backbones import Preprocessing, load_body
from models.images.batches import CPU_FORWARD_SIZE
from models.images.classifier import build_head, normalise
from models.images.decode import UnreadablePicture, make_square, read_picture
from models.model_folder import class_frame, load_weights, read_description, save_model_folder
from models.specs import ModelSpec, TrainImages
from models.training.allocator import reuse_freed_memory
from models.training.network import Network
from models.training.precision import pick_device, pick_precision


def save_classifier(
    folder: Path,
    network: Network,
    params: TrainImages,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    size: int,
) -> None:
    """Write ``model.safetensors`` and ``model.json`` into `folder`: all that prediction and TTA need.

    Parameters
    ----------
    folder
        Where to write; made if need be.
    network
        The trained network.
    params
        What it was trained with.
    preprocessing
        How its pictures are normalised and resized.
    classes
        Names of the C classes, in the order of its logits.
    size
        Side of the pictures that it ends with, in pixels.
    """
    description = {
        "model": {**params.model.model_dump(), "weights": "none"},
        "preprocessing": asdict(preprocessing),
        "classes": list(classes),
        "size": size,
        "fit": params.data.fit,
        "max_megapixels": params.data.max_megapixels,
        "precision": params.precision,
        "augment": params.augment.model_dump(),
        "tta": params.tta.model_dump(),
    }
    save_model_folder(folder, network, description)


class ImagePredictor:
    """Predicts the class of encoded pictures exactly as the evaluation did.

    Parameters
    ----------
    folder
        What `save_classifier` wrote.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    """

    def __init__(self, folder: Path, device: str = "auto") -> None:
        about = read_description(folder)
        self.classes: list[str] = about["classes"]
        self.size, self.fit, self.max_megapixels = about["size"], about["fit"], about["max_megapixels"]
        self.preprocessing = Preprocessing(**about["preprocessing"])
        self.device = pick_device(device)
        if self.device.type == "cpu":
            reuse_freed_memory()
        self.precision = pick_precision(about["precision"], self.device)
        model = ModelSpec(**about["model"])
        body = load_body(model, self.size)
        head = build_head(body.features, len(self.classes), model.head_width, model.dropout)
        network = Network(body, head, [list(block.parameters) for block in body.blocks], body.early_blocks)
        load_weights(folder, network)
        self.network = network.eval().to(self.device).to(memory_format=torch.channels_last)

    def probabilities(self, pictures: Sequence[bytes | str | Path]) -> np.ndarray:
        """Probabilities (N, C) float64 of encoded pictures (bytes) or picture files (paths).

        Raises
        ------
        UserError
            For a picture that cannot be read; says which row.
        """
        size = CPU_FORWARD_SIZE if self.device.type == "cpu" else 64
        results = [np.empty((0, len(self.classes)))]
        for start in range(0, len(pictures), size):
            squares = [self._square(picture, start + row) for row, picture in enumerate(pictures[start : start + size])]
            pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).to(self.device).float().div_(255)
            with torch.inference_mode(), self.precision.autocast(learning=False):
                logits = self.network(normalise(pixels, self.preprocessing))
            results.append(logits.double().softmax(dim=1).cpu().numpy())
        return np.concatenate(results)

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Class, probability and all probabilities for a frame with a column ``image`` (bytes) or ``path`` (text)."""
        column = next(
            (name for name in ("image", "path") if name in model_input and model_input[name].notna().all()), None
        )
        if column is None:
            raise UserError("predict: give every row a picture, in a column `image` (encoded bytes) or `path` (file)")
        return class_frame(self.classes, self.probabilities(model_input[column].tolist()))

    def _square(self, picture: bytes | str | Path, row: int) -> np.ndarray:
        source = io.BytesIO(picture) if isinstance(picture, bytes) else Path(picture)
        try:
            return make_square(
                read_picture(source, self.max_megapixels, at_least=self.size),
                self.size,
                self.fit,
                self.preprocessing.interpolation,
            )
        except UnreadablePicture as error:
            raise UserError(f"row {row}: the picture cannot be read: {error}") from error


def _load_pyfunc(data_path: str) -> ImagePredictor:
    """Entry point for ``mlflow.pyfunc.load_model``."""
    return ImagePredictor(Path(data_path))
