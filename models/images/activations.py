"""Precomputed activations: what a frozen body makes of every image, written once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from unfreeze.models.images.backbones import Body
from unfreeze.models.images.batches import ImageBatches
from unfreeze.models.images.row_file import RowWriter
from unfreeze.models.training.batches import in_order
from unfreeze.models.training.precision import Precision

ACTIVATIONS_VERSION = 2
"""Raise it when the same inputs would give other activations; it is part of a cache key."""


@torch.no_grad()
def precompute(
    body: Body,
    images: ImageBatches,
    precision: Precision,
    path: Path,
    metadata: dict[str, str],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the activations of one view of every image.

    Parameters
    ----------
    body
        Frozen: put into evaluation mode here, so that the activations equal the frozen network's.
    images
        The rows and their fixed view.
    precision
        Number formats; inference is used. Activations are pooled and kept in float32.
    path
        File to write: (N, D) float32 rows, 4 D bytes each (10 KB for efficientnet-lite0).
    metadata
        Texts kept in the file.
    progress
        Called with (rows done, all rows) after every batch.
    """
    body.to(images.device).to(memory_format=torch.channels_last).eval()

    done = 0
    with RowWriter(path, body.features, np.float32, metadata) as writer:
        for inputs, _ in in_order(images):
            with precision.autocast(training=False):
                activations = body(inputs)
            writer.append(activations.float().cpu().numpy())
            done += len(inputs)
            if progress is not None:
                progress(done, len(images))
