"""How often sets and intervals of `predict --coverage 0.9` hold the truth, and what the temperature does, on test rows.

Small trainings on eight sets, seeds of the split and of the training alike: tables with few trees and a small network,
photos by logistic regression on their activations. `before` is without the temperature of the kept model.

With an argument, only sets whose name holds it; a second one is the number of seeds (5).
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from sklearn import datasets

from benchmarks._prepared import PHOTOS
from unfreeze import Images, Tables, load_model
from unfreeze.estimators.base import Estimator
from unfreeze.models.evaluation.calibration import expected_calibration_error
from unfreeze.models.targets.temperature import scaled

COVERAGE = 0.9
SMALL = {
    "model.members": 3,
    "model.width": 32,
    "recipe.all.cycles": 2,
    "recipe.all.cycle_steps": 50,
    "data.split": "random",
    "data.valid_fraction": 0.3,
    "data.test_fraction": 0.4,
}
REGRESSION = {
    "recipe": [{"name": "head", "precompute": True, "regression": True}],
    "tta": {"n_aug": 0},
    "data": {"valid_fraction": 0.3, "test_fraction": 0.4, "size": 96},
}


def tables() -> Iterator[tuple[str, pd.DataFrame]]:
    """Tables with a column ``y``."""
    for name, load in (
        ("digits", datasets.load_digits),
        ("breast_cancer", datasets.load_breast_cancer),
        ("diabetes", datasets.load_diabetes),
    ):
        columns, target = load(return_X_y=True)
        yield name, _frame(columns, target)
    yield "friedman", _frame(*datasets.make_friedman1(1500, 8, noise=2, random_state=0))
    for name, classes, distance in (("clusters", 4, 1.0), ("close clusters", 3, 0.6)):
        columns, target = datasets.make_classification(
            1500, 12, n_informative=8, n_classes=classes, class_sep=distance, flip_y=0.05, random_state=0
        )
        yield name, _frame(columns, target)


def _frame(columns: np.ndarray, target: np.ndarray) -> pd.DataFrame:
    frame = pd.DataFrame(columns).add_prefix("x")
    return frame.assign(y=target if target.dtype.kind == "f" else [f"class {each}" for each in target])


def measured(model: Estimator, work: Path) -> dict[str, float]:
    """Of the kept model on its test rows."""
    model.fit()
    assert model._fitted is not None
    data: Any = model._fitted.data
    rows = data.rows["test"]
    loaded = load_model(model.save(work / "model"), "cpu")
    is_images = data.prepared.modality == "images"
    given = data.index.rows["path"].take(rows).to_pylist() if is_images else data.frame.iloc[rows]
    answered, actual = loaded.predict_frame(given, COVERAGE).reset_index(drop=True), data.actual("test")
    if not data.target.classes:
        held = (answered["y_low"] <= actual[:, 0]) & (actual[:, 0] <= answered["y_high"])
        return {"coverage": float(held.mean())}
    after = np.array(answered["probabilities"].tolist())
    before = scaled(after, 1 / loaded._predictor.temperature)
    names = [data.target.classes[number] for number in actual]
    return {
        "coverage": float(np.mean([name in each for name, each in zip(names, answered["set"], strict=True)])),
        "classes": float(answered["set"].map(len).mean()),
        "abstaining": float(answered["abstains"].mean()),
        "temperature": loaded._predictor.temperature,
        "ECE before": expected_calibration_error(before, actual),
        "ECE": expected_calibration_error(after, actual),
        "loss before": data.target.loss_of(before, actual),
        "loss": data.target.loss_of(after, actual),
    }


def main(arguments: Sequence[str]) -> None:
    """Measure and print every set."""
    wanted, seeds = arguments[0] if arguments else "", range(int(arguments[1]) if len(arguments) > 1 else 5)
    table, shown = Table("set", title="Means over seeds, test rows"), list[dict[str, float]]()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        os.environ["UNFREEZE_HOME"] = str(work / "cache")
        sets: dict[str, Path] = {name: PHOTOS.parent / name for name in ("signs", "trash")}
        for name, frame in tables():
            sets[name] = work / f"{name}.csv"
            frame.to_csv(sets[name], index=False)
        for name, source in sets.items():
            if wanted not in name:
                continue
            found = []
            for seed in seeds:
                settings: dict[str, Any] = {"seed": seed, "data.split_seed": seed, "device": "cpu"}
                if source.is_dir():
                    model: Estimator = Images(source, config=REGRESSION | settings)
                else:
                    model = Tables(source, target="y", config=SMALL | settings)
                found.append(measured(model, work / f"{name}-{seed}"))
                print(name, seed, {key: round(value, 3) for key, value in found[-1].items()}, flush=True)
            shown.append({"set": name, **pd.DataFrame(found).mean().to_dict()})  # type: ignore[dict-item]
    rows = pd.DataFrame(shown).round(3).astype("string").fillna("")
    for column in rows.columns[1:]:
        table.add_column(column)
    for row in rows.itertuples(index=False):
        table.add_row(*row)
    Console(width=150).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
