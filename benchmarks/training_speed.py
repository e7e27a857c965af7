"""Images per second of training whole networks: from the image cache, on a fixed batch, and the share of peak speed.

``python -m benchmarks.training_speed --side 64 --images 64 --batch-size 8`` fits a CPU; the defaults are for a GPU.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._prepared import prepared
from unfreeze.models.images.data import ImageData
from unfreeze.models.settings import Stage, TrainImages
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.training.batches import Batches
from unfreeze.models.training.loop import train_epoch

BACKBONES = ("timm/resnet34", "timm/convnext_tiny", "timm/vit_small_patch16_224")
RECIPE = [{"name": "all", "train": "all", "lr": 1e-4}]
WARM_UP = 5
"""Batches before the clock starts."""


class FixedBatch:
    """The first batch again and again: no cache, no augmentation, no copy to the device."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._batch: Any = None

    def __len__(self) -> int:
        return len(self._batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)

    def gather(self, rows: torch.Tensor, generator: torch.Generator, share: slice) -> Any:
        """See `Batches.gather`."""
        if self._batch is None or len(self._batch[1]) != len(rows):
            self._batch = self._batches.gather(rows, generator, share)
        return self._batch


def draw(folder: Path, images: int, side: int) -> None:
    """Write noise as JPEG files of two classes."""
    rng = np.random.default_rng(0)
    for number in range(images):
        (folder / str(number % 2)).mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / str(number % 2) / f"{number}.jpg", quality=80)


def images_a_second(data: ImageData, train: Batches, epochs: int) -> float:
    """Speed of the training loop on whole batches."""
    learner = data.learner()
    learner.prepare(Stage.model_validate(RECIPE[0]), 0, 1e-4)

    def steps() -> Iterator[Any]:
        for epoch in range(epochs):
            yield from train_epoch(learner, train, lambda batch: 1.0, epoch * (len(train) // train.batch_size))

    running = steps()
    for _ in islice(running, WARM_UP):
        pass
    _wait(data.device)
    began = time.perf_counter()
    count = sum(1 for _ in running)
    _wait(data.device)
    return count * train.batch_size / (time.perf_counter() - began)


def flops_an_image(data: ImageData, train: Batches) -> float:
    """Floating-point operations of a forward and a backward pass."""
    learner = data.learner()
    learner.prepare(Stage.model_validate(RECIPE[0]), 0, 1e-4)
    inputs, targets = train.gather(torch.arange(2), torch.Generator(), slice(None))
    with FlopCounterMode(display=False) as counter:
        learner.train_batch(inputs, targets, train)
    return float(counter.get_total_flops()) / 2


def peak(data: ImageData, side: int = 8192) -> float:
    """Floating-point operations a second of one large matrix product in the training's number format."""
    side = side if data.device.type == "cuda" else 1024
    left, right = (torch.randn(side, side, device=data.device, dtype=data.precision.training) for _ in range(2))
    for _ in range(3):
        left @ right
    _wait(data.device)
    began = time.perf_counter()
    for _ in range(20):
        left @ right
    _wait(data.device)
    return 20 * 2 * side**3 / (time.perf_counter() - began)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Measure and print one line per backbone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    given = parser.parse_args()
    print("backbone, images/s from the cache, of a fixed batch, ratio, share of the measured speed of a matrix product")
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), given.images, given.side)
        for backbone in given.backbones:
            settings = {"data.source": folder, "data.size": given.side, "data.valid_fraction": 0.01}
            settings |= {"model.backbone": backbone, "model.weights": "none", "optimizer.batch_size": given.batch_size}
            with prepared(build_spec(TrainImages, {"recipe": RECIPE}, settings)) as images:
                data = images.bind()
                train = data.images(0, "train")
                cached = images_a_second(data, train, given.epochs)
                fixed = images_a_second(data, FixedBatch(train), given.epochs)  # type: ignore[arg-type]
                share = flops_an_image(data, train) * cached / peak(data)
            print(f"{backbone:32} {cached:9.1f} {fixed:9.1f} {cached / fixed:6.2f} {share:6.2f}", flush=True)


if __name__ == "__main__":
    main()
