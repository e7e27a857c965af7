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
from typing import Any, cast

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.models import save_for_hf
from torch import nn

from unfreeze.models.errors import UserError
from unfreeze.models.images.networks.classifier import normalise_bytes
from unfreeze.models.images.networks.weights import first_line, interpolates_positions, timm_name
from unfreeze.models.images.pixels.decode import encoded
from unfreeze.models.images.serving.predictor import ImagePredictor, ImageSource
from unfreeze.models.reading.sampling import sample_rows
from unfreeze.models.store.model_folder import WEIGHTS, read_description
from unfreeze.models.store.sealed_files import CHECKSUMS
from unfreeze.models.store.workspace import Derived, Workspace, key_of
from unfreeze.models.targets import MultiLabel, SingleLabel
from unfreeze.models.training.precision import pick_precision

TOLERANCE = 1e-4
"""Largest allowed difference of a probability."""
MOST_ROWS, GENERATED = 1000, 100
"""Maximum number of images to compare on, and number of generated images if none are given."""
RESULT = "export.json"
CROP_MODES = {"crop": "center", "squish": "squash", "pad": "border"}
"""`data.fit` -> timm's name for it."""
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

    def __init__(self, predictor: ImagePredictor) -> None:
        super().__init__()
        self.networks, self.temperature = nn.ModuleList(predictor.networks), predictor.temperature
        self.exclusive, self.preprocessing = predictor.target.exclusive, predictor.preprocessing

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """See the class."""
        images = normalise_bytes(pixels.permute(0, 3, 1, 2), self.preprocessing)
        members: list[torch.Tensor] = [network(images).float() for network in self.networks]
        logits = members[0]
        if len(members) > 1 and self.exclusive:  # logits of the mean probabilities
            logits = torch.stack(members).log_softmax(dim=2).logsumexp(dim=0)
        elif len(members) > 1:
            logits = torch.stack(members).sigmoid().mean(dim=0).logit()
        logits = logits / self.temperature
        return logits.softmax(dim=1) if self.exclusive else logits.sigmoid()


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
    about, (write, load) = _about(predictor), FORMATS[to]
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as unfinished:
        (made := Path(unfinished, out.name)).mkdir()
        write(made, predictor, model, about)
        files = {path.name: path.stat().st_size for path in sorted(made.iterdir())}
        chosen = [images[row] for row in sample_rows(np.arange(len(images)), MOST_ROWS)]
        check = _compare(load(made, about), predictor, chosen or generated_images(predictor.size))
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
        images.append(encoded(pixels.clip(0, 255).astype(np.uint8)))
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


def _program(module: nn.Module, inputs: torch.Tensor) -> torch.export.ExportedProgram:
    """Export a module with a dynamic batch size."""
    with torch.no_grad():
        return torch.export.export(module.eval(), (inputs,), dynamic_shapes=({0: torch.export.Dim("batch")},))


def _graph(predictor: ImagePredictor) -> torch.export.ExportedProgram:
    pixels = torch.zeros(2, predictor.size, predictor.size, 3, dtype=torch.uint8)
    return _program(PixelClassifier(predictor), pixels)


def _save_onnx(program: torch.export.ExportedProgram, path: Path, output: str, about: dict[str, Any]) -> None:
    exported = torch.onnx.export(program, dynamo=True, output_names=[output], verbose=False)
    assert exported is not None
    exported.model.metadata_props.update({name: json.dumps(value) for name, value in about.items()})
    exported.save(path, external_data=False)


