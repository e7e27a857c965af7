"""The commands that `benchmarks.faults` disturbs, their data, and what each comes to."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from PIL import Image

from benchmarks._fault_cases import Work

MODEL, STUDY, TRIALS = "stripes-classifier", "faults", 4

_IMAGES = {
    "data": {"size": 32},
    "model": {"backbone": "timm/test_resnet", "weights": "none", "head_width": 16},
    "finder": {"steps": 12},
    "optimizer": {"batch_size": 8},
    "tta": {"n_aug": 2},
    "recipe": [
        {"name": "head", "precompute": True, "find_lr": True, "cycles": 2},
        {"name": "augmented", "views": 2, "cycles": 2},
        {"name": "full", "train": "all", "lr": 0.002, "ratio": 3, "cycles": 3, "fewest_errors": None},
    ],
    "tracking": {"system_metrics": False, "model_name": MODEL},
    "device": "cpu",
    "precision": "fp32",
    "seed": 3,
}
_SHORT = [{"name": "full", "train": "all", "lr": 1e-6, "ratio": 3}]
_SEARCHED = [
    {"name": "head", "precompute": True, "lr": 0.01},
    {"name": "full", "train": "all", "lr": 0.002, "ratio": 3, "cycles": 2},
]
_TABLE = {
    "data": {"target": ["sales"], "task": "regression", "split": "random"},
    "model": {"members": 2, "width": 16, "depth": 1},
    "optimizer": {"batch_size": 32},
    "recipe": [{"name": "all", "train": "all", "lr": 0.01, "ratio": 1, "cycles": 6}],
    "tracking": {"system_metrics": False},
    "device": "cpu",
    "seed": 3,
}


def draw(folder: Path, first: int, last: int) -> None:
    """Images of noise with stripes, across or down, with these numbers."""
    for label, axis in (("across", 0), ("down", 1)):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(first, last):
            levels = np.random.default_rng([axis, number]).integers(0, 90, (32, 32, 3), np.uint8)
            stripes = np.arange(32) % 8 < 4
            levels += (stripes[:, None, None] if axis == 0 else stripes[None, :, None]).astype(np.uint8) * 120
            Image.fromarray(levels).save(folder / label / f"{number}.png")


def settings(place: Path, name: str, spec: dict[str, Any], source: str, **changes: Any) -> str:
    """Write a file of settings; returns its path."""
    path = place / f"{name}.json"
    path.write_text(json.dumps({**spec, "data": {**spec["data"], "source": str(place / source)}, **changes}))
    return str(path)


def _images(place: Path) -> list[list[str]]:
    draw(place / "images", 0, 24)
    settings(place, "spec", _IMAGES, "images")
    settings(place, "sweep", _IMAGES, "images", recipe=_SEARCHED)
    return [["train", "--config", settings(place, "short", _IMAGES, "images", recipe=_SHORT)]]


def _table(place: Path) -> list[list[str]]:
    chance = np.random.default_rng(0)
    frame = pd.DataFrame({"shop": chance.choice(["a", "b", "c"], 600), "price": chance.normal(5, 1, 600)})
    frame["sales"] = 10 * frame["price"] + chance.normal(0, 1, 600)
    frame.to_csv(place / "table.csv", index=False)
    settings(place, "spec", _TABLE, "table.csv")
    short = [{**_TABLE["recipe"][0], "cycles": 1}]  # type: ignore[index]
    return [["train-table", "--config", settings(place, "short", _TABLE, "table.csv", recipe=short, seed=4)]]


def champion_metrics(home: Path) -> dict[str, float]:
    """What the champion's training came to, whichever attempt it was trained and promoted by."""
    champion = (
        "select run_id from model_versions join registered_model_aliases using (name, version) where alias = 'champion'"
    )
    metrics = f"select key, value from latest_metrics where run_uuid = ({champion}) and key like 'valid/%'"
    with closing(sqlite3.connect(home / "mlflow.db")) as store:
        return dict(store.execute(metrics).fetchall())


def _trials(place: Path, result: dict[str, Any]) -> list[Any]:
    """Parameters and values of the trials of a grid, whatever their order."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(
        study_name=STUDY, storage=JournalStorage(JournalFileBackend(str(place / "home" / "optuna.journal")))
    )
    return sorted([json.dumps(each.params), each.values] for each in study.get_trials(states=[TrialState.COMPLETE]))


def _predicted(place: Path, result: dict[str, Any]) -> list[str]:
    return (place / "predictions.csv").read_text().splitlines()


def _sweep(*more: str) -> Callable[[Path], list[str]]:
    flags = ["--study", STUDY, "--trials", str(TRIALS), "--sampler", "grid", "--pruner", "none"]
    space = ["--space", "early_ratio=none", "--space", "head_factor=none", "--space", "body_ratio=1,3,10,30"]
    return lambda place: ["sweep", "--config", str(place / "sweep.json"), *flags, *space, *more]


def _predict(place: Path) -> list[str]:
    out = str(place / "predictions.csv")
    return ["predict", MODEL, str(place / "images"), "--out", out, "--chunk", "2", "--device", "cpu"]


TRAIN = Work(
    "train", _images, lambda place: ["train", "--config", str(place / "spec.json")], lambda _, it: it["metrics"],
    resumable=True,
)  # fmt: skip
TRAIN_TABLE = Work(
    "train-table", _table, lambda place: ["train-table", "--config", str(place / "spec.json")],
    lambda _, it: it["metrics"], resumable=True,
)  # fmt: skip
SWEEP = Work("sweep", _images, _sweep(), _trials)
SWEEP_OF_TWO = Work("sweep of two", _images, _sweep("--workers", "2"), _trials)
RETRAIN = Work(
    "retrain",
    _images,
    lambda place: ["retrain", MODEL, "--changes", '{"recipe.full.lr": "0.01", "recipe.full.cycles": "4"}'],
    lambda place, _: champion_metrics(place / "home"),
    add=lambda place: draw(place / "images", 24, 36),
)
PREDICT = Work("predict", _images, _predict, _predicted)
