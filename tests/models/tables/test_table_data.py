"""A table from its file to findings: what is said about its columns, what is tested, what a model takes."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unfreeze import Tables

TINY: dict[str, Any] = {
    "recipe": [{"name": "all", "train": "all", "lr": 0.01, "ratio": 1, "cycles": 1}],
    "optimizer": {"batch_size": 64},
    "device": "cpu",
}


def table_of(folder: Path, frame: pd.DataFrame, **data: Any) -> Tables:
    """An estimator for a frame that is written as a CSV file."""
    frame.to_csv(folder / "rows.csv", index=False)
    config = TINY | {"data": {"target": ["price"], **data}}
    return Tables(folder / "rows.csv", config=config, workspace=folder / "work")


def prices(rows: int = 300) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    area = generator.uniform(20, 200, rows).round(1)
    town = generator.choice(["Bonn", "Kiel", "Ulm"], rows)
    price = area * 10 + generator.normal(0, 200, rows)
    return pd.DataFrame({"area": area, "town": town, "price": price.round(2)})


def test_the_test_is_reported_beside_the_validation(tmp_path: Path) -> None:
    model = table_of(tmp_path, prices(), test_fraction=0.2).train()
    assert {"valid/rmse", "baseline/tree_rmse", "test/rmse", "test/baseline/tree_rmse"} <= set(model.metrics)
    assert model.metrics["baseline/tree_rmse"] != model.metrics["test/baseline/tree_rmse"]
    assert 30 < len(model.findings["test"].frames["test/predictions.feather"]) < 90
