"""Classifiers of torchvision, cut before their classifier."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import WeightsEnum
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from unfreeze.models.images import weights as pretrained
from unfreeze.models.images.preprocessing import Preprocessing, SizeError
from unfreeze.models.specs import ModelSpec

_CLASSIFIER_PARTS = {"avgpool", "flatten", "dropout", "classifier", "fc", "head", "heads", "aux1", "aux2", "AuxLogits"}
# torchvision switches these on together with the weights: they map ImageNet-normalised pixels to mean = std = 0.5.
# The cut network leaves that step out, so the images are normalised so in the first place.
_TRANSFORMED_INPUT = {"googlenet", "inception_v3"}
_OLD_DENSENET_NAME = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.")


def names() -> list[str]:
    """The backbones, as a spec names them."""
    return list(torchvision.models.list_models(module=torchvision.models))


def knows(backbone: str) -> bool:
    """Whether a spec may name this backbone."""
    return backbone in names()


def takes_one_size(backbone: str) -> bool:
    """Whether the network is built for one size of images and takes no other."""
    return backbone.startswith(("vit_", "maxvit_"))


def preprocessing_of(model: ModelSpec) -> Preprocessing:
    """How images must be prepared: as torchvision says of the published weights."""
    transforms = _entry(model).transforms()
    mean, std = tuple(transforms.mean), tuple(transforms.std)
    if model.backbone in _TRANSFORMED_INPUT:
        mean = std = (0.5, 0.5, 0.5)
    return Preprocessing(mean, std, transforms.interpolation.value, transforms.crop_size[0])


def network_of(model: ModelSpec, size: int) -> nn.Module:
    """The classifier that a spec names without its last layers, with its weights.

    Raises
    ------
    SizeError
        If it cannot be built for images of `size`.
    UserError
        If its weights are missing, damaged or of another model.
    """
    name, entry = model.backbone, _entry(model)
    state: dict[str, Tensor] | None = None
    if model.weights == "imagenet":
        state = pretrained.torchvision_weights(entry)
    elif model.weights != "none":
        state = pretrained.read_weights(Path(model.weights))
    options: dict[str, Any] = {}
    if name in _TRANSFORMED_INPUT:
        # The slow initialisation is worth its time only where no weights replace it.
        options = {"aux_logits": False, "init_weights": state is None}
    if takes_one_size(name):
        options = {"image_size": size} if name.startswith("vit_") else {"input_size": (size, size)}
    try:
        whole = torchvision.models.get_model(name, weights=None, **options)
    except (AssertionError, ValueError) as error:
        raise SizeError(pretrained.first_line(error)) from error
    network = _trunk(whole)
    if state is not None:
        source = entry.url if model.weights == "imagenet" else model.weights
        pretrained.load_strictly(network, _state_of_trunk(whole, state, size), str(source))
    return network


def _entry(model: ModelSpec) -> WeightsEnum:
    """The published weights that the spec names: by file name, else the default ones."""
    entries = torchvision.models.get_model_weights(model.backbone)
    for entry in entries:
        if Path(model.weights).name == entry.url.rsplit("/", 1)[-1]:
            return entry
    return entries["DEFAULT"]


class _Trunk(nn.Sequential):
    """The children of a torchvision classifier up to the pooling, under their own names."""

    def forward_features(self, images: Tensor) -> Tensor:
        return cast(Tensor, self(images))


class _TokenTrunk(nn.Module):
    """A torchvision ViT that returns all of its tokens, under its own names."""

    def __init__(self, model: VisionTransformer) -> None:
        super().__init__()
        self.conv_proj = model.conv_proj
        self.class_token = model.class_token
        self.encoder = model.encoder

    def forward_features(self, images: Tensor) -> Tensor:
        patches = self.conv_proj(images).flatten(2).transpose(1, 2)
        class_token = self.class_token.expand(len(images), -1, -1)
        return cast(Tensor, self.encoder(torch.cat([class_token, patches], dim=1)))


def _trunk(whole: nn.Module) -> nn.Module:
    if isinstance(whole, VisionTransformer):
        return _TokenTrunk(whole)
    children: OrderedDict[str, nn.Module] = OrderedDict()
    for name, child in whole.named_children():
        if name not in _CLASSIFIER_PARTS:
            children[name] = nn.Sequential(*child) if isinstance(child, nn.ModuleList) else child
    if isinstance(whole, torchvision.models.DenseNet):
        children["relu"] = nn.ReLU()  # torchvision has it in forward, between the features and the pooling
    return _Trunk(children)


def _state_of_trunk(whole: nn.Module, state: Mapping[str, Tensor], side: int) -> dict[str, Tensor]:
    body = {name: value for name, value in state.items() if name.split(".")[0] not in _CLASSIFIER_PARTS}
    if isinstance(whole, torchvision.models.DenseNet):
        # Names in the official files are from when module names could hold dots.
        body = {_OLD_DENSENET_NAME.sub(r"\1\2.", name): value for name, value in body.items()}
    if isinstance(whole, VisionTransformer) and "encoder.pos_embedding" in body:
        body = dict(interpolate_embeddings(side, whole.patch_size, OrderedDict(body)))
    return body
