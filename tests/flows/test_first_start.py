"""Commands that start in a fresh data folder, at the same moment, and that are killed."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.deployments.service import PROJECT, own_environment, until
from tests.flows.tiny import tiny_training
from unfreeze.models.settings import TrainImages

pytestmark = pytest.mark.slow


def config_of(params: TrainImages, folder: Path) -> str:
    path = folder / "settings.json"
    path.write_text(params.model_dump_json())
    return str(path)


def start(data: Path, config: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "unfreeze.flows.cli", "train", "--config", config, "--json"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=PROJECT, env=own_environment(data), stdout=pipe, stderr=pipe, text=True)


def servers_of(data: Path) -> list[psutil.Process]:
    """Prefect servers that run for a data folder, whoever their parent is."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.environ().get("UNFREEZE_HOME") == str(data)
            servers = ("unfreeze.tasks.service.prefect_server", "uvicorn")
            if ours and any(server in word for word in process.cmdline() for server in servers):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def test_three_first_trainings_at_once_in_one_fresh_folder_all_finish(stripes: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    commands = [start(data, config_of(tiny_training(stripes), tmp_path)) for _ in range(3)]
    ended = [command.communicate() for command in commands]
    assert [command.returncode for command in commands] == [0, 0, 0], [errors[-3000:] for _, errors in ended]
    runs = {json.loads(output.splitlines()[-1])["run_id"] for output, _ in ended}
    assert len(runs) == 3
    # Prefect's database is in the data folder as well: without --data, and without a variable of Prefect's.
    with sqlite3.connect(data / "prefect" / "prefect.db") as database:
        states = database.execute("select state_type from flow_run").fetchall()
    assert states == [("COMPLETED",)] * 3
    assert data.stat().st_mode & 0o777 == 0o700
    assert until(lambda: servers_of(data) == [], 20)


def test_a_killed_training_leaves_no_server_behind(stripes: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    training = start(data, config_of(tiny_training(stripes, **{"recipe.full.cycles": 12}), tmp_path))
    try:
        database = data / "mlflow.db"
        assert until(database.exists, 120)  # so that the server has started too
        (server,) = servers_of(data)
        os.kill(training.pid, signal.SIGKILL)
        training.wait()
        assert until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE, 30)
        assert servers_of(data) == []
    finally:
        training.kill()
        training.communicate()
