"""Run each library by a script of a few lines, in an environment of its own, on the same split and one core.

``make bench-peers`` writes a table and a chart: the loss on test rows (log loss of classes, RMSE of numbers), processor
seconds with everything that a script does, and the lines that a user types. Results are kept in ``peers.json`` of the
folder, so an interrupted benchmark continues; delete it to measure again. Needs a package registry.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from sklearn.metrics import log_loss, root_mean_squared_error

from benchmarks._image_sets import DEV, HELD_OUT, ImageSet
from benchmarks._table_sets import HELD_OUT as TABLES
from unfreeze.models.images.networks.weights import network_of
from unfreeze.models.settings import ModelSpec

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGES = {
    "unfreeze": [str(ROOT)],
    "sklearn": ["scikit-learn", "pandas", "timm"],
    "fastai": ["fastai", "timm"],
    "lightgbm": ["lightgbm", "scikit-learn", "pandas"],
    "catboost": ["catboost", "pandas"],
    "autogluon": ["autogluon.tabular[lightgbm,catboost,xgboost]"],
}
IMAGES = {"signs": DEV["signs"], "waste": DEV["trash"], "cells": HELD_OUT["cells"], "land": HELD_OUT["tiles"]}
TABLE_NAMES = ("breast_cancer", "TitanicSurvival", "SaratogaHouses", "wa_churn")
ROWS = 200
"""Images to train on, and to test."""


def write_images(images: ImageSet, folder: Path) -> None:
    """Write `train` and `test`, and the weights that every library starts from."""
    images._replace(train=ROWS, test=ROWS).write(folder)
    torch.save(network_of(ModelSpec(), 224).state_dict(), folder / "weights.pth")


def write_table(name: str, folder: Path) -> None:
    """Write four fifths of the rows as `train.csv`, the others as `test.csv`, their targets as `actual.csv`."""
    table = next(each for each in TABLES if each.name == name)
    frame = table.frame().rename(columns={table.target: "target"})
    if not pd.api.types.is_float_dtype(frame["target"]) and frame["target"].nunique() <= 20:
        frame["target"] = "class " + frame["target"].astype(str)
    order = np.random.default_rng(0).permutation(len(frame))
    folder.mkdir(parents=True)
    frame.iloc[order[len(frame) // 5 :]].to_csv(folder / "train.csv", index=False)
    test = frame.iloc[order[: len(frame) // 5]]
    test.drop(columns="target").to_csv(folder / "test.csv", index=False)
    test[["target"]].to_csv(folder / "actual.csv", index=False)


def loss(folder: Path) -> float:
    """Score `answers.csv`."""
    answers = pd.read_csv(folder / "answers.csv")
    if (folder / "actual.csv").exists():
        actual = pd.read_csv(folder / "actual.csv")["target"]
        if pd.api.types.is_numeric_dtype(actual):
            return float(root_mean_squared_error(actual, answers["target"]))
    else:
        actual = pd.Series([file.parent.name for file in sorted((folder / "test").glob("*/*"))])
    classes = sorted(answers.columns)
    return float(log_loss(actual, answers[classes], labels=classes))


def environment(name: str, folder: Path) -> Path:
    """The interpreter of a library's environment, made on first use."""
    python = folder / "environments" / name / "bin" / "python"
    if not (done := python.parent / ".installed").exists():
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "venv", "-q", "--clear", python.parents[1]], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", python, *PACKAGES[name]], check=True)
        done.touch()
    return python


def measure(script: Path, folder: Path, python: Path) -> dict[str, Any]:
    """Run a script on one core; its loss, processor seconds and lines, or the last line of its error."""
    (folder / "answers.csv").unlink(missing_ok=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    core = min(os.sched_getaffinity(0))
    done = subprocess.run(
        [python, script], cwd=folder, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, {core})
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    lines = [line for line in script.read_text().split('"""', 2)[2].splitlines() if line.strip()]
    return {"loss": loss(folder), "seconds": seconds, "lines": len(lines)}


def chart(results: dict[str, dict[str, Any]]) -> Figure:
    """A row per set: each library's loss relative to the best one's."""
    figure = Figure(figsize=(8, 0.5 * len(results) + 1.4), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(name for row in results.values() for name in row))
    for place, name in enumerate(names):
        dots = [
            (row[name]["loss"] / min(each["loss"] for each in row.values() if "loss" in each), at)
            for at, row in enumerate(results.values())
            if "loss" in row.get(name, {})
        ]
        ours = name == "unfreeze"
        across, down = zip(*dots, strict=True)
        axes.scatter(across, down, s=90 if ours else 45, label=name, zorder=3 if ours else 2, color=f"C{place}")
    axes.set(yticks=range(len(results)), yticklabels=list(results), xscale="log", xlabel="test loss / that of the best")
    axes.set_xticks([1, 1.2, 1.5, 2, 3, 5], ["1", "1.2", "1.5", "2", "3", "5"], minor=False)
    axes.minorticks_off()
    axes.invert_yaxis()
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(names), frameon=False)
    return figure


def table(results: dict[str, dict[str, Any]]) -> str:
    """All results as Markdown."""
    lines = ["| set | library | test loss | processor seconds | lines |", "|---|---|---|---|---|"]
    for of_set, row in results.items():
        for name, found in row.items():
            shown = (
                f"{found['loss']:.3g} | {found['seconds']:.0f} | {found['lines']}"
                if "loss" in found
                else f"failed: {found['error'][:80]} | |"
            )
            lines.append(f"| {of_set} | {name} | {shown} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure what `peers.json` does not have yet, and write the table and the chart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / ".unfreeze" / "peers", help="environments and data")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of peers.md and peers.png")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    kept = given.folder / "peers.json"
    results: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else {}
    sets: dict[tuple[str, str], Callable[[Path], None]] = {
        **{("images", name): partial(write_images, images) for name, images in IMAGES.items()},
        **{("tables", name): partial(write_table, name) for name in TABLE_NAMES},
    }
    for (kind, of_set), write in sets.items():
        folder = given.folder / "data" / of_set
        if not folder.exists():
            write(folder)
        for script in sorted(HERE.glob(f"{kind}_*.py")):
            name = script.stem.partition("_")[2]
            if name in results.get(of_set, {}):
                continue
            found = measure(script, folder, environment(name, given.folder))
            results.setdefault(of_set, {})[name] = found
            kept.write_text(json.dumps(results, indent=1))
            print(of_set, name, found, flush=True)
    given.out.joinpath("peers.md").write_text(table(results))
    chart(results).savefig(given.out / "peers.png", dpi=110)
    print(table(results))


if __name__ == "__main__":
    main()
