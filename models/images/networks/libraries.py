"""The networks of timm and torchvision: their names, their weights, and how their images are prepared."""

import difflib
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import timm
import torch
import torchvision
from timm.models import PretrainedCfg, get_pretrained_cfg
from torch import Tensor, nn
from torchvision.models import WeightsEnum
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from unfreeze.models.errors import UserError
from unfreeze.models.images.networks import weights as pretrained
from unfreeze.models.settings import ModelSpec

TIMM = "timm/"
"""Before the name of a timm model in a spec."""
_CLASSIFIER_PARTS = {"avgpool", "flatten", "dropout", "classifier", "fc", "head", "heads", "aux1", "aux2", "AuxLogits"}
# torchvision switches these on together with the weights: they map ImageNet-normalised pixels to mean = std = 0.5.
# The cut network leaves that step out, so the images are normalised so in the first place.
_TRANSFORMED_INPUT = {"googlenet", "inception_v3"}
_OLD_DENSENET_NAME = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.")


@dataclass(frozen=True)
class Preprocessing:
    """How images must be prepared for a set of pretrained weights."""

    mean: tuple[float, float, float]
    """Per channel (red, green, blue), for pixel values from 0 to 1, as is `std`."""
    std: tuple[float, float, float]
    interpolation: Literal["bilinear", "bicubic"]
    size: int
    """Side of the training images in pixels."""


def check_backbone(name: str) -> None:
    """Raise a `UserError` that suggests similar names if neither library has this backbone; builds nothing."""
    known = torchvision.models.list_models(module=torchvision.models)
    if name.startswith(TIMM) and timm.is_model(name.removeprefix(TIMM)):
        try:
            get_pretrained_cfg(name.removeprefix(TIMM))
            return
        except RuntimeError:  # the tag after the dot is unknown
            pass
    elif name in known:
        return
    known = [*known, *(f"{TIMM}{model}" for model in timm.list_models())]
    tag = name.removeprefix(TIMM).split(".")[0]
    near = [f"{TIMM}{tag}"] if f"{TIMM}{tag}" in known else []
    near += [match for match in difflib.get_close_matches(name, known, n=4, cutoff=0.6) if match not in near]
    hint = f"; did you mean {', '.join(near)}?" if near else "."
    raise UserError(
        f'unknown backbone {name!r}{hint} All names: python -c "import torchvision, timm; '
        f"print(torchvision.models.list_models(module=torchvision.models), timm.list_models('*{tag[:6]}*'))\" "
        f"(a timm name is written timm/NAME)"
    )


def has_weights(backbone: str) -> bool:
    """Whether the published weights of a backbone are on this machine; nothing is downloaded."""
    if not backbone.startswith(TIMM):
        return pretrained.hub_file(str(_entry(ModelSpec(backbone=backbone)).url)).is_file()
    packaged = _packaged_weights(ModelSpec(backbone=backbone))
    return packaged is not None or pretrained.timm_file(_config(backbone)) is not None


def takes_one_size(backbone: str) -> bool:
    """Whether the network is built for one size of images and takes no other."""
    if backbone.startswith(TIMM):
        return bool(_config(backbone).fixed_input_size)
    return backbone.startswith(("vit_", "maxvit_"))


def published_preprocessing(model: ModelSpec) -> Preprocessing:
    """How images must be prepared according to the publisher of the weights."""
    if model.backbone.startswith(TIMM):
        config: Any = _config(model.backbone)
        if _packaged_weights(model) is not None:
            return Preprocessing((127 / 255,) * 3, (128 / 255,) * 3, "bicubic", config.input_size[-1])
        return Preprocessing(tuple(config.mean), tuple(config.std), config.interpolation, config.input_size[-1])
    transforms = _entry(model).transforms()
    mean, std = tuple(transforms.mean), tuple(transforms.std)
    if model.backbone in _TRANSFORMED_INPUT:
        mean = std = (0.5, 0.5, 0.5)
    return Preprocessing(mean, std, transforms.interpolation.value, transforms.crop_size[0])


def network_of(model: ModelSpec, size: int) -> nn.Module:
    """The network that a spec names, with its weights and a method ``forward_features``; it may have a classifier.

    A `UserError` if its weights are missing, damaged or of another model; whatever the library raises, if it cannot be
    built for images of `size`.
    """
    if not model.backbone.startswith(TIMM):
        return _torchvision_network(model, size)
    name, config = model.backbone.removeprefix(TIMM), _config(model.backbone)
    resized = config.fixed_input_size and size != config.input_size[-1]
    options: dict[str, Any] = {"img_size": size} if resized else {}
    if model.weights == "none":
        return timm.create_model(name, num_classes=0, **options)
    if (packaged := _packaged_weights(model)) is not None:
        network = timm.create_model(name)
        pretrained.load_by_order(network, pretrained.read_weights(packaged), str(packaged))
        return network
    try:
        if model.weights == "imagenet":
            state = pretrained.timm_weights(name, config)
        else:
            state = pretrained.read_weights(Path(model.weights))
        return _timm_network(name, config, state, options)
    except (RuntimeError, LookupError) as error:
        if "loading state_dict" in str(error) or isinstance(error, LookupError):
            raise pretrained.misfit(model.weights, error) from error
        raise


