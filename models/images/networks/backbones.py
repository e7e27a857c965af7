"""Pretrained timm backbones without their classifier.

A `Body` turns normalised images into pooled features and lists its blocks in forward order, from which layer groups
with different learning rates are formed.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from unfreeze.models.errors import UserError
from unfreeze.models.images.networks import blocks
from unfreeze.models.images.networks.timm_models import (
    Preprocessing,
    check_backbone,
    network_of,
    published_preprocessing,
    takes_one_size,
)
from unfreeze.models.images.networks.weights import first_line, load_strictly, read_weights
from unfreeze.models.settings import ModelSpec
from unfreeze.models.store.model_folder import WEIGHTS, read_description
from unfreeze.models.store.paths import given_path

__all__ = ["EARLY_STRIDE", "Block", "Body", "Preprocessing", "check_backbone", "load_body", "preprocessing_of"]

EARLY_STRIDE = 8
"""Maximum output stride of the early layer group: resnet's stem, layer1 and layer2."""


class Block(NamedTuple):
    """Consecutive layers of the body that share a learning rate."""

    name: str
    """``stem`` for the first block, otherwise the name of its (first) module: ``layer1``, ``features.4``."""
    parameters: tuple[str, ...]
    """Parameter names in the body."""
    reduction: int | None
    """Output stride (input side / output side, before any following pooling layer), rounded to a power of two; None if
    it cannot be determined."""


