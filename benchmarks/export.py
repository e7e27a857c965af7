"""Exports of twelve backbones: which formats hold them, how far probabilities are off, how large and how fast they are.

Prints a row per backbone and format; with arguments, only those of these backbones. Heads are fitted to photos, and so
are the batch norms of random bodies: an export of a network that says the same of every image would prove nothing.
"""

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks._prepared import MOBILENET, PHOTOS, median
from unfreeze.models.errors import UserError
from unfreeze.models.images.networks.backbones import preprocessing_of
from unfreeze.models.images.networks.classifier import build_classifier, normalise_bytes
from unfreeze.models.images.networks.linear_head import fit_linear_head
from unfreeze.models.images.pixels.decode import make_square, read_image
from unfreeze.models.images.serving.export import FORMATS, MOST_ROWS, PixelClassifier, export_classifier
from unfreeze.models.images.serving.predictor import ImagePredictor, save_classifier
from unfreeze.models.settings import DataSpec, ModelSpec, TrainImages
from unfreeze.models.targets import SingleLabel

FITTED_ON = 128
ROUNDS = 9
BACKBONES = {
    "timm/tf_efficientnet_lite0": "imagenet",
    "mobilenet_v2": str(MOBILENET),
    **dict.fromkeys(
        ("resnet18", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny", "densenet121", "vgg11_bn"),
        "none",
    ),
    **dict.fromkeys(
        ("timm/resnet18", "timm/regnety_004", "timm/vit_tiny_patch16_224", "timm/swin_tiny_patch4_window7_224"), "none"
    ),
}
"""Name -> weights; a random body is as hard to export as a trained one."""


def photos(size: int) -> tuple[list[bytes], np.ndarray]:
    """Photos of cats and dogs, already resized: full ones would be decoded twice for each backbone and format."""
    every = sorted(PHOTOS.rglob("*.jpg"))
    chosen = [every[row] for row in np.random.default_rng(0).permutation(len(every))[:MOST_ROWS]]
    images = []
    for path in chosen:
        square = make_square(read_image(path, 100, size), size, "crop", "bilinear")
        Image.fromarray(square).save(encoded := io.BytesIO(), "PNG")
        images.append(encoded.getvalue())
    return images, np.array([path.parent.name for path in chosen])


def classifier(backbone: str, images: list[bytes], labels: np.ndarray, size: int, folder: Path) -> Path:
    """A classifier whose head is fitted to some images."""
    model = ModelSpec(backbone=backbone, weights=BACKBONES.get(backbone, "none"), head="linear")
    network = build_classifier(model, 2, 0, [size])
    preprocessing = preprocessing_of(model)
    squares = [np.asarray(Image.open(io.BytesIO(image))) for image in images]
    inputs = normalise_bytes(torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2), preprocessing)
    norms = [each for each in network.body.modules() if isinstance(each, nn.BatchNorm2d)]
    with torch.no_grad():
        if norms and model.weights == "none":
            for norm in norms:
                norm.momentum = None  # its statistics are the mean over all batches
            network.train().body(inputs)
        features = network.eval().body(inputs).numpy()
    classes = sorted(set(labels))
    network.head.load_state_dict(fit_linear_head([features], np.searchsorted(classes, labels), len(classes)))
    params = TrainImages(model=model, data=DataSpec(size=size))
    save_classifier(folder, [network.state_dict()], params, preprocessing, SingleLabel(classes), size)
    return folder


def milliseconds(run: Callable[[np.ndarray], object], batch: int, size: int) -> float:
    """An image, in processor time."""
    squares, taken = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8), []
    for _ in range(ROUNDS):
        began = time.process_time()
        run(squares)
        taken.append(1000 * (time.process_time() - began) / batch)
    return median(taken)


def main() -> None:
    """Export every backbone in every format and print the table."""
    if not PHOTOS.exists():
        sys.exit(f"{PHOTOS} is not there: nothing to measure")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backbones", nargs="*", default=list(BACKBONES))
    parser.add_argument("--size", type=int, default=96)
    options = parser.parse_args()
    size, (images, labels) = options.size, photos(options.size)
    columns = ("backbone", "format", "rows", "same answer", "largest |dp|", "MB", "ms, one image", "ms, of 16")
    table = Table(*columns, title=f"{size} pixels, processor time on {torch.get_num_threads()} threads")
    for backbone in options.backbones:
        with tempfile.TemporaryDirectory() as folder:
            model = classifier(backbone, images[:FITTED_ON], labels[:FITTED_ON], size, Path(folder, "model"))
            graph = PixelClassifier(ImagePredictor(model, "cpu")).eval()

            def by_torch(squares: np.ndarray, graph: nn.Module = graph) -> object:
                with torch.inference_mode():
                    return graph(torch.from_numpy(squares))

            table.add_row(
                backbone, "(torch)", *[""] * 4, *(f"{milliseconds(by_torch, each, size):.2f}" for each in (1, 16))
            )
            for to in FORMATS:
                try:
                    result = export_classifier(model, to, Path(folder, to), images)
                except UserError as refusal:
                    print(backbone, refusal, flush=True)
                    table.add_row(backbone, to, "refused")
                    continue
                check, run = result["check"], FORMATS[to][1](Path(folder, to), result["about"])
                figures = (f"{check['same_answers']:,}", f"{check['largest_difference']:.1e}")
                speed = [f"{milliseconds(run, each, size):.2f}" for each in (1, 16)]
                megabytes = f"{sum(result['files'].values()) / 1e6:.1f}"
                table.add_row(backbone, to, f"{check['rows']:,}", *figures, megabytes, *speed)
                print(backbone, to, check, flush=True)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
