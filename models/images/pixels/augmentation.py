"""Random views (a fused affine warp and a lighting change per image, on the training device), TTA averaging, mixing."""

import hashlib
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional

from unfreeze.models.settings import AugmentSpec

COLUMNS = ("flip", "quarter_turns", "radians", "zoom", "shift_x", "shift_y", "brightness", "contrast")
"""Parameters drawn per image, in column order."""
VIEW_SEED = 20171217
"""Base seed of numbered views, which are the same in every run so that their activations can be shared."""


def draw_views(count: int, augment: AugmentSpec, generator: torch.Generator) -> torch.Tensor:
    """Draw the parameters of one random view for each of `count` images: (count, 8) float32, columns as in `COLUMNS`.

    Views are rotated with probability 0.75, as in fastai 0.7 (``RandomRotate``, p=.75); zoom, shift and lighting
    (``RandomLighting`` there) always change. A contrast factor and its inverse are equally likely.
    """
    draws = torch.rand(count, len(COLUMNS), generator=generator)
    return _views_of(draws, torch.rand(count, generator=generator), augment)


def _views_of(draws: torch.Tensor, rotates: torch.Tensor, augment: AugmentSpec) -> torch.Tensor:
    """Map uniform numbers (count, 8) and (count,) in 0..1 to views (count, 8)."""
    if augment.preset == "none":
        return plain_views(len(draws))
    applies = rotates < 0.75
    flips = augment.preset in ("side_on", "top_down")
    signed = 2 * draws - 1
    contrast = signed[:, 7] * augment.max_lighting
    return torch.stack(
        [
            (draws[:, 0] < 0.5).float() * flips,
            (draws[:, 1] * 4).floor() * (augment.preset == "top_down"),
            signed[:, 2] * math.radians(augment.max_rotate) * applies,
            1 + draws[:, 3] * (augment.max_zoom - 1),
            signed[:, 4] * augment.max_shift,
            signed[:, 5] * augment.max_shift,
            signed[:, 6] * augment.max_lighting,
            torch.where(contrast < 0, 1 / (1 - contrast), 1 + contrast),
        ],
        dim=1,
    )


def plain_views(count: int) -> torch.Tensor:
    """Identity view parameters, (count, 8) float32."""
    return torch.tensor([0, 0, 0, 1, 0, 0, 0, 1], dtype=torch.float32).repeat(count, 1)


def numbered_view(view: int, contents: Sequence[str] | np.ndarray, augment: AugmentSpec) -> torch.Tensor:
    """Parameters (N, 8) of view number `view` of images: 0 is plain, others are random but fixed.

    Seeded by the image's content hash and distributed as in `draw_views`, so an image has the same views in every data
    set and position, and so do its copies.
    """
    if view == 0:
        return plain_views(len(contents))
    drawn = bytearray()
    for content in contents:
        text = content if isinstance(content, str) else content.decode()
        seed = f"{VIEW_SEED} {view} {text}".encode()
        drawn += hashlib.blake2b(seed, digest_size=4 * (len(COLUMNS) + 1)).digest()
    numbers = np.frombuffer(drawn, "<u4").reshape(-1, len(COLUMNS) + 1) >> 8  # float32 has 24 bits of precision
    draws = torch.from_numpy(numbers.astype(np.float32) / 2**24)
    return _views_of(draws[:, :-1], draws[:, -1], augment)


def apply_views(images: torch.Tensor, views: torch.Tensor) -> torch.Tensor:
    """Warp and relight images (B, 3, H, W) float in 0..1, on any device, each by its row of `views` (B, 8).

    Keeps shape, range and dtype. Beyond the border the image is mirrored.
    """
    views = views.to(images.device, images.dtype)
    flip, quarter_turns, radians, zoom, shift_x, shift_y, brightness, contrast = views.unbind(1)
    angle = radians + quarter_turns * (math.pi / 2)
    cosine, sine = angle.cos() / zoom, angle.sin() / zoom
    mirror = 1 - 2 * flip
    matrix = torch.stack([mirror * cosine, -mirror * sine, 2 * shift_x, sine, cosine, 2 * shift_y], dim=1).view(
        -1, 2, 3
    )
    # The matrix maps output to input coordinates, both in -1..1.
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    warped = functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    factor = contrast.view(-1, 1, 1, 1)
    offset = warped.mean(dim=(1, 2, 3), keepdim=True) * (1 - factor) + brightness.view(-1, 1, 1, 1)
    # One pass over the pixels: (x - mean) * c + mean + b takes nine times as long on a CPU.
    return torch.addcmul(offset, warped, factor).clamp_(0, 1)


def average_views(plain: np.ndarray, augmented: Sequence[np.ndarray]) -> np.ndarray:
    """Average the probabilities (not logits) of the plain and of augmented views, (N, C) each, as float64."""
    if not len(augmented):
        return np.asarray(plain, dtype=np.float64)
    weight = 1 / (len(augmented) + 1)
    return weight * np.asarray(plain, dtype=np.float64) + (1 - weight) * np.mean(augmented, axis=0, dtype=np.float64)


# --- mixing

Mix = Callable[[torch.Tensor, torch.Tensor, float, torch.Generator], tuple[torch.Tensor, float]]
"""(images (B, 3, H, W), partners, share of the images, generator) -> mixed images, exact share of the images."""


def mixup(
    images: torch.Tensor, partners: torch.Tensor, share: float, generator: torch.Generator
) -> tuple[torch.Tensor, float]:
    """Mix by weighted means (Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2017)."""
    return partners.lerp(images, share), share


def cutmix(
    images: torch.Tensor, partners: torch.Tensor, share: float, generator: torch.Generator
) -> tuple[torch.Tensor, float]:
    """Paste a box of the partner into each image (Yun et al., "CutMix", 2019); boxes are clipped at the border."""
    height, width = images.shape[-2:]
    centre = torch.rand(2, generator=generator)
    half = (1 - share) ** 0.5 / 2
    top, bottom = (int(np.clip((float(centre[0]) + side * half) * height, 0, height)) for side in (-1, 1))
    left, right = (int(np.clip((float(centre[1]) + side * half) * width, 0, width)) for side in (-1, 1))
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)


MIXES: dict[str, Mix] = {"mixup": mixup, "cutmix": cutmix}
"""Name in `augment.mix` -> function; ``none`` has no entry."""


def mix_batch(
    images: torch.Tensor, targets: torch.Tensor, classes: int, augment: AugmentSpec, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix a batch with a permutation of itself, with one share for the whole batch.

    Parameters
    ----------
    images
        (B, 3, H, W) float32.
    targets
        Classes (B,) int64, or (B, C) float32.
    classes
        Number C of classes.
    augment
        Its `mix` is a key of `MIXES`.
    generator
        Draws the share from Beta(alpha, alpha), the order and the boxes.

    Returns
    -------
    tuple
        Mixed images of the same shape and dtype, and targets (B, C) float32.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    share = float(np.random.default_rng(seed).beta(augment.mix_alpha, augment.mix_alpha))
    order = torch.randperm(len(images), generator=generator).to(images.device)
    mixed, share = MIXES[augment.mix](images, images[order], share, generator)
    soft = targets if targets.is_floating_point() else functional.one_hot(targets, classes).float()
    return mixed, soft[order].lerp(soft, share)
