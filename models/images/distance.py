"""How unlike images are to those that a body was pretrained on."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import nn

from unfreeze.models.images.batches import ImageBatches
from unfreeze.models.specs import TrainImages
from unfreeze.models.specs.training import ALIKE_RATIO, UNLIKE_RATIO
from unfreeze.models.training.batches import split_into_batches

LOOKED_AT = 128
"""Images, at most; a few dozen measure the same to a fifth."""
DISTANCE_VERSION = 1
"""Raise it when the same images would be at another distance; it is part of a cache key."""
UNLIKE = 0.15
"""From this distance on images count as unlike; photos are at 0.01 to 0.06, digits and gratings at 0.5 to 0.7."""

BatchNorm = nn.modules.batchnorm._BatchNorm
Sums = tuple[int, torch.Tensor, torch.Tensor]
"""Positions, and sums (C,) float64 of a channel's values and of their squares."""


@torch.no_grad()
def distance_to_pretraining(body: nn.Module, images: ImageBatches) -> float | None:
    """Distance of images from those of the pretraining, in nats; None for a body without batch norms.

    A batch norm keeps the mean and variance that every channel of its input had in the pretraining. The distance is the
    symmetric Kullback-Leibler divergence (half of it both ways) between normal distributions with these and with those
    of the given images, its median over the channels of a layer and over the layers. Only statistics are compared: how
    well the features tell the classes apart is not in it.

    Parameters
    ----------
    body
        With pretrained weights; it is put into evaluation mode.
    images
        Without augmentation; the first `LOOKED_AT` of them in an order of their own are looked at.
    """
    generator = torch.Generator().manual_seed(0)
    rows = torch.randperm(len(images), generator=generator)[:LOOKED_AT]
    sums: dict[str, Sums] = {}
    body.eval()
    with _watched(body, sums) as layers:
        for part in split_into_batches(rows, images.forward_size):
            body(images.gather(part, None)[0])
    divergences = [_divergence(layers[name], *each) for name, each in sums.items()]
    return float(torch.stack(divergences).median()) if divergences else None


def write_distance(path: Path, distance: float | None) -> None:
    """Keep a distance in a file."""
    path.write_text(json.dumps({"nats": distance}))


def read_distance(path: str | None) -> float | None:
    """The distance in a prepared file, if there is one and it could be measured."""
    return None if path is None else cast(float | None, json.loads(Path(path).read_text())["nats"])


def with_ratios(params: TrainImages, distance: float | None) -> TrainImages:
    """The training with the course's ratio for such data in every stage that leaves it open."""
    ratio = UNLIKE_RATIO if distance is not None and distance >= UNLIKE else ALIKE_RATIO
    stages = [stage.model_copy(update={"ratio": stage.ratio or ratio}) for stage in params.recipe]
    return params.model_copy(update={"recipe": stages})


def describe_distance(distance: float) -> str:
    """The distance and what follows from it, in words."""
    alike = distance < UNLIKE
    return (
        f"the images are at a distance of {distance:.2f} nats from those of the pretraining, "
        f"{'like' if alike else 'unlike'} them (limit {UNLIKE}): ratio {ALIKE_RATIO if alike else UNLIKE_RATIO:g} "
        "between layer groups unless a stage has its own"
    )


@contextmanager
def _watched(body: nn.Module, sums: dict[str, Sums]) -> Iterator[dict[str, BatchNorm]]:
    """Meanwhile sum up what the body's batch norms are given."""

    def add(name: str, _module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        values = inputs[0].double().transpose(0, 1).flatten(1)
        positions, total, squares = sums.get(name, (0, torch.zeros(()), torch.zeros(())))
        sums[name] = (
            positions + values.shape[1],
            total + values.sum(1).cpu(),
            squares + values.square().sum(1).cpu(),
        )

    layers = {name: module for name, module in body.named_modules() if getattr(module, "running_var", None) is not None}
    handles = [module.register_forward_pre_hook(partial(add, name)) for name, module in layers.items()]
    try:
        yield layers
    finally:
        for handle in handles:
            handle.remove()


def _divergence(layer: BatchNorm, positions: int, total: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
    """Median over a layer's channels, a scalar float64."""
    mean = total / positions
    variance = (squares / positions - mean.square()).clamp_min(0) + layer.eps
    known_mean, known = cast(torch.Tensor, layer.running_mean), cast(torch.Tensor, layer.running_var)
    known_mean, known = known_mean.double().cpu(), known.double().cpu() + layer.eps
    ratio = variance / known
    channels = (ratio + 1 / ratio) / 4 - 0.5 + (mean - known_mean).square() * (1 / variance + 1 / known) / 4
    return channels.median()
