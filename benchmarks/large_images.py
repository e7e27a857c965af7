"""Folders of 10^4, 10^5 and 10^6 generated images, from listing to predictions; `--sizes`, `--parts` choose.

The images are JPEGs of 8 by 8 pixels and about 400 bytes, in ten classes. Each part (index, refresh, resize,
precompute, predict) runs in a process of its own with a small network without pretrained weights, so that its peak is
its own. Refresh is an index after 100 files have changed.

Memory is the peak of anonymous memory, as in `benchmarks.memory`: pages of mapped files are not counted. CPU seconds
include those of all threads. The folder of the images is kept in `--folder`, if given, and used again.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.large_table import Peak
from unfreeze.models.images.data import ImageData
from unfreeze.models.images.modality import Images
from unfreeze.models.images.pixels.index import Index
from unfreeze.models.images.serving.predictor import save_classifier
from unfreeze.models.recipe.modality import modality
from unfreeze.models.settings import TrainImages
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.predict import Predict
from unfreeze.models.store.workspace import Workspace

PARTS = ("index", "refresh", "resize", "precompute", "predict")
CLASSES, SIDE, CHANGED = 10, 8, 100
SPEC = {
    "model": {"backbone": "timm/test_resnet", "weights": "none"},
    "data": {"size": 32},
    "tta": {"n_aug": 0},
    "recipe": [{"name": "head", "train": "head", "precompute": True, "lr": 0.01}],
    "device": "cpu",
}


def write_images(folder: Path, count: int) -> None:
    """Write the images; a number after the end of each JPEG, which decoders ignore, makes it differ from all others."""
    rng = np.random.default_rng(0)
    drawn = [_encoded(rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)) for _ in range(10 * CLASSES)]
    for label in range(CLASSES):
        place = folder / f"class-{label}"
        place.mkdir(parents=True)
        for number in range(label, count, CLASSES):
            (place / f"{number:07d}.jpg").write_bytes(drawn[number % len(drawn)] + number.to_bytes(8))


def _encoded(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def measure(part: str, source: Path, home: Path) -> dict[str, Any]:
    """Run one part; seconds, CPU seconds and peak bytes."""
    kind = modality("images")
    assert isinstance(kind, Images)
    params: TrainImages = build_spec(TrainImages, SPEC, {"data.source": str(source)})
    workspace, work = Workspace(home), _work(part, kind, params, source, home)
    peak, began, used = Peak(), time.perf_counter(), time.process_time()
    rows = work(workspace)
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    return {"rows": rows, "seconds": seconds, "cpu": cpu, "bytes": max(peak.stop().values())}


def _work(part: str, kind: Images, params: TrainImages, source: Path, home: Path) -> Any:
    def index(workspace: Workspace) -> int:
        return len(Index.load(kind.index(params, workspace)))

    def resize(workspace: Workspace) -> int:
        return sum(kind.prepare(params, workspace).splits.values())

    def precompute(workspace: Workspace) -> int:
        data = ImageData(params, kind.prepare(params, workspace))
        return len(data.precompute(data.learner(), 0, workspace)) and len(data.index)

    def predict(workspace: Workspace) -> int:
        listed = kind.list_source(Predict(source=str(source)), "model", home / "model", workspace, [])
        rows = 0
        for chunk in kind.load(home / "model", "cpu").chunks(listed, kind.chunk, 0, None):
            rows += len(chunk.keys)
        return rows

    if part == "refresh":
        rng = np.random.default_rng(time.time_ns())
        for file in sorted((source / "class-0").iterdir())[:CHANGED]:
            file.write_bytes(_encoded(rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)))
    if part == "predict" and not (home / "model").exists():
        data = ImageData(params, kind.prepare(params, Workspace(home)))
        (home / "model").mkdir()
        state = data.learner().state()
        save_classifier(home / "model", [state], data.params, data.preprocessing, data.target, data.sizes[0])
    return {"index": index, "refresh": index, "resize": resize, "precompute": precompute, "predict": predict}[part]


def main() -> None:
    """Measure every size and print a line per part, then the ratio of the memory of the largest to the smallest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure[0], Path(given.measure[1]), Path(given.measure[2]))))
        return
    columns = ("images", "part", "seconds", "CPU seconds", "CPU µs an image", "MB")
    shown, memory = Table(*columns), dict[str, list[int]]()
    with tempfile.TemporaryDirectory() as temporary:
        for size in given.sizes:
            folder = (given.folder or Path(temporary)) / str(size)
            if not (folder / "images").exists():
                write_images(folder / "images", size)
            for part in given.parts:
                arguments = ["--measure", part, str(folder / "images"), str(folder / "home")]
                command = [sys.executable, "-m", "benchmarks.large_images", *arguments]
                environment = {"OMP_NUM_THREADS": "1", **os.environ}
                printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout
                found = json.loads(printed.splitlines()[-1])
                memory.setdefault(part, []).append(found["bytes"])
                figures = [f"{found['seconds']:.1f}", f"{found['cpu']:.1f}", f"{1e6 * found['cpu'] / size:.0f}"]
                print(size, part, *figures, f"{found['bytes'] / 1e6:.0f}", flush=True)
                shown.add_row(f"{size:,}", part, *figures, f"{found['bytes'] / 1e6:.0f}")
    Console(width=120).print(shown)
    for part, sizes in memory.items():
        print(f"{part}: memory of the last size / of the first: {sizes[-1] / sizes[0]:.2f}")


if __name__ == "__main__":
    main()
