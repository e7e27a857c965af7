"""Pretrained timm backbones without their classifier.

A `Body` turns normalised images into pooled features and lists its blocks in forward order, from which layer groups
with different learning rates are formed.
"""

import copy
import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from timm.layers.norm_act import BatchNormAct2d
from timm.models import group_parameters
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from unfreeze.models.errors import UserError
from unfreeze.models.images.networks.weights import (
    Preprocessing,
    check_backbone,
    first_line,
    load_strictly,
    network_of,
    published_preprocessing,
    read_weights,
    takes_one_size,
)
from unfreeze.models.settings import ModelSpec
from unfreeze.models.store.model_folder import WEIGHTS, read_description
from unfreeze.models.store.paths import given_path

FOLDING_TOLERANCE = 1e-3
"""Largest relative change of the activations (of their maximum); above the rounding error of deep networks."""
EARLY_STRIDE = 8
"""Maximum output stride of the early layer group: resnet's stem, layer1 and layer2."""


_GROUPS = {"stem": r"^(?:stem|patch_embed|pos_embed|cls_token)", "blocks": r"^\D*(\d+)"}
"""Fallback for timm models without a group matcher: by the first number in a parameter's name."""


class Body(nn.Module):
    """A pretrained network without its classifier, with pooled features as output.

    Parameters
    ----------
    network
        ``network.forward_features(images)`` returns the final feature map (B, C, H, W) or (B, H, W, C), or tokens
        (B, N, C). Parameters that it does not use (norms and layers of the classifier) are removed.
    sizes
        Image sides in pixels that the network must take; the only one if `fixed_size`.

    Attributes
    ----------
    features : int
        Width of the output, twice the channels of the final feature map.
    blocks : list of list of str
        Parameter names of consecutive layers that share a learning rate, in forward order; every parameter of the body
        is in exactly one block.
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

    def __init__(
        self, network: nn.Module, preprocessing: Preprocessing, sizes: Sequence[int], fixed_size: bool
    ) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        self.required_size = sizes[0] if fixed_size else None
        # Strides are rounded, so they are measured at one size: layer groups must not depend on the image size.
        measured_size = sizes[0] if fixed_size else preprocessing.size
        trace = _trace(network, measured_size)
        for size in {*sizes} - {measured_size}:
            _trace(network, size)  # fails if the network cannot take images of this size
        output = trace.output
        if not isinstance(output, Tensor) or output.ndim not in (3, 4):
            kind = f"an output of shape {tuple(output.shape)}" if isinstance(output, Tensor) else "several outputs"
            raise UserError(f"it ends in {kind} instead of one feature map; choose another backbone")
        _remove_unused(network, trace.used)
        self._tokens = output.ndim == 3
        channels_last = self._tokens or str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC")
        self._positions = (1, 2) if channels_last else (2, 3)
        self.features = 2 * output.shape[-1 if channels_last else 1]
        self._has_class_token = any(name.endswith("cls_token") for name, _ in network.named_parameters())
        self._prefix_tokens = int(cast(int, getattr(network, "num_prefix_tokens", self._has_class_token)))
        groups = _parameter_groups(network)
        self.blocks = [[f"network.{parameter}" for parameter in parameters] for parameters in groups]
        self.early_blocks = _early_blocks(groups, trace, measured_size)

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


class _Trace(NamedTuple):
    """Shapes and parameters seen in one forward pass."""

    output: Any
    """Output of ``forward_features``, on the meta device."""
    sides: dict[str, int | None]
    """Output side of each module that ran, in the order of completion."""
    used: set[str]
    """Parameters that the output depends on."""


def _trace(network: nn.Module, size: int) -> _Trace:
    """Run a copy of the network on the meta device, where tensors have a shape but no content.

    The copy keeps hooks and cached state out of the original.
    """
    twin = copy.deepcopy(network).to("meta")
    sides: dict[str, int | None] = {}

    def remember(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        sides.pop(name, None)
        sides[name] = _side(output)

    for name, module in twin.named_modules():
        module.register_forward_hook(partial(remember, name))
    with torch.enable_grad():
        output = twin.forward_features(torch.zeros(2, 3, size, size, device="meta"))  # type: ignore[operator]
    # Walk up the autograd graph: much faster than a backward pass.
    ahead, steps = [getattr(output, "grad_fn", None)], set[Any]()
    while ahead:
        if (step := ahead.pop()) is not None and step not in steps:
            steps.add(step)
            ahead += [above for above, _ in step.next_functions]
    leaves = {step.variable for step in steps if hasattr(step, "variable")}
    return _Trace(output, sides, {name for name, parameter in twin.named_parameters() if parameter in leaves})


def _side(output: Any) -> int | None:
    """Side of a feature map (shape[2] in both NCHW and NHWC), or of the square that tokens form."""
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    if not isinstance(output, Tensor) or output.ndim not in (3, 4):
        return None
    if output.ndim == 4:
        return output.shape[2]
    return math.isqrt(output.shape[1]) if output.shape[1] > 1 else None  # a single token is a class token


def _remove_unused(network: nn.Module, used: set[str]) -> None:
    """Remove parameters not in `used`, and empty the modules left without parameters."""
    kept = {parameter for name, parameter in network.named_parameters() if name in used}
    for name, module in reversed(list(network.named_modules())):
        parameters = set(module.parameters())
        if parameters and not parameters & kept:
            network.set_submodule(name, nn.Identity())
    for name in {name for name, _ in network.named_parameters()} - used:
        module, _, own = name.rpartition(".")
        network.get_submodule(module).register_parameter(own, None)


def _parameter_groups(network: nn.Module) -> list[list[str]]:
    """Parameter names per block, in forward order."""
    matcher: Any = _GROUPS
    if hasattr(network, "group_matcher"):
        matcher = cast(Callable[..., Any], network.group_matcher)(coarse=True)
    groups = group_parameters(network, matcher)
    return [list(names) for names in (groups if len(groups) > 1 else group_parameters(network, _GROUPS)).values()]


def _early_blocks(groups: list[list[str]], trace: _Trace, size: int) -> int:
    """See `Body`; a block's output stride (input side / output side) is rounded to a power of two."""
    strides = dict.fromkeys(range(len(groups)), math.inf)
    # A module completes after its children, so the largest module within a single block is recorded last.
    for module, side in trace.sides.items():
        within = [number for number, names in enumerate(groups) if any(each.startswith(f"{module}.") for each in names)]
        if side and len(within) == 1:
            strides[within[0]] = 2 ** round(math.log2(size / side))
    return next((number for number, stride in strides.items() if stride > EARLY_STRIDE), 0) or len(groups) // 2


