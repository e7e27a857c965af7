"""Image classifier: pretrained body, fastai head and input normalisation."""

from collections.abc import Sequence

import torch
from torch import nn

from unfreeze.models.errors import UserError, choose, one_line
from unfreeze.models.images.networks.backbones import load_body
from unfreeze.models.images.networks.linear_head import build_linear_head
from unfreeze.models.images.networks.weights import Preprocessing
from unfreeze.models.own_parts import is_own, own_part
from unfreeze.models.settings import ModelSpec
from unfreeze.models.training.network import Network


def build_head(features: int, classes: int, width: int = 512, dropout: float = 0.5) -> nn.Sequential:
    """Build the head of fastai 0.7 (``conv_learner.ConvnetBuilder``), which follows the concat pooling.

    Batch norm, dropout at half the probability, linear to `width`, ReLU, batch norm, dropout, linear to `classes`.
    Linear weights have He initialisation (2015), biases are zero.

    Parameters
    ----------
    features
        Width D of the activations (B, D).
    classes
        Number of logits.
    width, dropout
        Hidden units, and dropout probability before the last layer.
    """
    head = nn.Sequential(
        nn.BatchNorm1d(features),
        nn.Dropout(dropout / 2),
        nn.Linear(features, width),
        nn.ReLU(),
        nn.BatchNorm1d(width),
        nn.Dropout(dropout),
        nn.Linear(width, classes),
    )
    for layer in head:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return head


HEADS = {"fastai": build_head, "linear": build_linear_head}
"""Name in `model.head` -> builder with arguments (features, classes, width, dropout)."""
DEFAULT_HEAD = "fastai"
"""Used if neither the spec nor its recipe names a head."""


def head_of(model: ModelSpec, features: int, classes: int) -> nn.Module:
    """Build the spec's head, from activations (B, `features`) to logits (B, `classes`).

    Raises
    ------
    UserError
        If a head of the user's own fails, or is no such module.
    """
    name = model.head or DEFAULT_HEAD
    if not is_own(name):
        return choose(HEADS, name, "model.head")(features, classes, model.head_width, model.dropout)
    head = own_part("model.head", name, HEADS)[1](features, classes, model.head_width, model.dropout)
    if not isinstance(head, nn.Module):
        raise UserError(f"model.head: {name} must return a torch module, not {type(head).__name__}")
    try:
        shape = tuple(head.eval()(torch.zeros(2, features)).shape)
    except Exception as error:
        found = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(f"model.head: the module that {name} returns failed on (2, {features}): {found}") from error
    if shape != (2, classes):
        raise UserError(
            f"model.head: the module that {name} returns makes {shape} of (2, {features}), not (2, {classes})"
        )
    return head.train()


def build_classifier(model: ModelSpec, classes: int, seed: int, sizes: Sequence[int] = ()) -> Network:
    """Build a pretrained body with a new head; the head (and a body without weights) is initialised from `seed`.

    The global random state is restored. `sizes` are the image sides in pixels that the body must take.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = load_body(model, sizes)
        head = head_of(model, body.features, classes)
    return Network(body, head, body.blocks, body.early_blocks)


def normalise(images: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Normalise float images in 0..1: (x - mean) / std per channel, channels last."""
    mean, std = preprocessing.tensors(images.device)
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def normalise_bytes(pixels: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Normalise uint8 pixels (B, 3, S, S), as `normalise` does, in one pass instead of four."""
    mean, std = preprocessing.tensors(pixels.device)
    normalised = torch.addcmul(-mean / std, pixels.float(), 1 / (255 * std))
    return normalised.contiguous(memory_format=torch.channels_last)
