"""A trained classifier as a folder of plain files, and the predictor that reads it.

MLflow loads it through `_load_pyfunc`; nothing here imports MLflow, so the folder can be served alone.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from models.errors import UserError
from models.images.backbones import Preprocessing, load_body
from models.images.batches import CPU_FORWARD_SIZE
from models.images.classifier import build_head, normalise
from models.images.decode import UnreadablePicture, make_square, read_picture
from models.specs import ModelSpec
from models.training.allocator import reuse_freed_memory
from models.training.network import Network
from models.training.precision import pick_device, pick_precision

FORMAT_VERSION = 1


def save_classifier(
    folder: Path,
    network: Network,
    model: ModelSpec,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    size: int,
    fit: str,
    max_megapixels: float,
    precision: str,
) -> None:
    """Write ``model.safetensors`` and ``model.json`` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    description = {
        "format": FORMAT_VERSION,
        "model": {**model.model_dump(), "weights": "none"},
        "preprocessing": {
            "mean": preprocessing.mean,
            "std": preprocessing.std,
            "interpolation": preprocessing.interpolation,
            "size": preprocessing.size,
        },
        "classes": list(classes),
        "size": size,
        "fit": fit,
        "max_megapixels": max_megapixels,
        "precision": precision,
    }
    (folder / "model.json").write_text(json.dumps(description, indent=1))


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
        about = json.loads((folder / "model.json").read_text())
        if about["format"] != FORMAT_VERSION:
            raise UserError(f"{folder}: model format {about['format']}, but this release reads {FORMAT_VERSION}")
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
        network.load_state_dict(load_file(folder / "model.safetensors"))
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
        probabilities = self.probabilities(model_input[column].tolist())
        return pd.DataFrame(
            {
                "class": [self.classes[number] for number in probabilities.argmax(1)],
                "probability": probabilities.max(1),
                "probabilities": probabilities.tolist(),
            }
        )

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
