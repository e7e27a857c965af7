"""Export to a folder that ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unfreeze.models.errors import UserError
from unfreeze.models.images.networks.timm_models import timm_name
from unfreeze.models.images.networks.weights import first_line
from unfreeze.models.images.serving.predictor import ImagePredictor
from unfreeze.models.store.model_folder import WEIGHTS, read_description
from unfreeze.models.targets import SingleLabel

CROP_MODES = {"crop": "center", "squish": "squash", "pad": "border"}
"""`data.fit` -> timm's name for it."""
_BODY, _HEAD = "body.network.", "head.0."


def write_timm(folder: Path, predictor: ImagePredictor, model: Path, about: dict[str, Any]) -> None:
    """Write ``config.json`` and ``model.safetensors``, with the temperature folded into the last layer.

    Timm networks return logits. Its validation transform (`timm.data.create_transform`) prepares images by the same
    rule, except that it resizes before cropping, which shifts pixels by rounding.

    Raises
    ------
    UserError
        If timm cannot represent the model: a two-layer head, several networks, or a backbone without concat pooling of
        its last feature map.
    """
    description = read_description(model)
    backbone, head = description["model"]["backbone"], description["model"]["head"]
    if head != "linear":
        raise _refusal(f"its head {head!r} is not a single linear layer on the pooled features")
    if description["networks"] > 1:
        raise _refusal(f"it averages {description['networks']} networks")
    architecture, size = timm_name(backbone).split(".")[0], about["size"]
    arguments: dict[str, Any] = {"global_pool": "catavgmax"}
    if predictor.networks[0].body.required_size is not None:
        arguments["img_size"] = size
    state = load_file(model / WEIGHTS)
    try:
        network = timm.create_model(architecture, num_classes=len(about["classes"]), **arguments)
        published = cast(dict[str, Any], network.pretrained_cfg)
        classifier = published["classifier"]
        kept = {name.removeprefix(_BODY): tensor for name, tensor in state.items() if name.startswith(_BODY)}
        kept |= _last_layer(network, classifier, state[f"{_HEAD}weight"], state[f"{_HEAD}bias"], about["temperature"])
        network.load_state_dict(kept)
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError) as error:
        raise _refusal(f"{architecture} of timm cannot be built with this head ({first_line(error)})") from error
    save_file({name: tensor.contiguous() for name, tensor in kept.items()}, folder / WEIGHTS)
    config = {
        "architecture": architecture,
        "num_classes": len(about["classes"]),
        "num_features": network.num_features,
        "label_names": about["classes"],
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [3, size, size],
            "fixed_input_size": "img_size" in arguments,
            "interpolation": about["interpolation"],
            "crop_pct": 1.0,
            "crop_mode": CROP_MODES[about["fit"]],
            "mean": about["mean"],
            "std": about["std"],
            "first_conv": published["first_conv"],
            "classifier": classifier,
        },
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))


def load_timm(folder: Path, about: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Load an export by timm alone: squares (B, S, S, 3) uint8 to probabilities (B, C)."""
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


def _last_layer(network: nn.Module, name: str, weight: Tensor, bias: Tensor, temperature: float) -> dict[str, Tensor]:
    """Head tensors in timm's naming and order (means are pooled before maxima)."""
    maxima, means = weight.chunk(2, dim=1)
    shape = network.get_parameter(f"{name}.weight").shape
    together = torch.cat([means, maxima], dim=1) / temperature
    return {f"{name}.weight": together.reshape(shape), f"{name}.bias": bias / temperature}


def _refusal(why: str) -> UserError:
    return UserError(f"--to timm: {why}; export it with --to onnx or --to torch, which hold any model")