class Body(nn.Module):
    """A pretrained network without its classifier, with pooled features as output.

    Parameters
    ----------
    network
        ``network.forward_features(images)`` returns the final feature map (B, C, H, W) or (B, H, W, C), or tokens
        (B, N, C). Parameters that it does not use (norms and layers of the classifier) are removed.
    size
        Image side in pixels that the network is built for; the only one accepted if `fixed_size`.

    Attributes
    ----------
    features : int
        Width of the output, twice the channels of the final feature map.
    blocks : list of Block
        In forward order; every parameter of the body is in exactly one block.
    early_blocks : int
        Number of leading blocks in the early layer group: those with an output stride of at most `EARLY_STRIDE`, or
        half of all blocks if that would be none or all (the stride of a ViT is constant).
    required_size : int or None
        The only image side accepted, or None for any.

    Raises
    ------
    UserError
        If the output is neither a feature map nor tokens. Errors of the network for an unsuitable size pass through.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, size: int, fixed_size: bool) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        self.required_size = size if fixed_size else None
        # Strides are rounded, so they are measured at one size: layer groups must not depend on the image size.
        measured_size = size if fixed_size else preprocessing.size
        trace = blocks.trace(network, measured_size)
        if size != measured_size:
            blocks.trace(network, size)  # fails if the images are too small for the network
        output = trace.output
        if not isinstance(output, Tensor) or output.ndim not in (3, 4):
            kind = f"an output of shape {tuple(output.shape)}" if isinstance(output, Tensor) else "several outputs"
            raise UserError(f"it ends in {kind} instead of one feature map; choose another backbone")
        blocks.remove_unused(network, trace.used)
        self._tokens = output.ndim == 3
        channels_last = self._tokens or str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC")
        self._positions = (1, 2) if channels_last else (2, 3)
        self.features = 2 * output.shape[-1 if channels_last else 1]
        self._has_class_token = any(name.endswith("cls_token") for name, _ in network.named_parameters())
        self._prefix_tokens = int(cast(int, getattr(network, "num_prefix_tokens", self._has_class_token)))
        groups = blocks.parameter_groups(network)
        strides = blocks.reductions(groups, trace, measured_size)
        self.blocks = [
            Block(name, tuple(f"network.{parameter}" for parameter in parameters), reduction)
            for name, parameters, reduction in zip(blocks.block_names(groups), groups, strides, strict=True)
        ]
        late = (number for number, stride in enumerate(strides) if (stride or math.inf) > EARLY_STRIDE)
        self.early_blocks = next(late, 0) or len(groups) // 2

    def forward(self, images: Tensor) -> Tensor:
        """Compute pooled features (B, features) float32 of images (B, 3, H, W) float, normalised by `preprocessing`.

        Feature map: maximum, then mean over all positions, per channel (the concat pooling of fastai 0.7). Tokens: the
        class token (without one, the maximum over patch tokens), then the mean of the patch tokens. Raises a
        `UserError` if the network accepts only one size and the images have another.
        """
        return self.pool(self.activations(images))

    def activations(self, images: Tensor) -> Tensor:
        """Unpooled output, float32: a feature map (B, C, H, W) or (B, H, W, C), or tokens (B, N, C)."""
        side = self.required_size
        if side is not None and images.shape[-2:] != (side, side):
            height, width = images.shape[-2:]
            raise UserError(
                f"this backbone takes images of {side} x {side} pixels, but got {height} x {width}; set data.size "
                f"(and the size of each stage) to {side}, or choose a backbone without a fixed size"
            )
        return cast(Callable[[Tensor], Tensor], self.network.forward_features)(images).float()

    def pool(self, activations: Tensor) -> Tensor:
        """Pool `activations` to features (B, features); see `forward`."""
        if self._tokens:
            patches = self._patches(activations)
            first = activations[:, 0] if self._has_class_token else patches.amax(dim=1)
            return torch.cat([first, patches.mean(dim=1)], dim=1)
        return torch.cat([activations.amax(dim=self._positions), activations.mean(dim=self._positions)], dim=1)

    def feature_map(self, activations: Tensor) -> Tensor | None:
        """Reshape `activations` to a map (B, C, H, W); None if tokens do not form a square."""
        if not self._tokens:
            return activations if self._positions == (2, 3) else activations.permute(0, 3, 1, 2)
        patches = self._patches(activations)
        side = math.isqrt(patches.shape[1])
        return patches.mT.unflatten(2, (side, side)) if side * side == patches.shape[1] else None

    def _patches(self, tokens: Tensor) -> Tensor:
        # Some networks (pit) output only class tokens, which are then averaged.
        return tokens[:, self._prefix_tokens if tokens.shape[1] > self._prefix_tokens else 0 :]


def load_body(model: ModelSpec, size: int | None = None) -> Body:
    """Build the body of a spec, with weights, in float32 and evaluation mode, on the CPU.

    Parameters
    ----------
    model
        ``backbone`` is a timm classifier, see `timm_models.timm_name`; ``weights`` is ``imagenet``,
        ``none`` (random, drawn from the caller's torch generator), the path of a file, or the folder of a model that
        `save_classifier` wrote, whose body and preprocessing are then used.
    size
        Image side in pixels for fixed-size networks (ViT and relatives), whose position embeddings are interpolated to
        it; default: the size that the weights were trained at. Other networks take any size.

    Raises
    ------
    UserError
        If the backbone is unknown or does not support `size`, or its weights are missing, damaged or of another model.
    """
    name, preprocessing, trained = model.backbone, preprocessing_of(model), _trained_folder(model)
    side = size or preprocessing.size
    try:
        source = model if trained is None else model.model_copy(update={"weights": "none"})
        body = Body(network_of(source, side), preprocessing, side, takes_one_size(name)).eval()
        if trained is not None:
            state = read_weights(trained / WEIGHTS)
            own = {key.removeprefix("body."): tensor for key, tensor in state.items() if key.startswith("body.")}
            load_strictly(body, own, str(trained))
        return body
    except UserError as error:
        raise UserError(f"backbone {name!r}: {error}") from error
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = first_line(error)
        if side == preprocessing.size:
            message = f"backbone {name!r} cannot be used here ({reason}); choose another backbone"
        else:
            message = (
                f"backbone {name!r} cannot take images of {side} x {side} pixels ({reason}); set data.size (and the "
                f"size of each stage) to {preprocessing.size}, which it was trained at, or choose another backbone"
            )
        raise UserError(message) from error


def preprocessing_of(model: ModelSpec) -> Preprocessing:
    """Preprocessing for the body of a spec; the weights need not exist.

    Raises a `UserError` if the backbone is unknown, or the weights are a folder without a model.
    """
    check_backbone(model.backbone)
    trained = _trained_folder(model)
    if trained is not None:
        return Preprocessing(**read_description(trained)["preprocessing"])
    return published_preprocessing(model)


def _trained_folder(model: ModelSpec) -> Path | None:
    folder = given_path(model.weights)
    return folder if model.weights not in ("imagenet", "none") and folder.is_dir() else None
