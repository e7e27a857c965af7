"""Trainings whose tracker goes away, or that are killed: nothing is lost, nothing is twice, and all states are true."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.deployments.service import PROJECT, free_port, own_environment, until
from tests.flows.tiny import tiny_training
from unfreeze.flows.cli import main
from unfreeze.models.training.loop import fit
from unfreeze.tasks import tracking
from unfreeze.tasks.tracking.registry import version_of

pytestmark = pytest.mark.slow


def steps_of(run_id: str) -> dict[str, list[int]]:
    """Metric -> its steps as MLflow has them."""
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    names = client.get_run(run_id).data.metrics
    return {name: sorted(each.step for each in client.get_metric_history(run_id, name)) for name in names}


def test_a_training_ends_well_while_mlflow_is_locked_and_everything_is_there_after_a_sync(
    prefect_api: None, stripes: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import unfreeze.models.training.loop
    from unfreeze.flows.train_images import train_images
    from unfreeze.tasks.tracking import publisher

    usual = train_images(tiny_training(stripes, seed=3))
    database = sqlite3.connect(own_home / "mlflow.db", isolation_level=None, timeout=60)

    def locking(*arguments: Any) -> Any:
        if not database.in_transaction:
            database.execute("BEGIN EXCLUSIVE")
        yield from fit(*arguments)

    monkeypatch.setattr(unfreeze.models.training.loop, "fit", locking)
    monkeypatch.setattr(publisher, "PATIENCE", 1.0)
    result = train_images(tiny_training(stripes, seed=3))
    assert result["model"] == {"name": usual["model"]["name"]}
    assert result["metrics"] == usual["metrics"]
    database.execute("ROLLBACK")

    key = result["run_id"]
    assert main(["sync"]) == 0
    assert tracking.sync() == []
    result["run_id"] = tracking.get_run(key).info.run_id
    assert steps_of(result["run_id"]) == steps_of(usual["run_id"])
    assert tracking.get_run(result["run_id"]).info.status == "FINISHED"
    name = usual["model"]["name"]
    assert version_of(name, "2").run_id == result["run_id"]
    # Where checkpoints were removed, MLflow leaves an empty folder.
    assert {*tracking.artifacts(result["run_id"]), "checkpoints"} == set(tracking.artifacts(usual["run_id"]))


def test_a_training_begins_without_mlflow_is_killed_and_resumed_and_equals_one_with_it(
    stripes: Path, tmp_path: Path, own_home: Path
) -> None:
    config = tmp_path / "spec.json"
    config.write_text(tiny_training(stripes, seed=3, **{"recipe.full.cycles": 6}).model_dump_json())
    address = f"http://127.0.0.1:{free_port()}"
    away, log = {**own_environment(own_home), "MLFLOW_TRACKING_URI": address}, tmp_path / "log"
    unfreeze = [sys.executable, "-m", "unfreeze.flows.cli"]
    with log.open("wb") as output:
        training = subprocess.Popen(
            [*unfreeze, "train", "--config", str(config)], cwd=PROJECT, env=away, stdout=output, stderr=output
        )
    assert until(lambda: "full: epoch 2 of" in log.read_text() or training.poll() is not None, 300), log.read_text()
    training.send_signal(signal.SIGKILL)
    training.wait()
    key = log.read_text().split("unfreeze resume ")[1].split(maxsplit=1)[0]

    def command(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*unfreeze, *arguments], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
        )

    resumed = command(away, "resume", key, "--json")
    assert resumed.returncode == 0, resumed.stderr
    result = json.loads(resumed.stdout.splitlines()[-1])
    assert (result["run_id"], result["model_uri"]) == (key, None)
    here = own_environment(own_home)
    synced = command(here, "sync")
    assert synced.returncode == 0, synced.stderr
    usual = json.loads(command(here, "train", "--config", str(config), "--json").stdout.splitlines()[-1])
    assert result["metrics"] == usual["metrics"]
    run = tracking.get_run(key)
    assert run.info.status == "FINISHED"
    assert steps_of(run.info.run_id) == steps_of(usual["run_id"])
    digests = [tracking.tags_of(each)["unfreeze.model"] for each in (key, usual["run_id"])]
    assert digests[0] == digests[1]
    assert version_of(usual["model"]["name"], "1").run_id == run.info.run_id


def flow_run_states(data: Path) -> Counter[str]:
    with sqlite3.connect(data / "prefect" / "prefect.db", timeout=60) as database:
        return Counter(row[0] for row in database.execute("SELECT state_type FROM flow_run"))


def test_a_killed_training_is_so_in_both_trackers_by_the_next_command_and_its_resumed_run_has_each_step_once(
    stripes: Path, tmp_path: Path, own_home: Path
) -> None:
    config = tmp_path / "spec.json"
    config.write_text(tiny_training(stripes, seed=3, **{"recipe.full.cycles": 6}).model_dump_json())
    environment, log = own_environment(own_home), tmp_path / "log"
    unfreeze = [sys.executable, "-m", "unfreeze.flows.cli"]
    with log.open("wb") as output:
        training = subprocess.Popen(
            [*unfreeze, "train", "--config", str(config)], cwd=PROJECT, env=environment, stdout=output, stderr=output
        )
    assert until(lambda: "full: epoch 2 of" in log.read_text() or training.poll() is not None, 300)
    training.send_signal(signal.SIGKILL)
    training.wait()
    run_id = log.read_text().split("unfreeze resume ")[1].split(maxsplit=1)[0]

    listed = subprocess.run([*unfreeze, "runs", "--json"], cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert tracking.get_run(run_id).info.status == "KILLED"
    assert flow_run_states(own_home) == {"CRASHED": 1}
    (row,) = json.loads(listed.stdout)
    assert (row["run"], row["state"], row["continue"]) == (run_id, "KILLED", f"unfreeze resume {run_id}")
    resumed = subprocess.run(
        [*unfreeze, "resume", run_id, "--json"], cwd=PROJECT, env=environment, capture_output=True, text=True
    )
    assert resumed.returncode == 0, resumed.stderr
    steps = steps_of(run_id)
    assert steps["train/loss"] == list(range(1, len(steps["train/loss"]) + 1))
    assert max(Counter(steps["train/epoch_loss"]).values()) == 1
    assert flow_run_states(own_home) == {"CRASHED": 1, "COMPLETED": 1}
