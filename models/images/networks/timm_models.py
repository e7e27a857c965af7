"""Timm networks: names, preprocessing and loading of weights."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import timm
from timm.models import PretrainedCfg, get_pretrained_cfg, is_model_pretrained
from torch import Tensor, nn

from unfreeze.models.errors import UserError
from unfreeze.models.images.networks import weights as files
from unfreeze.models.settings import ModelSpec
from unfreeze.models.store.paths import given_path

TIMM = "timm/"
"""Backbone prefix that selects timm's default weights even if torchvision has the same name."""
ALIASES = {
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
}
"""Torchvision name -> timm name, where they differ."""


@dataclass(frozen=True)
class Preprocessing:
    """Image preprocessing for a set of pretrained weights."""

    mean: tuple[float, float, float]
    """Per channel (red, green, blue), for pixel values in 0..1; so is `std`."""
    std: tuple[float, float, float]
    interpolation: Literal["bilinear", "bicubic"]
    size: int
    """Side of the training images in pixels."""


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


def has_weights(backbone: str) -> bool:
    """Whether a backbone's published weights are on this machine; downloads nothing."""
    name = timm_name(backbone)
    return files.weights_at_hand(name, _config(name)) is not None


def takes_one_size(backbone: str) -> bool:
    """Whether the network accepts only one image size."""
    return bool(_config(timm_name(backbone)).fixed_input_size)


def published_preprocessing(model: ModelSpec) -> Preprocessing:
    """Preprocessing stated by the publisher of the weights."""
    config: Any = _config(timm_name(model.backbone))
    size, interpolation = config.input_size[-1], config.interpolation
    if model.weights == "imagenet" and files.packaged_weights(timm_name(model.backbone)) is not None:
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
    resized = config.fixed_input_size and size != config.input_size[-1]
    options: dict[str, Any] = {"img_size": size} if resized else {}
    if model.weights == "none":
        return timm.create_model(name, num_classes=0, **options)
    packaged = files.packaged_weights(name) if model.weights == "imagenet" else None
    if packaged is not None:
        network = timm.create_model(name)
        files.load_by_order(network, files.read_weights(packaged), f"{packaged} (reinstall the package that it is in)")
        return network
    file = files.published_weights(name, config) if model.weights == "imagenet" else given_path(model.weights)
    state = files.read_weights(file)
    try:
        return _with_weights(name, config, state, options)
    except (RuntimeError, LookupError) as error:
        if isinstance(error, RuntimeError) and "loading state_dict" not in str(error):
            raise
        renamed = None if model.backbone.startswith(TIMM) else _from_torchvision(name, state)
        if renamed is None:
            raise files.misfit(model.weights, error) from error
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


def _from_torchvision(name: str, state: Mapping[str, Tensor]) -> nn.Module | None:
    """Load torchvision weights whose names differ from timm's but whose order is the same; None if they do not fit.

    Needed for MobileNetV2, MNASNet and EfficientNets; timm converts the names of other networks.
    """
    *_, bias = state.values()
    network = timm.create_model(name, num_classes=bias.numel())
    try:
        files.load_by_order(network, state, name)
    except UserError:
        return None
    return network
