"""The smallest trainings that go through every step."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unfreeze.models.settings import TrainImages
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.tables import TrainTables
from unfreeze.tasks import tracking


def tiny_training(source: Path, **overrides: object) -> TrainImages:
    """A spec that trains a small random network on little images in seconds."""
    recipe = [
        {"name": "head", "precompute": True, "find_lr": True, "cycles": 2},
        {"name": "augmented", "views": 2, "cycles": 1},
        {
            "name": "full",
            "train": "all",
            "find_lr": True,
            "ratio": 3,
            "cycles": 2,
            "cycle_mult": 2,
            "patience": 2,
        },
    ]
    config = {
        "data": {"source": str(source), "size": 32},
        "model": {"backbone": "timm/test_resnet", "weights": "none", "head_width": 16},
        "finder": {"steps": 12},
        "optimizer": {"batch_size": 8},
        "tta": {"n_aug": 2},
        "recipe": recipe,
        "tracking": {"system_metrics": False},
        "device": "cpu",
        "precision": "fp32",
    }
    return build_spec(TrainImages, config, dict(overrides))


def write_sales(folder: Path, days: int = 300) -> Path:
    """Days of sales in two shops, with a table of the shops; sales follow the shop, the weekday and a promotion."""
    generator = np.random.default_rng(0)
    dates = pd.date_range("2023-01-01", periods=300)
    frame = pd.DataFrame({"shop": np.repeat([1, 2], 300), "day": np.tile(dates.strftime("%Y-%m-%d"), 2)})
    frame["promo"] = generator.integers(0, 2, 600)
    weekday = np.tile(dates.day_of_week, 2)
    frame["sales"] = (100 + 80 * frame["shop"] + 20 * weekday + 60 * frame["promo"]) * generator.normal(1, 0.03, 600)
    frame["open"] = 1
    frame.loc[::50, "open"] = 0
    frame[frame["day"] <= f"{dates[days - 1]:%Y-%m-%d}"].to_csv(folder / "sales.csv", index=False)
    pd.DataFrame({"shop": [1, 2], "kind": ["small", "large"], "area": [80.5, 200.0]}).to_csv(
        folder / "shops.csv", index=False
    )
    return folder


def tiny_table(folder: Path, **overrides: object) -> TrainTables:
    config = {
        "data": {
            "source": str(folder / "sales.csv"),
            "join": [str(folder / "shops.csv")],
            "target": ["sales"],
            "log_target": True,
            "date": ["day"],
            "where": ["open == 1"],
            "group": ["shop"],
            "events": ["promo"],
            "rolling": ["promo"],
            "valid_days": 30,
        },
        "model": {"members": 4, "width": 32, "dropout": 0},
        "finder": {"steps": 12},
        "optimizer": {"batch_size": 32},
        "recipe": [{"name": "all", "train": "all", "lr": 0.01, "ratio": 1, "cycles": 2, "cycle_len": 5}],
        "tracking": {"system_metrics": False},
        "device": "cpu",
    }
    return build_spec(TrainTables, config, dict(overrides))


def latest_checkpoint(run_id: str) -> Path | None:
    """A local copy of the run's latest checkpoint; None before the first."""
    from unfreeze.tasks import tracking
    from unfreeze.tasks.tracking.files import checkpoints_of

    found = checkpoints_of(run_id)
    return tracking.fetch(run_id, found[-1]) if found else None


def published_run(name: str, spec: dict[str, Any], tags: dict[str, str] | None = None) -> str:
    """A run of the experiment "tests" that MLflow has and nobody trains: what is logged to it goes there at once."""
    with tracking.new_run("tests", name, spec, tags or {}) as key:
        pass
    return str(tracking.get_run(key).info.run_id)
