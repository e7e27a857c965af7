"""What a first look takes, in seconds of processor time, and what its logistic regressions reach on other images.

`unfreeze look` on 44 photos of waste runs in a process of its own; then logistic regression of all views and of plain
images is fitted to the training rows of every set, with the validation loss of the plain images.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from benchmarks._prepared import PHOTOS, SHARED, prepared
from unfreeze.models.images.networks.linear_head import fit_linear_head
from unfreeze.models.settings import TrainImages
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.store.row_store import StoredRows

TRASH, SIGNS = SHARED / "data" / "trash", SHARED / "data" / "signs"


def first_of_each(source: Path, folder: Path, classes: int, images: int) -> Path:
    """The first images of the first classes of a source."""
    for each in sorted(path for path in source.iterdir() if path.is_dir())[:classes]:
        (folder / each.name).mkdir(parents=True)
        for file in sorted(each.iterdir())[:images]:
            shutil.copy(file, folder / each.name)
    return folder


def look(source: Path, home: Path) -> float:
    """Seconds of processor time of the command, with nothing prepared."""
    command = [sys.executable, "-m", "unfreeze.flows.cli", "look", str(source), "--out", str(home / "look.html")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env={**os.environ, "UNFREEZE_HOME": str(home)}, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def regressions(name: str, source: Path, size: int | None) -> None:
    """Print validation losses, and the processor time that the fits took."""
    with prepared(build_spec(TrainImages, {"data": {"source": str(source), "size": size}})) as photos:
        data = photos.bind()
        files = {part: path for activations_of in photos.precompute() for part, path in activations_of.items()}

        def activations(split: str, view: int) -> np.ndarray:
            return StoredRows(files[split, view]).gather(np.arange(len(data.rows[split]))).numpy()

        views = [activations("train", view) for view in sorted(view for split, view in files if split == "train")]
        targets, valid = data.targets("train"), torch.from_numpy(activations("valid", 0))
        began = time.process_time()
        for kind, fitted_on in {"all views": views, "plain images": views[:1]}.items():
            head = fit_linear_head(fitted_on, targets, data.target.outputs)
            logits = valid @ head["0.weight"].T + head["0.bias"]
            loss = float(cross_entropy(logits, torch.from_numpy(data.targets("valid"))))
            print(f"{name}, {kind}: validation loss {loss:.4f}", flush=True)
        print(f"{name}: {time.process_time() - began:.1f} s of processor time", flush=True)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        few = first_of_each(TRASH, Path(folder) / "trash", classes=4, images=11)
        print(f"unfreeze look, 44 photos: {look(few, Path(folder) / 'home'):.1f} s of processor time", flush=True)
        regressions("150 signs", first_of_each(SIGNS, Path(folder) / "signs", classes=10, images=15), 64)
    regressions("signs", SIGNS, 64)
    regressions("trash", TRASH, None)
    regressions("cats_dogs", PHOTOS, None)


if __name__ == "__main__":
    main()
