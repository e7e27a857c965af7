"""Pretrained classifiers of torchvision and timm, cut before their classifier.

A `Body` turns normalised images into pooled features, and knows its blocks in forward order, from which layer groups
with different learning rates are made.
"""

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from unfreeze.models.errors import UserError
from unfreeze.models.images import timm_bodies, torchvision_bodies, tracing
from unfreeze.models.images import weights as pretrained
from unfreeze.models.images.preprocessing import Preprocessing, SizeError
from unfreeze.models.model_folder import read_description
from unfreeze.models.specs import ModelSpec

EARLY_STRIDE = 8
"""Blocks up to this output stride are the early layer group: resnet's stem, layer1 and layer2."""


@dataclass(frozen=True)
class Block:
    """A stretch of the body that is trained at one learning rate.

    Attributes
    ----------
    name : str
        ``stem`` for the first block, else the module that it is or begins with: ``layer1``, ``features.4``.
    parameters : tuple of str
        Names of its parameters in the body.
    reduction : int or None
        Side of the input over side of the block's output (before a pooling layer that follows), to the nearest
        power of two; None where it cannot be told.
    """

    name: str
    parameters: tuple[str, ...]
    reduction: int | None


class Body(nn.Module):
    """A pretrained network without its classifier, with pooled features as output.

    Parameters
    ----------
    network : nn.Module
        ``network.forward_features(images)`` returns the final feature map (B, C, H, W) or (B, H, W, C), or tokens
        (B, N, C). Parameters that it does not use (norms and layers of the classifier) are taken out.
    preprocessing : Preprocessing
        Kept for the caller.
    size : int
        Side of the images, in pixels, that the network is built for.
    fixed_size : bool
        Whether it takes no other size.

    Attributes
    ----------
    features : int
        Width of the output, twice the channels of the final feature map.
    blocks : list of Block
        In forward order; every parameter of the body is in exactly one of them.
    early_blocks : int
        How many leading blocks form the early layer group: those with an output stride of at most `EARLY_STRIDE`.
        Where that would be none or all of them (the stride of a ViT never changes), half of the blocks.
    preprocessing : Preprocessing
        How images must be prepared.
    required_size : int or None
        The only side that images may have, or None if any will do.

    Raises
    ------
    UserError
        If the network cannot take images of `size`, or its output is neither a feature map nor tokens.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, size: int, fixed_size: bool) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        self.required_size = size if fixed_size else None
        # Strides are rounded, so they are measured at one size: the layer groups must not change with the images'.
        measured_size = size if fixed_size else preprocessing.size
        trace = tracing.trace(network, measured_size)
        if size != measured_size:
            tracing.trace(network, size)  # fails where the images are too small for the network
        tracing.remove_unused(network, trace.used)
        self._layout, channels = tracing.output_layout(network, trace.output)
        self._prefix_tokens, self._has_class_token = tracing.prefix_tokens(network)
        self.features = 2 * channels
        groups = tracing.parameter_groups(network)
        self.blocks = [
            Block(name, tuple(f"network.{parameter}" for parameter in parameters), reduction)
            for name, parameters, reduction in zip(
                tracing.block_names(groups), groups, tracing.reductions(groups, trace, measured_size), strict=True
            )
        ]
        early = 0
        while early < len(groups) and (self.blocks[early].reduction or math.inf) <= EARLY_STRIDE:
            early += 1
        self.early_blocks = early if 0 < early < len(groups) else len(groups) // 2

    def forward(self, images: Tensor) -> Tensor:
        """Compute pooled features.

        Parameters
        ----------
        images : Tensor, float, shape (B, 3, H, W)
            Normalised by `preprocessing`.

        Returns
        -------
        Tensor, float32, shape (B, features)
            Of a feature map: its maximum, then its mean over all positions, per channel (the concat pooling of
            fastai 0.7). Of tokens: the class token, or the maximum over the patch tokens where the model has none,
            then the mean of the patch tokens. Pooled in float32 whatever the network computes in.

        Raises
        ------
        UserError
            If the network is built for one size and the images have another.
        """
        side = self.required_size
        if side is not None and images.shape[-2:] != (side, side):
            height, width = images.shape[-2:]
            raise UserError(
                f"this backbone takes images of {side} x {side} pixels, but got {height} x {width}; set data.size "
                f"(and the size of each stage) to {side}, or choose a backbone without a fixed size"
            )
        forward_features = cast(Callable[[Tensor], Tensor], self.network.forward_features)
        activations = forward_features(images).float()
        if self._layout == "tokens":
            # Some networks (pit) end in class tokens alone: those are then averaged.
            skipped = self._prefix_tokens if activations.shape[1] > self._prefix_tokens else 0
            patches = activations[:, skipped:]
            first = activations[:, 0] if self._has_class_token else patches.amax(dim=1)
            return torch.cat([first, patches.mean(dim=1)], dim=1)
        positions = (1, 2) if self._layout == "NHWC" else (2, 3)
        return torch.cat([activations.amax(dim=positions), activations.mean(dim=positions)], dim=1)


class _Library(Protocol):
    """What the modules `torchvision_bodies` and `timm_bodies` have in common."""

    def names(self) -> list[str]: ...
    def knows(self, backbone: str) -> bool: ...
    def takes_one_size(self, backbone: str) -> bool: ...
    def preprocessing_of(self, model: ModelSpec) -> Preprocessing: ...
    def network_of(self, model: ModelSpec, size: int) -> nn.Module: ...


def load_body(model: ModelSpec, size: int | None = None) -> Body:
    """Build the body that a spec names, with its weights.

    Parameters
    ----------
    model : ModelSpec
        ``backbone`` is a torchvision classifier (``resnet34``) or ``timm/NAME``; ``weights`` is ``imagenet``,
        ``none`` (random, drawn from the caller's torch generator), the path of a file, or the folder of a model that
        `unfreeze.models.images.serving.save_classifier` wrote, whose body and preprocessing are then taken over.
    size : int, optional
        Side of the images in pixels, for networks that are built for one size (ViT and relatives): their position
        embeddings are interpolated to it. By default the size of the weights' training. Other networks take any size.

    Returns
    -------
    Body
        In float32 and evaluation mode, on the CPU.

    Raises
    ------
    UserError
        If the backbone is unknown or cannot take `size`, or its weights are missing, damaged or of another model.
    """
    library = _library(model.backbone)
    preprocessing = preprocessing_of(model)
    side = size or preprocessing.size
    trained = _trained_folder(model)
    if trained is not None:
        model = model.model_copy(update={"weights": "none"})
    try:
        network = library.network_of(model, side)
    except SizeError as error:
        raise _wrong_size(model.backbone, side, preprocessing.size, error) from error
    try:
        body = Body(network, preprocessing, side, library.takes_one_size(model.backbone)).eval()
        if trained is not None:
            pretrained.load_strictly(body, pretrained.trained_body(trained), str(trained))
        return body
    except UserError as error:
        raise UserError(f"backbone {model.backbone!r}: {error}") from error
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if side != preprocessing.size:
            raise _wrong_size(model.backbone, side, preprocessing.size, error) from error
        raise UserError(
            f"backbone {model.backbone!r} cannot be used here ({pretrained.first_line(error)}); choose another backbone"
        ) from error


def preprocessing_of(model: ModelSpec) -> Preprocessing:
    """How images must be prepared for the body that a spec names: `load_body`'s, without building or reading it.

    Parameters
    ----------
    model : ModelSpec
        Its weights need not be there.

    Raises
    ------
    UserError
        If the backbone is unknown, or the weights are a folder that holds no model.
    """
    trained = _trained_folder(model)
    if trained is not None:
        return Preprocessing(**read_description(trained)["preprocessing"])
    return _library(model.backbone).preprocessing_of(model)


def check_backbone(name: str) -> None:
    """Refuse a backbone that neither library has, without building or reading anything.

    Raises
    ------
    UserError
        It names the nearest ones.
    """
    _library(name)


def _trained_folder(model: ModelSpec) -> Path | None:
    folder = Path(model.weights).expanduser()
    return folder if model.weights not in ("imagenet", "none") and folder.is_dir() else None


def _library(backbone: str) -> _Library:
    library: _Library = torchvision_bodies
    if backbone.startswith(timm_bodies.PREFIX):
        library = timm_bodies
    if not library.knows(backbone):
        raise _unknown_backbone(backbone)
    return library


def _wrong_size(name: str, side: int, default: int, error: Exception) -> UserError:
    reason = pretrained.first_line(error)
    return UserError(
        f"backbone {name!r} cannot take images of {side} x {side} pixels ({reason}); set data.size (and the size of "
        f"each stage) to {default}, which it was trained at, or choose another backbone"
    )


def _unknown_backbone(name: str) -> UserError:
    known = torchvision_bodies.names() + timm_bodies.names()
    tag = name.removeprefix("timm/").split(".")[0]
    near = [f"timm/{tag}"] if f"timm/{tag}" in known else []
    near += [match for match in difflib.get_close_matches(name, known, n=4, cutoff=0.6) if match not in near]
    hint = f"; did you mean {', '.join(near)}?" if near else "."
    return UserError(
        f'unknown backbone {name!r}{hint} All names: python -c "import torchvision, timm; '
        f"print(torchvision.models.list_models(module=torchvision.models), timm.list_models('*{tag[:6]}*'))\" "
        f"(a timm name is written timm/NAME)"
    )
