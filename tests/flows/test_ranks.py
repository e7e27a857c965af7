"""A training on two devices as its user runs it: killed, stopped, resumed with another number, joined by torchrun."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from tests.deployments.service import PROJECT, own_environment, until
from tests.flows.tiny import tiny_training
from unfreeze.tasks import tracking

pytestmark = pytest.mark.slow

CLI = ["-m", "unfreeze.flows.cli"]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    monkeypatch.setenv("UNFREEZE_HOME", str(folder))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    return folder


def config_of(source: Path, folder: Path, **settings: Any) -> str:
    spec = tiny_training(source, keep="trained", **{"recipe.full.freeze_batchnorm": True, **settings})
    (folder / "spec.json").write_text(spec.model_dump_json())
    return str(folder / "spec.json")


def start(data: Path, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, *arguments], cwd=PROJECT, env=own_environment(data), stdout=output, stderr=output
        )


def process_of_rank(launcher: int, rank: int) -> psutil.Process:
    ranks = [each for each in psutil.Process(launcher).children() if "spawn_main" in str(each.cmdline())]
    assert len(ranks) == 2
    return sorted(ranks, key=lambda each: each.pid)[rank]  # they are started in order


def resumed(data: Path, text: str, *arguments: str) -> dict[str, Any]:
    run_id = re.findall(r"unfreeze resume ([0-9a-f]{32})", text)[-1]
    command = [sys.executable, *CLI, "resume", run_id, "--json", *arguments]
    done = subprocess.run(command, cwd=PROJECT, env=own_environment(data), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def assert_every_step_is_logged_once(run_id: str) -> None:
    steps = [metric.step for metric in MlflowClient().get_metric_history(run_id, "train/loss")]
    assert sorted(steps) == list(range(1, max(steps) + 1))


@pytest.mark.parametrize(("rank", "devices"), [(1, 1), (0, 2)])
def test_when_a_process_is_killed_the_run_ends_with_a_line_and_resumes_on_any_number_of_devices(
    rank: int, devices: int, data: Path, stripes: Path, tmp_path: Path
) -> None:
    config = config_of(stripes, tmp_path, **{"recipe.full.cycles": 6, "recipe.full.patience": None})
    log = tmp_path / "log"
    training = start(data, log, *CLI, "train", "--config", config, "--devices", "2")
    assert until(lambda: "full: epoch 1 " in log.read_text() or training.poll() is not None, 300)
    assert training.poll() is None, log.read_text()
    began = time.monotonic()
    process_of_rank(training.pid, rank).send_signal(signal.SIGKILL)
    assert training.wait(60) == 2, log.read_text()
    assert time.monotonic() - began < 60
    text = log.read_text()
    assert f"the training ended, because process {rank + 1} (SIGKILL) of its 2 was killed" in text.splitlines()[-1]
    assert "Traceback" not in text, text

    result = resumed(data, text, "--devices", str(devices))
    assert_every_step_is_logged_once(result["run_id"])
    assert tracking.get_run(result["run_id"]).info.status == "FINISHED"


def test_ctrl_c_saves_a_checkpoint(data: Path, stripes: Path, tmp_path: Path) -> None:
    config = config_of(stripes, tmp_path, **{"recipe.full.cycles": 8, "recipe.full.patience": None})
    log = tmp_path / "log"
    training = start(data, log, *CLI, "train", "--config", config, "--devices", "2")
    assert until(lambda: "full: epoch 2 " in log.read_text() or training.poll() is not None, 300)
    training.send_signal(signal.SIGINT)
    assert training.wait(60) == 130, log.read_text()
    text = log.read_text()
    assert "Traceback" not in text, text
    result = resumed(data, text)
    assert_every_step_is_logged_once(result["run_id"])


def test_processes_of_torchrun_join(data: Path, stripes: Path, tmp_path: Path) -> None:
    config, log = config_of(stripes, tmp_path, **{"recipe.full.cycles": 1}), tmp_path / "log"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python", sys.executable]
    training = start(data, log, *launcher, *CLI, "train", "--config", config, "--json")
    assert training.wait(300) == 0, log.read_text()
    (line,) = [each for each in log.read_text().splitlines() if each.startswith("{")]
    assert_every_step_is_logged_once(json.loads(line)["run_id"])