def load_body(model: ModelSpec, sizes: Sequence[int] = ()) -> Body:
    """Build the body of a spec, with weights, in float32 and evaluation mode, on the CPU.

    Parameters
    ----------
    model
        ``backbone`` is a timm classifier, see `weights.timm_name`; ``weights`` is ``imagenet``,
        ``none`` (random, drawn from the caller's torch generator), the path of a file, or the folder of a model that
        `save_classifier` wrote, whose body and preprocessing are then used.
    sizes
        Image sides in pixels of all stages; default: the size that the weights were trained at. ViTs interpolate their
        position embeddings to each batch's images; networks of one fixed size are built for the only one given.

    Raises
    ------
    UserError
        If the backbone is unknown or does not support one of `sizes`, or its weights are missing, damaged or of another
        model.
    """
    name, preprocessing, trained = model.backbone, preprocessing_of(model), _trained_folder(model)
    sides = sorted({*sizes}) or [preprocessing.size]
    try:
        source = model if trained is None else model.model_copy(update={"weights": "none"})
        fixed = takes_one_size(name)
        if fixed and len(sides) > 1:
            raise UserError(
                f"it takes images of one size, but the recipe has {', '.join(map(str, sides))} pixels; set data.size "
                "and the size of each stage to one of them, or choose a backbone without a fixed size"
            )
        body = Body(network_of(source, sides[0]), preprocessing, sides, fixed).eval()
        if trained is not None:
            state = read_weights(trained / WEIGHTS)
            own = {key.removeprefix("body."): tensor for key, tensor in state.items() if key.startswith("body.")}
            load_strictly(body, own, str(trained))
        return body
    except UserError as error:
        raise UserError(f"backbone {name!r}: {error}") from error
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = first_line(error)
        if "drop_path_rate" in reason:
            raise UserError(
                f"backbone {name!r}: it has no residual blocks to skip; leave out model.drop_path, or choose another"
            ) from error
        if sides == [preprocessing.size]:
            message = f"backbone {name!r} cannot be used here ({reason}); choose another backbone"
        else:
            message = (
                f"backbone {name!r} cannot take images of {' or '.join(f'{side} x {side}' for side in sides)} pixels "
                f"({reason}); set data.size (and the size of each stage) to {preprocessing.size}, which it was trained "
                f"at, or choose another backbone"
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


def fold_batch_norms(body: Body, size: int) -> int:
    """Fold batch norms into the convolutions that feed only them, a third less work; returns the number of pairs.

    Pairs are found by hooks in one pass. If a second pass does not reproduce the activations to within rounding,
    everything is restored: a network may use its layers in ways that hooks do not show.

    `body` is changed in place; it must be in evaluation mode on the CPU. `size` is the image side in pixels.
    """
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    modules = dict(body.named_modules())
    with torch.inference_mode():
        pairs, before = _watched(body, images)
    for conv, norm in pairs:
        body.set_submodule(conv, fuse_conv_bn_eval(modules[conv], modules[norm]))
        body.set_submodule(norm, _activation_of(modules[norm]))
    with torch.inference_mode():
        if (body(images) - before).abs().max() <= FOLDING_TOLERANCE * before.abs().max():
            return len(pairs)
    for name in (name for pair in pairs for name in pair):
        body.set_submodule(name, modules[name])
    return 0


def _watched(body: Body, images: Tensor) -> tuple[list[tuple[str, str]], Tensor]:
    """Names of (convolution, batch norm) pairs that each run once, and the activations."""
    calls: Counter[str] = Counter()
    pairs: list[tuple[str, str]] = []

    def conv_ran(name: str, _conv: nn.Module, _inputs: Any, output: Any) -> None:
        calls[name] += 1
        output.made_by = name

    def norm_runs(name: str, _norm: nn.Module, inputs: Any) -> None:
        calls[name] += 1
        pairs.append((getattr(inputs[0], "made_by", ""), name))

    hooks = []
    for name, module in body.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(partial(conv_ran, name)))
        elif type(module) in (nn.BatchNorm2d, BatchNormAct2d) and isinstance(module.running_mean, Tensor):
            hooks.append(module.register_forward_pre_hook(partial(norm_runs, name)))
    try:
        activations = body(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [pair for pair in pairs if calls[pair[0]] == 1 == calls[pair[1]]], activations


def _activation_of(norm: nn.Module) -> nn.Module:
    """The remaining part of a timm batch norm: dropout and activation."""
    return nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
