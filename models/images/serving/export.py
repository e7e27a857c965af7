"""Export of a classifier for other programs, verified against the model.

The exported graph maps pixels to probabilities: normalisation, networks, averaging and temperature. The consuming
program resizes images by the rule in the description.
"""

import importlib.util
import json
import os
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn

from unfreeze.models.errors import UserError
from unfreeze.models.images.pixels.decode import png
from unfreeze.models.images.pixels.streaming import ImageSource
from unfreeze.models.images.serving.export_timm import load_timm, write_timm
from unfreeze.models.images.serving.predictor import ImagePredictor
from unfreeze.models.reading.sampling import sample_rows
from unfreeze.models.store.sealed_files import CHECKSUMS
from unfreeze.models.store.workspace import Derived, Workspace, key_of
from unfreeze.models.targets import MultiLabel
from unfreeze.models.training.precision import pick_precision

TOLERANCE = 1e-4
"""Largest allowed difference of a probability."""
MOST_ROWS, GENERATED = 1000, 100
"""Maximum number of images to compare on, and number of generated images if none are given."""
RESULT = "export.json"
ONNX_VERSION = 1
"""Increment when the same model would give other files for `use_onnxruntime`."""
Run = Callable[[np.ndarray], np.ndarray]
"""Squares (B, S, S, 3) uint8 -> probabilities (B, C)."""


class PixelClassifier(nn.Module):
    """Exported module: RGB pixels (B, S, S, 3) uint8 to probabilities (B, C) float32.

    Parameters
    ----------
    predictor
        Predictor on the CPU, whose networks are shared.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, predictor: ImagePredictor) -> None:
        super().__init__()
        self.networks, self.temperature = nn.ModuleList(predictor.networks), predictor.temperature
        self.exclusive = not isinstance(predictor.target, MultiLabel)
        preprocessing = predictor.preprocessing
        mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (preprocessing.mean, preprocessing.std))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """See the class."""
        images = torch.addcmul(self.shift, pixels.permute(0, 3, 1, 2).float(), self.scale)
        images = images.contiguous(memory_format=torch.channels_last)
        members: list[torch.Tensor] = [network(images).float() for network in self.networks]
        logits = members[0]
        if len(members) > 1 and self.exclusive:  # logits of the mean probabilities
            logits = torch.stack(members).log_softmax(dim=2).logsumexp(dim=0)
        elif len(members) > 1:
            logits = torch.stack(members).sigmoid().mean(dim=0).logit()
        logits = logits / self.temperature
        return logits.softmax(dim=1) if self.exclusive else logits.sigmoid()


class Format(NamedTuple):
    """How an export is written into a folder, and how it is run by its own library alone."""

    write: Callable[[Path, ImagePredictor, Path, dict[str, Any]], None]
    """Arguments: target folder, model, its folder, and the description that `export_classifier` made."""
    load: Callable[[Path, dict[str, Any]], Run]


def export_classifier(model: Path, to: str, out: Path, images: Sequence[ImageSource] = ()) -> dict[str, Any]:
    """Export a classifier to another format, and verify that it predicts the same.

    Parameters
    ----------
    model
        Folder that `save_classifier` wrote.
    to
        Key of `FORMATS`.
    out
        Folder to create, atomically, with the comparison in ``export.json``.
    images
        Images for the comparison; generated if empty.

    Returns
    -------
    dict
        Content of ``export.json``: ``to``, ``files`` (name -> bytes), ``check`` (rows, unreadable, same answers,
        largest difference of a probability, milliseconds per image) and ``about`` (classes, size, resizing rule, ...).

    Raises
    ------
    UserError
        If `out` exists, a package is missing, the format cannot hold the model, or predictions differ.
    """
    if out.exists():
        raise UserError(f"out: {out} exists already; choose another --out, or remove it")
    predictor = ImagePredictor(model, "cpu")
    predictor.precision = pick_precision("fp32", predictor.device)  # the exported graph computes in fp32
    about, form = _about(predictor), FORMATS[to]
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as unfinished:
        (made := Path(unfinished, out.name)).mkdir()
        form.write(made, predictor, model, about)
        files = {path.name: path.stat().st_size for path in sorted(made.iterdir())}
        chosen = [images[row] for row in sample_rows(np.arange(len(images)), MOST_ROWS)]
        check = _compare(form.load(made, about), predictor, chosen or generated_images(predictor.size))
        result = {"to": to, "files": files, "check": {"generated": not chosen, **check}, "about": about}
        (made / RESULT).write_text(json.dumps(result, indent=1))
        os.rename(made, out)
    return result


def require_onnx(flag: str) -> None:
    """Check that the packages of the extra `export` are installed; raises a `UserError` that names missing ones."""
    absent = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if absent:
        raise UserError(f"{flag} needs {', '.join(absent)}: pip install 'unfreeze[export]'")


def generated_images(size: int) -> list[bytes]:
    """Generate encoded images of coloured blocks in noise, distinct enough for most networks."""
    random, images = np.random.default_rng(0), []
    for _ in range(GENERATED):
        blocks = Image.fromarray(random.integers(0, 256, (*random.integers(1, 9, 2), 3), dtype=np.uint8))
        noise = random.normal(0, random.uniform(0, 40), (size, size, 3))
        pixels = np.asarray(blocks.resize((size, size), Image.Resampling.BICUBIC)) + noise
        images.append(png(pixels.clip(0, 255).astype(np.uint8)))
    return images


def _compare(run: Run, predictor: ImagePredictor, images: Sequence[ImageSource]) -> dict[str, Any]:
    """Compare the export's plain-view probabilities with the model's; raises a `UserError` if they differ too much."""
    rows = same = 0
    largest = seconds = 0.0
    for chunk in predictor.stream(images, predictor.batch_size, tta=False):
        if not len(chunk.positions):
            continue
        squares = [predictor.square(images[position]) for position in chunk.positions]
        expected, began = chunk.results, time.perf_counter()
        got = run(np.stack(squares))
        seconds += time.perf_counter() - began
        rows += len(squares)
        largest = max(largest, float(np.abs(got - expected).max()))
        same += int((_answers(predictor, got) == _answers(predictor, expected)).all(1).sum())
    if not rows:
        raise UserError(f"check: none of {len(images):,} images can be read; give others with --check")
    if same < rows or not largest <= TOLERANCE:
        raise UserError(
            f"the export does not predict what the model does: {rows - same:,} of {rows:,} answers differ, and "
            f"probabilities by up to {largest:.2g} (at most {TOLERANCE:g} may be); nothing was written"
        )
    return {
        "rows": rows,
        "unreadable": len(images) - rows,
        "same_answers": same,
        "largest_difference": largest,
        "ms_per_image": round(1000 * seconds / rows, 2),
    }


def _answers(predictor: ImagePredictor, probabilities: np.ndarray) -> np.ndarray:
    """Predicted class (N, 1), or label decisions (N, C)."""
    target = predictor.target
    return target.answers(probabilities) if isinstance(target, MultiLabel) else probabilities.argmax(1)[:, None]


def _about(predictor: ImagePredictor) -> dict[str, Any]:
    """JSON description for programs that run the export."""
    settings = predictor.target.settings()
    return {
        "classes": predictor.classes,
        "target": settings["name"],
        **{name: settings[name] for name in ("thresholds",) if name in settings},
        "input": "RGB pixels (batch, size, size, 3) uint8, resized by `fit` and `interpolation`",
        "size": predictor.size,
        "fit": predictor.fit,
        "interpolation": predictor.preprocessing.interpolation,
        "mean": predictor.preprocessing.mean,
        "std": predictor.preprocessing.std,
        "temperature": predictor.temperature,
        "networks": len(predictor.networks),
        "evaluated_with_tta": predictor.with_tta,
    }


def _program(predictor: ImagePredictor) -> torch.export.ExportedProgram:
    """Export the graph with a dynamic batch size."""
    pixels = torch.zeros(2, predictor.size, predictor.size, 3, dtype=torch.uint8)
    shapes = {"pixels": {0: torch.export.Dim("batch")}}
    graph = PixelClassifier(predictor).eval()
    with torch.no_grad():
        return torch.export.export(graph, (pixels,), dynamic_shapes=shapes)


def _write_onnx(folder: Path, predictor: ImagePredictor, model: Path, about: dict[str, Any]) -> None:
    require_onnx("--to onnx")
    exported = torch.onnx.export(_program(predictor), dynamo=True, output_names=["probabilities"], verbose=False)
    assert exported is not None
    exported.model.metadata_props.update({name: json.dumps(value) for name, value in about.items()})
    exported.save(folder / "model.onnx", external_data=False)


def open_session(path: Path) -> Any:
    """Open an ``onnxruntime.InferenceSession`` with torch's number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options)