def _run_onnx(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Run a file by ONNX Runtime, with torch's number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options)
    name = session.get_inputs()[0].name
    return lambda inputs: cast(np.ndarray, session.run(None, {name: inputs})[0])


def _write_onnx(folder: Path, predictor: ImagePredictor, model: Path, about: dict[str, Any]) -> None:
    require_onnx("--to onnx")
    _save_onnx(_graph(predictor), folder / "model.onnx", "probabilities", about)


def _load_onnx(folder: Path, about: dict[str, Any]) -> Run:
    return _run_onnx(folder / "model.onnx")


def _write_torch(folder: Path, predictor: ImagePredictor, model: Path, about: dict[str, Any]) -> None:
    program, about_file = _graph(predictor), {"about.json": json.dumps(about)}
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # warns that weights are channels last
        torch.export.save(program, folder / "model.pt2", extra_files=about_file)


def _load_torch(folder: Path, about: dict[str, Any]) -> Run:
    graph = torch.export.load(folder / "model.pt2").module()
    return lambda squares: graph(torch.from_numpy(squares)).detach().numpy()


def _write_timm(folder: Path, predictor: ImagePredictor, model: Path, about: dict[str, Any]) -> None:
    """Write a folder for ``timm.create_model("local-dir:FOLDER", pretrained=True)``, whose networks return logits.

    The temperature is folded into the last layer. timm's validation transform (`timm.data.create_transform`) prepares
    images by the same rule, except that it resizes before cropping, which shifts pixels by rounding.

    Raises
    ------
    UserError
        If timm cannot represent the model: a two-layer head, several networks, or a backbone without concat pooling of
        its last feature map.
    """
    refusal = "--to timm: {}; export it with --to onnx or --to torch, which hold any model"
    description, size = read_description(model), about["size"]
    backbone, head = description["model"]["backbone"], description["model"]["head"]
    if head != "linear":
        raise UserError(refusal.format(f"its head {head!r} is not a single linear layer on the pooled features"))
    if description["networks"] > 1:
        raise UserError(refusal.format(f"it averages {description['networks']} networks"))
    architecture = timm_name(backbone).split(".")[0]
    arguments: dict[str, Any] = {"global_pool": "catavgmax"}
    if predictor.networks[0].body.required_size is not None:
        arguments["img_size"] = size
    elif interpolates_positions(timm_name(backbone)):
        arguments["dynamic_img_size"] = True
    state = load_file(model / WEIGHTS)
    try:
        network = timm.create_model(architecture, num_classes=len(about["classes"]), **arguments)
        published = cast(dict[str, Any], network.pretrained_cfg)
        last = published["classifier"]
        kept = {name.removeprefix("body.network."): each for name, each in state.items() if name.startswith("body.")}
        maxima, means = state["head.0.weight"].chunk(2, dim=1)  # timm pools means before maxima
        weight = torch.cat([means, maxima], dim=1) / about["temperature"]
        kept[f"{last}.weight"] = weight.reshape(network.get_parameter(f"{last}.weight").shape)
        kept[f"{last}.bias"] = state["head.0.bias"] / about["temperature"]
        network.load_state_dict(kept)
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError) as error:
        why = f"{architecture} of timm cannot be built with this head ({first_line(error)})"
        raise UserError(refusal.format(why)) from error
    cast(Any, network).pretrained_cfg = {
        **{name: published[name] for name in ("architecture", "first_conv", "classifier")},
        **{name: about[name] for name in ("interpolation", "mean", "std")},
        "input_size": (3, size, size),
        "fixed_input_size": "img_size" in arguments,
        "crop_pct": 1.0,
        "crop_mode": CROP_MODES[about["fit"]],
    }
    save_for_hf(network, str(folder), {"label_names": about["classes"]}, arguments, safe_serialization=True)


def _load_timm(folder: Path, about: dict[str, Any]) -> Run:
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    exclusive = about["target"] == SingleLabel.name
    config = cast(dict[str, Any], network.pretrained_cfg)
    mean, std = (torch.tensor(config[each]).view(1, 3, 1, 1) for each in ("mean", "std"))

    def run(squares: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(squares).permute(0, 3, 1, 2) / 255
        with torch.inference_mode():
            logits = network((pixels - mean) / std)
        probabilities: np.ndarray = (logits.softmax(dim=1) if exclusive else logits.sigmoid()).numpy()
        return probabilities

    return run


FORMATS = {"onnx": (_write_onnx, _load_onnx), "torch": (_write_torch, _load_torch), "timm": (_write_timm, _load_timm)}
"""`Export.to` -> functions that write the format into a folder, and that run it by its own library alone."""


def use_onnxruntime(predictor: ImagePredictor, model: Path, workspace: Workspace) -> None:
    """Run a CPU predictor's networks by ONNX Runtime; converted networks are cached in the workspace.

    Raises a `UserError` if a package is missing.
    """
    require_onnx("--runtime onnx")

    def build(wanted: dict[str, Path]) -> None:
        images = torch.zeros(2, 3, predictor.size, predictor.size)
        for number, path in wanted.items():
            _save_onnx(_program(predictor.networks[int(number)], images), path, "logits", {})

    key = key_of((model / CHECKSUMS).read_text(), ONNX_VERSION)
    files = {str(number): Derived("onnx", f"{key}-{number}", ".onnx") for number in range(len(predictor.networks))}
    predictor.runs = [
        _of_tensors(_run_onnx(path)) for path in workspace.derive("convert to ONNX", files, build).values()
    ]


def _of_tensors(run: Callable[[np.ndarray], np.ndarray]) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda inputs: torch.from_numpy(run(inputs.contiguous().numpy()))
