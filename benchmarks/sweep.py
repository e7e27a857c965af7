"""Sweeps: trials per hour against trainings of their own, what a trial costs beside its training, and memory.

With an argument (`speed`, `overhead`), only that part. The speed part searches the differential lrs on the cat and
dog photos at 96 pixels, with two epochs of the whole network in each trial; the overhead part uses a tiny network.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks._prepared import PHOTOS

TRIALS = 15
ALONE = 1
"""Trials that are trained alone as well: the first of the search."""
SEARCHED = {
    "data": {"source": str(PHOTOS), "size": 96},
    "recipe": [
        {"name": "head", "precompute": True, "find_lr": True, "cycles": 2},
        {"name": "head-augmented", "views": 3, "cycles": 3},
        {"name": "full", "train": "all", "find_lr": True, "cycles": 2, "freeze_batchnorm": True},
    ],
    "keep": "trained",  # a trial's loss is that of its last stage, whatever a training alone would keep in the end
}
TINY = {
    "data": {"source": "digits", "size": 32},
    "augment": {"preset": "basic"},
    "model": {"backbone": "timm/test_resnet", "weights": "none"},
    "tracking": {"system_metrics": False},
    "recipe": [
        {"name": "head", "precompute": True, "find_lr": True},
        {"name": "full", "train": "all", "find_lr": True, "cycles": 2},
    ],
}


def unfreeze(home: Path, *arguments: str) -> tuple[float, dict[str, Any]]:
    """Run a command with everything it keeps in `home`; its seconds and its JSON."""
    environment = {**os.environ, "UNFREEZE_HOME": str(home), "PREFECT_HOME": str(home / "prefect")}
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        environment.pop(name, None)
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "unfreeze.flows.cli", *arguments, "--json"]
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return time.perf_counter() - began, json.loads(done.stdout.splitlines()[-1])


def trial_runs(home: Path, parent: str) -> list[Any]:
    """The sweep's child runs, in the order of trials."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    query = f"tags.`mlflow.parentRunId` = '{parent}'"
    found = client.search_runs([client.get_run(parent).info.experiment_id], query, max_results=1000)
    return sorted(found, key=lambda run: int(run.data.tags["unfreeze.trial"]))


def speed(folder: Path) -> None:
    """Trials per hour of a search, and of the same trials as trainings of their own from nothing."""
    config = folder / "searched.yaml"
    config.write_text(yaml.safe_dump(SEARCHED))
    rows = {}
    for pruner in ("none", "median"):
        home = folder / pruner
        seconds, result = unfreeze(
            home, "sweep", str(PHOTOS), "--config", str(config), "--trials", str(TRIALS), "--pruner", pruner
        )
        rows[pruner] = seconds / TRIALS
        print(
            f"{TRIALS} trials, pruner {pruner}: {seconds:.0f} s, {result['trials']}, best {result['best']}", flush=True
        )
        for row in result["comparison"]:
            print(f"    {row}")
        if pruner == "none":
            runs = trial_runs(home, result["run_id"])
    alone = []
    for run in runs[:ALONE]:
        values = run.data.params
        flags = ["--recipe.full.ratio", values["body_ratio"], "--recipe.full.early_ratio", values["early_ratio"]]
        flags += ["--recipe.full.lr_factor", values["head_factor"]]
        home = folder / f"alone-{run.data.tags['unfreeze.trial']}"
        seconds, result = unfreeze(home, "train", str(PHOTOS), "--config", str(config), *flags)
        losses = f"{result['metrics']['valid/loss']:.5f} (in the sweep {run.data.metrics['valid/loss']:.5f})"
        print(f"trial {run.data.tags['unfreeze.trial']} alone: {seconds:.0f} s, loss {losses}", flush=True)
        alone.append(seconds)
    for pruner, seconds in rows.items():
        print(f"pruner {pruner}: {3600 / seconds:.0f} trials an hour against {3600 / np.mean(alone):.0f}: "
              f"{np.mean(alone) / seconds:.1f}x")  # fmt: skip


def overhead(folder: Path) -> None:
    """Seconds that a trial takes beside its training, and memory after 30 trials against after 3."""
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump(TINY))
    _, result = unfreeze(
        folder / "home", "sweep", "digits", "--config", str(config), "--trials", "30", "--pruner", "none"
    )
    runs = trial_runs(folder / "home", result["run_id"])
    began = [run.info.start_time / 1000 for run in runs]
    whole = float(np.median(np.diff(began)[3:]))
    direct = directly(folder / "home", runs[3:13])
    print(f"a trial of a tiny network: {whole:.2f} s; its training alone {direct:.2f} s: "
          f"{whole - direct:.2f} s of orchestration and tracking")  # fmt: skip
    memory = [run.data.metrics["memory_mb"] for run in runs]
    print(
        f"resident memory after 3 trials {memory[2]:.0f} MB, after 30 {memory[-1]:.0f} MB: {memory[-1] / memory[2]:.3f}"
    )


def directly(home: Path, runs: list[Any]) -> float:
    """Median seconds of the same trainings by `models` alone, from the shared prefix's weights."""
    from unfreeze.models.recipe.modality import bind, modality
    from unfreeze.models.settings import TrainImages
    from unfreeze.models.settings.overrides import build_spec
    from unfreeze.models.store.workspace import Workspace
    from unfreeze.models.training.checkpoints import load_checkpoint, restore_between_stages
    from unfreeze.models.training.loop import fit

    (prefix,) = (home / "cache" / "stages").glob("*.safetensors")
    prepared = modality("images").prepare(build_spec(TrainImages, TINY), Workspace(home))
    seconds = []
    for run in runs:
        began = time.perf_counter()
        values = {name: float(run.data.params[name]) for name in ("body_ratio", "early_ratio", "head_factor")}
        overrides = {"recipe.1.ratio": values["body_ratio"], "recipe.1.early_ratio": values["early_ratio"]}
        data = bind(build_spec(TrainImages, TINY, overrides), prepared)
        learner = data.learner()
        restore_between_stages(learner, load_checkpoint(prefix))
        stage = data.params.recipe[1]
        learner.prepare(stage, 1, 1e-3 * values["head_factor"])
        for _ in fit(learner, stage, *(data.batches(1, split, {}) for split in ("train", "valid"))):
            pass
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def main() -> None:
    """Measure and print."""
    parts = {"overhead": overhead, "speed": speed}
    for name in sys.argv[1:] or parts:
        if name == "speed" and not PHOTOS.exists():
            print(f"{PHOTOS} is not there: no speed to measure")
            continue
        with tempfile.TemporaryDirectory() as folder:
            parts[name](Path(folder))


if __name__ == "__main__":
    main()
