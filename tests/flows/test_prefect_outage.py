"""Trainings whose Prefect server is killed: they end as ever, and the server learns of it when it is back."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from tests.deployments.service import PROJECT, Processes, free_port, own_environment, prefect, until
from tests.flows.tiny import tiny_training

pytestmark = pytest.mark.slow

UNFREEZE = [sys.executable, "-m", "unfreeze.flows.cli"]


class Training:
    """The command as a process, with its output in files."""

    def __init__(self, folder: Path, stripes: Path, environment: dict[str, str]) -> None:
        config = folder / "spec.json"
        config.write_text(tiny_training(stripes, seed=3, **{"recipe.full.patience": None}).model_dump_json())
        self._printed, self._log = folder / "printed", folder / "log"
        with self._printed.open("wb") as printed, self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*UNFREEZE, "train", "--config", str(config), "--json"],
                cwd=PROJECT,
                env=environment,
                stdout=printed,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_for_its_middle(self) -> None:
        assert until(lambda: "full: epoch 1 of" in self.log or self.process.poll() is not None, 400), self.log
        assert self.process.poll() is None, self.log

    def require_result(self, store: str) -> dict[str, Any]:
        """Its result, complete in MLflow, without anything on the terminal that frightens people."""
        assert self.process.wait(400) == 0, self.log
        assert "Traceback" not in self.log
        assert "Exception" not in self.log
        result: dict[str, Any] = json.loads(self._printed.read_text().splitlines()[-1])
        assert result["model"]["version"] == "1"
        client = MlflowClient(store)
        run = client.get_run(result["run_id"])
        assert run.info.status == "FINISHED"
        assert run.data.metrics["valid/accuracy_tta"] == result["metrics"]["valid/accuracy_tta"]
        assert "report.html" in [each.path for each in client.list_artifacts(result["run_id"])]
        return result


def states(database: Path) -> list[tuple[str, list[str]]]:
    """Of each flow run its state, and all that it was ever in; tasks are left out."""
    with sqlite3.connect(database, timeout=60) as opened:
        runs = opened.execute("SELECT id, state_type FROM flow_run").fetchall()
        history = "SELECT type FROM flow_run_state WHERE flow_run_id = ? ORDER BY timestamp"
        return [(state, [row[0] for row in opened.execute(history, (run,))]) for run, state in runs]


def unfreeze(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*UNFREEZE, *arguments], cwd=PROJECT, env=environment, capture_output=True, text=True)


def test_a_training_outlives_its_own_server_and_the_next_command_tells_how_it_ended(
    stripes: Path, tmp_path: Path, own_home: Path
) -> None:
    environment = own_environment(own_home)
    training = Training(tmp_path, stripes, environment)
    training.wait_for_its_middle()
    children = psutil.Process(training.process.pid).children()
    (server,) = [each for each in children if "unfreeze.tasks.service.prefect_server" in " ".join(each.cmdline())]
    server.kill()
    training.require_result(f"sqlite:///{own_home}/mlflow.db")
    assert 1 <= training.log.count("Prefect does not answer") <= 2

    began = time.monotonic()
    assert unfreeze(environment, "runs").returncode == 0
    assert time.monotonic() - began < 120
    ((state, history),) = states(own_home / "prefect" / "prefect.db")
    assert (state, history.count("COMPLETED")) == ("COMPLETED", 1)
    assert unfreeze(environment, "runs").returncode == 0
    assert states(own_home / "prefect" / "prefect.db") == [(state, history)]


@pytest.mark.parametrize("returns", ["in mid-training", "later"])
def test_a_server_that_comes_back_knows_how_the_training_ended(
    stripes: Path, tmp_path: Path, own_home: Path, returns: str
) -> None:
    port, processes = free_port(), Processes(tmp_path)
    database = tmp_path / "server" / "prefect.db"
    own = {**own_environment(own_home), "PREFECT_HOME": str(tmp_path / "server")}
    environment = {**own_environment(own_home), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}

    def start() -> subprocess.Popen[bytes]:
        listen = ["server", "start", "--host", "127.0.0.1", "--port", str(port)]
        server = processes.start("server", prefect(*listen), own)
        processes.wait_for("server", f"http://127.0.0.1:{port}/api/health")
        return server

    def kill(server: subprocess.Popen[bytes]) -> None:
        for each in [*psutil.Process(server.pid).children(recursive=True), server]:
            each.send_signal(signal.SIGKILL)
        server.wait()

    try:
        server = start()
        training = Training(tmp_path, stripes, environment)
        training.wait_for_its_middle()
        kill(server)
        if returns == "in mid-training":
            start()
        training.require_result(f"sqlite:///{own_home}/mlflow.db")
        if returns == "later":
            start()
        assert unfreeze(environment, "status").returncode in (0, 1)
        ((state, history),) = states(database)
        assert (state, history.count("COMPLETED")) == ("COMPLETED", 1)
        unfreeze(environment, "status")
        assert states(database) == [(state, history)]
    finally:
        processes.stop()


def test_without_a_server_at_its_address_a_command_says_so_in_one_line(
    stripes: Path, tmp_path: Path, own_home: Path
) -> None:
    api = f"http://127.0.0.1:{free_port()}/api"
    began = time.monotonic()
    training = Training(tmp_path, stripes, {**own_environment(own_home), "PREFECT_API_URL": api})
    assert training.process.wait(400) == 2
    assert time.monotonic() - began < 100
    (line,) = training.log.splitlines()
    assert line.startswith(f"unfreeze: Prefect at {api} does not answer")
    assert "PREFECT_API_URL" in line
