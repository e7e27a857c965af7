"""A team's server under load: latency of a warm worker, a queue on one slot, runs of workers that are killed.

With an argument (`latency`, `queue`, `killed`), only that part. Everything is real and on the loopback: PostgreSQL, a
bucket, Prefect and MLflow with accounts, workers as a service manager starts them (tests/deployments/team.py).
"""

import signal
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image
from rich.console import Console
from rich.table import Table

from tests.deployments.service import until
from tests.deployments.team import Team, postgresql_programs, running_team
from unfreeze.models.settings import TrainImages
from unfreeze.models.settings.overrides import build_spec

TINY = {
    "data": {"size": 32},
    "model": {"backbone": "timm/test_resnet", "weights": "none", "head_width": 16},
    "optimizer": {"batch_size": 8},
    "tta": {"n_aug": 0},
    "recipe": [{"name": "head", "precompute": True, "lr": 0.01, "cycles": 1}],
    "tracking": {"system_metrics": False},
    "device": "cpu",
}
TARGET = 10
"""Seconds from a run's creation to its first training step."""
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}
console = Console(width=120)


def images(folder: Path) -> Path:
    """48 little images in two classes."""
    generator = np.random.default_rng(0)
    for label in ("bright", "dark"):
        (folder / label).mkdir(parents=True)
        for number in range(24):
            pixels = generator.integers(0, 128, (40, 40, 3)) + (127 if label == "bright" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{number}.png")
    return folder


def start(team: Team, source: Path, seed: int) -> str:
    """Queue a tiny training; its flow run's id."""
    params = build_spec(TrainImages, TINY, {"data.source": str(source), "seed": seed})
    return team.start("train-images/local", {"params": params.model_dump(mode="json")})


def moment(text: str) -> float:
    """Seconds since 1970 of a time that Prefect gives."""
    return datetime.fromisoformat(text).timestamp()


def mlflow_runs(team: Team, **wanted: Any) -> list[dict[str, Any]]:
    """The workers' MLflow runs."""
    account = team.environment["MLFLOW_TRACKING_USERNAME"], team.environment["MLFLOW_TRACKING_PASSWORD"]
    body = {"experiment_ids": ["1"], "max_results": 1000, **wanted}
    answer = httpx.post(f"{team.mlflow}/api/2.0/mlflow/runs/search", json=body, auth=account, timeout=60)
    return list(answer.raise_for_status().json().get("runs", []))


# --- latency ----------------------------------------------------------------------------------------------------------


def phases(team: Team, flow_run: str) -> dict[str, float]:
    """Seconds of each phase up to the first training step."""
    run = team.flow_run(flow_run)
    reached = team.request("GET", f"/flow_run_states/?flow_run_id={flow_run}")
    states = {each["name"]: moment(each["timestamp"]) for each in reached}
    (mlflow,) = mlflow_runs(team, filter=f"tags.`prefect.flow_run_id` = '{flow_run}'")
    wanted = {"run_id": mlflow["info"]["run_id"], "metric_key": "train/loss", "max_results": 1000}
    history = team.ask_mlflow("metrics/get-history", **wanted)["metrics"]
    times = {
        "waiting for the worker to ask": states["Pending"],
        "a process: imports of Prefect, torch, MLflow, the flow": states["Running"],
        "MLflow run opened": mlflow["info"]["start_time"] / 1000,
        "index, resized images, activations (cached)": min(each["timestamp"] for each in history) / 1000,
    }
    found, before = {}, moment(run["created"])
    for name, at in times.items():
        found[name], before = at - before, at
    return {**found, "from creation to the first training step": before - moment(run["created"])}


def latency(team: Team, source: Path) -> None:
    """One run at a time on an idle worker; the first one fills the caches and is not counted."""
    runs = []
    for seed in range(6):
        flow_run = start(team, source, seed)
        team.wait(flow_run, "COMPLETED")
        time.sleep(8)  # the process ends, and the worker is idle again
        runs.append(flow_run)
    measured = [phases(team, each) for each in runs[1:]]
    table = Table(title="A run on a warm worker, seconds", title_justify="left")
    for column in ("phase", "median", "fastest", "slowest"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    for name in measured[0]:
        values = sorted(each[name] for each in measured)
        table.add_row(name, f"{np.median(values):.2f}", f"{values[0]:.2f}", f"{values[-1]:.2f}")
    console.print(table)
    total = float(np.median([list(each.values())[-1] for each in measured]))
    console.print(f"target {TARGET} s: {'met' if total <= TARGET else 'missed'}")


# --- queue ------------------------------------------------------------------------------------------------------------


def all_of(team: Team, flow_runs: list[str]) -> list[dict[str, Any]]:
    """The flow runs as the server knows them."""
    body = {"flow_runs": {"id": {"any_": flow_runs}}, "limit": 200}
    return list(team.request("POST", "/flow_runs/filter", body))


def in_state(team: Team, flow_runs: list[str], state: str) -> list[str]:
    """Those in a state."""
    return [run["id"] for run in all_of(team, flow_runs) if run["state_type"] == state]


def have_completed(team: Team, flow_runs: list[str], least: float) -> bool:
    """Whether as many have."""
    return len(in_state(team, flow_runs, "COMPLETED")) >= least


def queue(team: Team, source: Path, count: int = 20) -> None:
    """Everything is queued at once, one worker runs one at a time."""
    flow_runs = [start(team, source, seed) for seed in range(count)]
    began = time.monotonic()
    until(lambda: all(run["state_type"] in ENDED for run in all_of(team, flow_runs)), 1800)
    seconds = time.monotonic() - began
    runs = sorted(all_of(team, flow_runs), key=lambda run: str(run["start_time"]))
    spans = [(moment(run["start_time"]), moment(run["end_time"])) for run in runs]
    gaps = [later[0] - earlier[1] for earlier, later in pairwise(spans)]
    table = Table(title=f"{count} runs queued at once on one slot", title_justify="left")
    table.add_column("what")
    table.add_column("result", justify="right")
    states = Counter(run["state_type"] for run in runs)
    table.add_row("states", ", ".join(f"{number} {state.lower()}" for state, number in states.items()))
    table.add_row("pairs that overlap", str(sum(gap < 0 for gap in gaps)))
    table.add_row("from the end of one to the start of the next, median", f"{np.median(gaps):.1f} s")
    table.add_row("a run, median", f"{np.median([end - begin for begin, end in spans]):.1f} s")
    table.add_row("all", f"{seconds:.0f} s")
    console.print(table)
    assert states == {"COMPLETED": count}, states
    assert min(gaps) >= 0, "two at a time on one slot"


# --- killed workers ---------------------------------------------------------------------------------------------------


def killed(team: Team, source: Path, count: int = 50) -> None:
    """First a worker's process is killed, then everything of a worker at once, as if its machine were lost."""
    flow_runs = [start(team, source, seed) for seed in range(count)]
    began = time.monotonic()
    table = Table(title=f"{count} runs, two workers with {LIMIT} slots each, kill -9", title_justify="left")
    for column in ("killed", "after", "done then", "under way there", "their attempts", "all of them done after"):
        table.add_column(column, justify="left" if column == "killed" else "right")
    rows = []
    for title, share, whole in (("the worker's process", 0.2, False), ("worker and flow runs at once", 0.5, True)):
        until(partial(have_completed, team, flow_runs, share * count), 1800)
        launcher = psutil.Process(team.workers[-1].pid)
        family = [launcher, *launcher.children(recursive=True)] if whole else launcher.children()
        log = (team.home / f"worker-{len(team.workers) - 1}.log").read_text()
        under_way = [run["id"] for run in all_of(team, flow_runs) if run["state_type"] in ("PENDING", "RUNNING")]
        theirs = [run for run in under_way if f"submitting flow run '{run}'" in log]
        at = time.monotonic()
        rows.append((title, at, len(in_state(team, flow_runs, "COMPLETED")), theirs))
        for process in family:
            process.send_signal(signal.SIGKILL)
        if not whole:  # what starts a service again would do
            team.workers[-1].wait(60)
            team.start_worker(LIMIT)
    ends: dict[str, float] = {}

    def all_ended() -> bool:
        for run in all_of(team, flow_runs):
            if run["state_type"] in ("COMPLETED", "FAILED", "CANCELLED"):
                ends.setdefault(run["id"], time.monotonic())
        return len(ends) == count

    until(all_ended, 1800)
    runs = {run["id"]: run for run in all_of(team, flow_runs)}
    for title, at, done, theirs in rows:
        attempts = Counter(runs[each]["run_count"] for each in theirs)
        table.add_row(
            title,
            f"{at - began:.0f} s",
            str(done),
            str(len(theirs)),
            ", ".join(f"{number} x {tries}" for tries, number in sorted(attempts.items())),
            f"{max((ends.get(each, np.nan) for each in theirs), default=at) - at:.0f} s",
        )
    console.print(table)
    states = Counter(run["state_type"] for run in runs.values())
    mlflow = Counter(run["info"]["status"] for run in mlflow_runs(team))
    console.print(f"Prefect: {dict(states)}; MLflow: {dict(mlflow)}; all after {max(ends.values()) - began:.0f} s")
    for run in runs.values():
        if run["state_type"] != "COMPLETED":
            console.print(run["name"], run["state"]["message"], *team.log(run["id"])[-5:], sep="\n    ")
    assert states == {"COMPLETED": count}, states
    assert mlflow == {"FINISHED": count}, mlflow


LIMIT = 3
PARTS = {"latency": (latency, 1, 1), "queue": (queue, 1, 1), "killed": (killed, 2, LIMIT)}
"""What to measure, with how many workers and slots of each."""


def main() -> None:
    """Run one part, or all."""
    if postgresql_programs() is None:
        sys.exit("needs a PostgreSQL with pg_trgm: apt-get install postgresql, or put its pg_config on the PATH")
    # Everything is stopped again, whatever ends this. A shell's background jobs ignore SIGINT, and so would workers.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    for name in sys.argv[1:] or PARTS:
        measure, workers, limit = PARTS[name]
        with tempfile.TemporaryDirectory() as folder:
            source = images(Path(folder) / "images")
            with running_team(Path(folder) / "team", workers, limit) as team:
                measure(team, source)


if __name__ == "__main__":
    main()