def _load_onnx(folder: Path, about: dict[str, Any]) -> Run:
    session = open_session(folder / "model.onnx")
    return lambda squares: session.run(None, {"pixels": squares})[0]


def _write_torch(folder: Path, predictor: ImagePredictor, model: Path, about: dict[str, Any]) -> None:
    program, about_file = _program(predictor), {"about.json": json.dumps(about)}
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # warns that weights are channels last
        torch.export.save(program, folder / "model.pt2", extra_files=about_file)


def _load_torch(folder: Path, about: dict[str, Any]) -> Run:
    graph = torch.export.load(folder / "model.pt2").module()
    return lambda squares: graph(torch.from_numpy(squares)).detach().numpy()


FORMATS = {
    "onnx": Format(_write_onnx, _load_onnx),
    "torch": Format(_write_torch, _load_torch),
    "timm": Format(write_timm, load_timm),
}
"""`Export.to` -> format."""


class OnnxNetwork:
    """ONNX Runtime network: normalised images (B, 3, S, S) float32 to logits (B, C), on torch's number of threads."""

    def __init__(self, path: Path) -> None:
        self._session = open_session(path)

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return torch.from_numpy(self._session.run(None, {"inputs": inputs.contiguous().numpy()})[0])


def use_onnxruntime(predictor: ImagePredictor, model: Path, workspace: Workspace) -> None:
    """Run a CPU predictor's networks by ONNX Runtime; converted networks are cached in the workspace.

    Raises a `UserError` if a package is missing.
    """
    require_onnx("--runtime onnx")

    def build(wanted: dict[str, Path]) -> None:
        images = torch.zeros(2, 3, predictor.size, predictor.size)
        for number, path in wanted.items():
            exported = torch.onnx.export(
                predictor.networks[int(number)],
                (images,),
                dynamo=True,
                dynamic_shapes={"inputs": {0: torch.export.Dim("batch")}},
                verbose=False,
            )
            assert exported is not None
            exported.save(path, external_data=False)

    key = key_of((model / CHECKSUMS).read_text(), ONNX_VERSION)
    files = {str(number): Derived("onnx", f"{key}-{number}", ".onnx") for number in range(len(predictor.networks))}
    converted = workspace.derive("convert to ONNX", files, build)
    predictor.runs = [OnnxNetwork(path) for path in converted.values()]
