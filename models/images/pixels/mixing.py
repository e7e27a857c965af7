"""Mixing the images of a training batch in pairs, and their targets with them."""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from unfreeze.models.settings import AugmentSpec

Mix = Callable[[torch.Tensor, torch.Tensor, float, torch.Generator], tuple[torch.Tensor, float]]
"""(images (B, 3, H, W), their partners, share of the first, generator) -> mixed images, exact share of the first."""


def mixup(
    images: torch.Tensor, partners: torch.Tensor, share: float, generator: torch.Generator
) -> tuple[torch.Tensor, float]:
    """Weighted means of images (Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2017)."""
    return partners.lerp(images, share), share


def cutmix(
    images: torch.Tensor, partners: torch.Tensor, share: float, generator: torch.Generator
) -> tuple[torch.Tensor, float]:
    """A box of the partner in each image (Yun et al., "CutMix", 2019); cut off at the border, it is smaller."""
    height, width = images.shape[-2:]
    centre = torch.rand(2, generator=generator)
    half = (1 - share) ** 0.5 / 2
    top, bottom = (int(np.clip((float(centre[0]) + side * half) * height, 0, height)) for side in (-1, 1))
    left, right = (int(np.clip((float(centre[1]) + side * half) * width, 0, width)) for side in (-1, 1))
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)


MIXES: dict[str, Mix] = {"mixup": mixup, "cutmix": cutmix}
"""Name in `augment.mix` -> how; ``none`` is none of them."""


def mix_batch(
    images: torch.Tensor, targets: torch.Tensor, classes: int, augment: AugmentSpec, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix a batch with itself in another order, with one share for all of it.

    Parameters
    ----------
    images
        (B, 3, H, W) float32.
    targets
        Classes (B,) int64, or (B, C) float32.
    classes
        C.
    augment
        With a `mix` among `MIXES`.
    generator
        Draws the share from Beta(alpha, alpha), the order and the boxes.

    Returns
    -------
    tuple
        Images as they came, and targets (B, C) float32.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    share = float(np.random.default_rng(seed).beta(augment.mix_alpha, augment.mix_alpha))
    order = torch.randperm(len(images), generator=generator).to(images.device)
    mixed, share = MIXES[augment.mix](images, images[order], share, generator)
    soft = targets if targets.is_floating_point() else functional.one_hot(targets, classes).float()
    return mixed, soft[order].lerp(soft, share)
