"""From image files to probabilities, against the forward pass of the backbone alone.

All in one process, in turns. The backbone's own pass takes random tensors of the same shape, at the same batch size and
in the same number format: first the body as its library builds it, then as the predictor runs it, with its batch norms
folded into the convolutions.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks._prepared import PHOTOS, median
from unfreeze.models.images.networks.backbones import load_body
from unfreeze.models.images.networks.classifier import build_classifier
from unfreeze.models.images.serving.predictor import ImagePredictor, save_classifier
from unfreeze.models.settings import ModelSpec, TrainImages
from unfreeze.models.targets import SingleLabel

SIZE = 224
ROUNDS = 9
PHOTOS_A_ROUND = 320
CLASSES = ["cat", "dog"]


def predictor_of(params: TrainImages, folder: Path) -> ImagePredictor:
    """A predictor with pretrained body and new head: how fast it is does not depend on its weights."""
    network = build_classifier(params.model, len(CLASSES), seed=0, sizes=[SIZE])
    preprocessing = load_body(params.model, [SIZE]).preprocessing
    save_classifier(folder, [network.state_dict()], params, preprocessing, SingleLabel(CLASSES), SIZE)
    return ImagePredictor(folder)


def main() -> None:
    """Measure and print the ratios."""
    if not PHOTOS.exists():
        sys.exit(f"{PHOTOS} is not there: nothing to measure")
    paths = sorted(str(path) for path in PHOTOS.rglob("*.jpg"))[:: 1100 // PHOTOS_A_ROUND][:PHOTOS_A_ROUND]
    model = ModelSpec()
    with tempfile.TemporaryDirectory() as folder:
        predictor = predictor_of(TrainImages(model=model), Path(folder))
    backbone = load_body(model, [SIZE]).to(predictor.device).to(memory_format=torch.channels_last)
    size = predictor.batch_size
    inputs = torch.randn(size, 3, SIZE, SIZE, device=predictor.device).contiguous(memory_format=torch.channels_last)

    def passes(body: nn.Module) -> None:
        for _ in range(len(paths) // size):
            with torch.inference_mode(), predictor.precision.autocast(training=False):
                body(inputs)
        if predictor.device.type == "cuda":
            torch.cuda.synchronize()

    def end_to_end() -> None:
        for chunk in predictor.stream(paths):
            assert not chunk.unreadable

    measured: dict[str, tuple[Callable[[], None], int]] = {
        "files to probabilities": (end_to_end, len(paths)),
        "backbone's forward pass alone": (lambda: passes(backbone), len(paths) // size * size),
        "the predictor's own body alone": (lambda: passes(predictor.networks[0].body), len(paths) // size * size),
    }
    for run, _ in measured.values():
        run()
    lrs: dict[str, list[float]] = {name: [] for name in measured}
    load = os.getloadavg()[0]
    for _ in range(ROUNDS):
        for name, (run, images) in measured.items():
            began = time.perf_counter()
            run()
            lrs[name].append(images / (time.perf_counter() - began))
    form = f"batches of {size}, {predictor.precision.inference} on {predictor.device}"
    print(f"{len(paths):,} photos at {SIZE} pixels, {form}")
    for name, values in lrs.items():
        spread = f"{min(values):,.0f} to {max(values):,.0f}"
        print(f"{name:34} {median(values):8,.0f} images a second ({spread} in {ROUNDS} rounds)")
    # On a machine that does other work as well, the best rounds say more than the medians.
    summaries: dict[str, Callable[[list[float]], float]] = {"medians": median, "best rounds": max}
    for what, of in summaries.items():
        whole, backbone_alone, body_alone = (of(values) for values in lrs.values())
        ratios = (
            f"{whole / backbone_alone:.2f} of the backbone alone, {whole / body_alone:.2f} of the predictor's own body"
        )
        print(f"files to probabilities, by {what}: {ratios}")
    print(f"load average before the rounds, the warm-up's own included: {load:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
