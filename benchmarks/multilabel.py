"""Several labels per image against a logistic regression per label on the same cached activations.

2,400 generated images of 64 px, each with none to five shapes of any colour and size; the labels are the kinds of
shapes. Regression and network see the same training rows; thresholds of both are tuned on validation rows, and all
figures are of test rows. About 100 seconds on one core.

Run: `python -m benchmarks.multilabel`
"""

import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks._prepared import MOBILENET, Prepared
from unfreeze.models.evaluation.calibration import tuned_thresholds
from unfreeze.models.images.data import ImageData
from unfreeze.models.recipe.training_data import Activations
from unfreeze.models.settings import TrainImages
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.store.row_store import StoredRows
from unfreeze.models.targets import MultiLabel

IMAGES, SIDE, SHARES = 2400, 64, {"circle": 0.5, "square": 0.4, "triangle": 0.3, "ring": 0.25, "cross": 0.2, "bar": 0.1}
STRENGTHS = (0.001, 0.01, 0.1, 1.0)
RECIPE = [
    {"name": "head", "precompute": True, "lr": 0.003, "cycles": 2, "cycle_steps": 60, "patience": 1},
    {"name": "full", "train": "all", "lr": 0.01, "ratio": 3, "cycles": 1, "cycle_len": 4},
]
"""As for data unlike ImageNet: batch norm is trained, and the ratio of lrs is 3."""


def draw(folder: Path) -> Path:
    """Write images and a table of their labels, in random order with semicolons between them."""
    generator = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(IMAGES):
        noise = generator.normal(generator.integers(60, 200, 3), 25, (SIDE, SIDE, 3))
        image = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
        labels = [name for name, share in SHARES.items() if generator.random() < share]
        generator.shuffle(labels)
        for name in labels:
            shape(ImageDraw.Draw(image), name, generator)
        image.save(folder / "images" / f"{number}.png")
        rows.append({"id": number, "shapes": ";".join(labels)})
    pd.DataFrame(rows).to_csv(folder / "shapes.csv", index=False)
    return folder / "shapes.csv"


def shape(pen: ImageDraw.ImageDraw, name: str, generator: np.random.Generator) -> None:
    """Draw one shape of random colour, size and place."""
    size = int(generator.integers(11, 22))
    left, top = (int(place) for place in generator.integers(0, SIDE - size, 2))
    right, bottom, middle = left + size, top + size, left + size // 2
    colour = tuple(int(value) for value in generator.integers(0, 256, 3))
    if name == "circle":
        pen.ellipse((left, top, right, bottom), fill=colour)
    elif name == "ring":
        pen.ellipse((left, top, right, bottom), outline=colour, width=3)
    elif name == "square":
        pen.rectangle((left, top, right, bottom), fill=colour)
    elif name == "triangle":
        pen.polygon([(middle, top), (left, bottom), (right, bottom)], fill=colour)
    elif name == "bar":
        pen.rectangle((left, top + size // 2 - 2, right, top + size // 2 + 1), fill=colour)
    else:
        pen.line((left, top, right, bottom), fill=colour, width=4)
        pen.line((left, bottom, right, top), fill=colour, width=4)


def regressed(data: ImageData, activations: Activations) -> dict[str, np.ndarray]:
    """Probabilities of the validation and test rows by a regression per label, its penalty the best on the former."""
    inputs = {
        split: StoredRows(activations[split, 0]).gather(np.arange(len(data.rows[split]))).numpy() for split in data.rows
    }
    known, judged = data.actual("train"), data.actual("valid")
    found = {split: np.zeros(data.actual(split).shape) for split in ("valid", "test")}
    for label in range(known.shape[1]):
        fitted = []
        for strength in STRENGTHS:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(inputs["train"], known[:, label])
            fitted.append((log_loss(judged[:, label], model.predict_proba(inputs["valid"])[:, 1]), strength, model))
        best = min(fitted, key=lambda each: each[:2])[2]
        for split, probabilities in found.items():
            probabilities[:, label] = best.predict_proba(inputs[split])[:, 1]
    return found


def main() -> None:
    """Measure and print the table."""
    if not MOBILENET.exists():
        sys.exit(f"{MOBILENET} is not there: nothing to measure")
    with tempfile.TemporaryDirectory() as place:
        settings = {
            "data.source": str(draw(Path(place) / "shapes")),
            "data.path_column": "id",
            "data.label_column": "shapes",
            "data.image_folder": "images",
            "data.suffix": ".png",
            "data.size": SIDE,
            "data.test_fraction": 0.25,
            "model.backbone": "mobilenet_v2",
            "model.weights": str(MOBILENET),
            "recipe": RECIPE,
            "tta.n_aug": 1,
            "optimizer.batch_size": 32,
            "device": "cpu",
        }
        prepared = Prepared(build_spec(TrainImages, {}, settings), Path(place) / "cache")
        data = prepared.bind()
        activations = prepared.precompute()[0]
        began = time.perf_counter()
        baseline = regressed(data, activations)
        regression_seconds, began = time.perf_counter() - began, time.perf_counter()
        metrics, kept = prepared.run(data)
        seconds = time.perf_counter() - began
    names = ["f1", "f2", "map", "auc", "accuracy"]
    table = Table("model", *names, "seconds", title=f"{len(data.rows['test']):,} test rows, {len(SHARES)} labels")
    actual, half = data.actual("test"), MultiLabel(data.target.classes)
    tuned = MultiLabel(half.classes, tuned_thresholds(baseline["valid"], data.actual("valid")).tolist())
    for name, target in (("thresholds of one half", half), ("tuned thresholds", tuned)):
        values = [metric(baseline["test"], actual) for metric in target.metrics(names).values()]
        shown = [f"{value:.4f}" for value in values]
        table.add_row(f"regression per label, {name}", *shown, f"{regression_seconds:.0f}")
    for suffix in ("_plain", "_tta"):
        shown = [f"{metrics[f'test/{name}{suffix}']:.4f}" for name in names]
        table.add_row(f"unfreeze ({kept}){suffix.replace('_', ', ').upper()}", *shown, f"{seconds:.0f}")
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