def _config(backbone: str) -> PretrainedCfg:
    return get_pretrained_cfg(backbone.removeprefix(TIMM)) or PretrainedCfg()


def _packaged_weights(model: ModelSpec) -> Path | None:
    is_timm = model.weights == "imagenet" and model.backbone.startswith(TIMM)
    return pretrained.packaged_weights(model.backbone.removeprefix(TIMM)) if is_timm else None


def _timm_network(
    name: str, config: PretrainedCfg, state: dict[str, Tensor] | None, options: dict[str, Any]
) -> nn.Module:
    """Let timm download the weights, or convert and load `state`."""
    if state is None:
        try:
            return timm.create_model(name, pretrained=True, **options)
        except Exception as error:
            if "loading state_dict" in str(error):
                raise
            raise pretrained.weights_unavailable(name, config, pretrained.first_line(error)) from error
    # timm loads strictly only if the network has as many classes as the file.
    parts = [config.classifier] if isinstance(config.classifier, str) else list(config.classifier or [])
    parts += ["head", "head.fc", "fc", "classifier"]  # the original authors' names, which timm converts
    classes = next((len(state[f"{part}.weight"]) for part in parts if f"{part}.weight" in state), 0)
    overlay: dict[str, Any] = {"state_dict": state}
    if classes != config.num_classes + (config.label_offset or 0):
        overlay |= {"num_classes": classes, "label_offset": 0}
    network = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    # timm leaves a copy of the whole file in the model's configuration.
    cast(dict[str, Any], network.pretrained_cfg).pop("state_dict", None)
    return network


def _torchvision_network(model: ModelSpec, size: int) -> nn.Module:
    name, entry = model.backbone, _entry(model)
    source = str(entry.url) if model.weights == "imagenet" else model.weights
    state: dict[str, Tensor] | None = None
    if model.weights == "imagenet":
        state = pretrained.torchvision_weights(source)
    elif model.weights != "none":
        state = pretrained.read_weights(Path(source))
    options: dict[str, Any] = {}
    if name in _TRANSFORMED_INPUT:
        # The slow initialisation is worth its time only where no weights replace it.
        options = {"aux_logits": False, "init_weights": state is None}
    if takes_one_size(name):
        options = {"image_size": size} if name.startswith("vit_") else {"input_size": (size, size)}
    whole = torchvision.models.get_model(name, weights=None, **options)
    network = _TokenTrunk(whole) if isinstance(whole, VisionTransformer) else _Trunk(whole)
    if state is not None:
        pretrained.load_strictly(network, _state_of_trunk(whole, state, size), source)
    return network


def _entry(model: ModelSpec) -> WeightsEnum:
    """The published weights that the spec names: by file name, else the default ones."""
    entries = torchvision.models.get_model_weights(model.backbone)
    named = (entry for entry in entries if Path(model.weights).name == entry.url.rsplit("/", 1)[-1])
    return next(named, entries["DEFAULT"])


class _Trunk(nn.Sequential):
    """The children of a torchvision classifier up to the pooling, under their own names."""

    def __init__(self, whole: nn.Module) -> None:
        super().__init__()
        for name, child in whole.named_children():
            if name not in _CLASSIFIER_PARTS:
                self.add_module(name, nn.Sequential(*child) if isinstance(child, nn.ModuleList) else child)
        if isinstance(whole, torchvision.models.DenseNet):
            self.add_module("relu", nn.ReLU())  # torchvision has it in forward, between the features and the pooling

    def forward_features(self, images: Tensor) -> Tensor:
        return cast(Tensor, self(images))


class _TokenTrunk(nn.Module):
    """A torchvision ViT that returns all of its tokens, under its own names."""

    def __init__(self, whole: VisionTransformer) -> None:
        super().__init__()
        self.conv_proj, self.class_token, self.encoder = whole.conv_proj, whole.class_token, whole.encoder

    def forward_features(self, images: Tensor) -> Tensor:
        patches = self.conv_proj(images).flatten(2).transpose(1, 2)
        class_token = self.class_token.expand(len(images), -1, -1)
        return cast(Tensor, self.encoder(torch.cat([class_token, patches], dim=1)))


def _state_of_trunk(whole: nn.Module, state: Mapping[str, Tensor], side: int) -> dict[str, Tensor]:
    body = {name: value for name, value in state.items() if name.split(".")[0] not in _CLASSIFIER_PARTS}
    if isinstance(whole, torchvision.models.DenseNet):
        # Names in the official files are from when module names could hold dots.
        body = {_OLD_DENSENET_NAME.sub(r"\1\2.", name): value for name, value in body.items()}
    if isinstance(whole, VisionTransformer) and "encoder.pos_embedding" in body:
        body = dict(interpolate_embeddings(side, whole.patch_size, OrderedDict(body)))
    return body
