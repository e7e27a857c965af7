"""Training batches of an image stage: images, or precomputed activations."""

from collections.abc import Sequence

import numpy as np
import torch

from unfreeze.models.images.networks.classifier import normalise
from unfreeze.models.images.networks.weights import Preprocessing
from unfreeze.models.images.pixels.augmentation import apply_views, draw_views, mix_batch
from unfreeze.models.images.pixels.cache import ImageCache
from unfreeze.models.settings import AugmentSpec
from unfreeze.models.store.row_store import StoredRows
from unfreeze.models.training.batches import WHOLE

CPU_FORWARD_SIZE = 16
"""Images per forward pass on a CPU: with 64, activations exceed its caches and each image takes a sixth longer."""


class ImageBatches:
    """Rows (N,) int64 of an image cache, augmented at random each time they are drawn for training.

    Parameters
    ----------
    targets
        Class of each row, (N,) int64.
    augment
        Random views; unused if a batch is gathered without a generator.
    fixed_views
        View parameters (N, 8) to apply without a generator, for test-time augmentation; None for the plain view.
    """

    precomputed, epoch = False, 0

    def __init__(
        self,
        cache: ImageCache,
        rows: np.ndarray,
        targets: np.ndarray,
        classes: int,
        augment: AugmentSpec,
        preprocessing: Preprocessing,
        device: torch.device,
        batch_size: int,
        fixed_views: torch.Tensor | None = None,
    ) -> None:
        self.cache, self.rows, self.augment, self.preprocessing = cache, rows, augment, preprocessing
        self.targets, self.classes = torch.from_numpy(targets), classes
        self.device, self.batch_size, self.fixed_views = device, batch_size, fixed_views
        self.forward_size = min(CPU_FORWARD_SIZE, batch_size) if device.type == "cpu" else batch_size

    def __len__(self) -> int:
        return len(self.rows)

    def gather(
        self, rows: torch.Tensor, generator: torch.Generator | None, share: slice = WHOLE
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gather normalised images (B, 3, S, S) float32 and targets (B,) int64; see `training.batches.Batches`.

        Mixed images have targets (B, C) float32.
        """
        mixes = generator is not None and self.augment.mix != "none"
        every, read = len(rows), WHOLE if mixes else share  # an image may be mixed with one of another rank
        rows = rows[read]
        images = self.cache.gather(self.rows[rows.numpy()]).to(self.device).float().div_(255)
        targets = self.targets[rows].to(self.device)
        if generator is not None and self.augment.preset != "none":
            views = draw_views(every, self.augment, generator)[read]
            images = apply_views(images, views)
        elif generator is None and self.fixed_views is not None:
            images = apply_views(images, self.fixed_views[rows])
        if generator is not None and mixes:
            images, targets = mix_batch(images, targets, self.classes, self.augment, generator)
            images, targets = images[share], targets[share]
        return normalise(images, self.preprocessing), targets


class ActivationBatches:
    """Precomputed activations of one or more views of the same rows.

    Parameters
    ----------
    views
        Rows of each view, N each in the same order. With several, training draws a view per row and visit.
    targets
        Class of each row, (N,) int64.
    """

    precomputed, epoch = True, 0

    def __init__(self, views: Sequence[StoredRows], targets: np.ndarray, device: torch.device, batch_size: int) -> None:
        self.views, self.targets = views, torch.from_numpy(targets)
        self.device, self.batch_size, self.forward_size = device, batch_size, max(batch_size, 1024)

    def __len__(self) -> int:
        return len(self.targets)

    def gather(
        self, rows: torch.Tensor, generator: torch.Generator | None, share: slice = WHOLE
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gather activations (B, D) float32 and targets (B,) int64; see `training.batches.Batches`."""
        every, rows = len(rows), rows[share]
        if generator is None or len(self.views) == 1:
            activations = self.views[0].gather(rows.numpy())
        else:
            drawn = torch.randint(len(self.views), (every,), generator=generator)[share]
            activations = torch.empty(len(rows), self.views[0].width)
            for number, view in enumerate(self.views):
                chosen = drawn == number
                activations[chosen] = view.gather(rows[chosen].numpy())
        return activations.to(self.device), self.targets[rows].to(self.device)
