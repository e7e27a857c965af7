"""Stopping a training by every signal that ends programs, at the worst moments, and continuing with it."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.deployments.service import PROJECT, own_environment, until
from tests.flows.tiny import latest_checkpoint, tiny_training
from unfreeze.models.settings import TrainImages
from unfreeze.models.training.checkpoints import Checkpoint, load_checkpoint
from unfreeze.tasks import tracking
from unfreeze.tasks.tracking import registry

pytestmark = pytest.mark.slow

STOPPED_IN_VALIDATION = """
import os, sys
from unfreeze.models.training.learner import Learner

validate = Learner.validate
def stopped(self, batches):
    found = validate(self, batches)
    if self.progress.stage == 2 and self.progress.epoch == {epoch} + 1:
        for number in {numbers}:
            os.kill(os.getpid(), number)
    return found
Learner.validate = stopped

from unfreeze.flows.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""The command, sent signals while it validates after the last epoch of a cycle of the stage `full`."""


def config_of(params: TrainImages, folder: Path) -> str:
    path = folder / f"{params.seed}.json"
    path.write_text(params.model_dump_json())
    return str(path)


def command(data: Path, *arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    start = ["-c", code] if code else ["-m", "unfreeze.flows.cli"]
    whole = [sys.executable, *start, *arguments]
    return subprocess.run(whole, cwd=PROJECT, env=own_environment(data), capture_output=True, text=True)


def last_checkpoint(run_id: str) -> Checkpoint:
    path = latest_checkpoint(run_id)
    assert path is not None
    return load_checkpoint(path)


def trained_weights(result: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Of the model that a training registered."""
    model = result["model"]
    return load_file(registry.folder_of(registry.version_of(model["name"], model["version"])) / "model.safetensors")


def run_of(text: str) -> str:
    """The run's id, from the line that says how to resume it."""
    return text.split("unfreeze resume ")[1].split(maxsplit=1)[0].strip("'\")")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder that all tests share, and where this process looks for runs."""
    folder = tmp_path_factory.mktemp("stopping") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNFREEZE_HOME", str(folder))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        yield folder


@pytest.fixture(scope="module")
def uninterrupted(data: Path, stripes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    config = config_of(tiny_training(stripes, seed=3, keep="trained"), tmp_path_factory.mktemp("config"))
    done = command(data, "train", "--config", config, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("numbers", "epoch", "keeps_cycles"),
    [([signal.SIGINT], 2, True), ([signal.SIGHUP] * 2, 0, True), ([signal.SIGINT], 2, False)],
    ids=["Ctrl-C at the very end", "a closed terminal after the first cycle", "without checkpoints of cycles"],
)
def test_a_signal_in_the_last_validation_of_a_cycle_loses_nothing(
    numbers: list[signal.Signals],
    epoch: int,
    keeps_cycles: bool,
    data: Path,
    uninterrupted: dict[str, Any],
    stripes: Path,
    tmp_path: Path,
) -> None:
    spec = tiny_training(stripes, seed=3, keep="trained", **{"tracking.cycle_checkpoints": keeps_cycles})
    code = STOPPED_IN_VALIDATION.format(epoch=epoch, numbers=[int(number) for number in numbers])
    stopped = command(data, "train", "--config", config_of(spec, tmp_path), code=code)
    assert stopped.returncode == 130, stopped.stderr
    run_id = run_of(stopped.stderr)
    assert tracking.get_run(run_id).info.status == "KILLED"
    saved = last_checkpoint(run_id)
    assert (saved.stage, saved.position["epoch"]) == (2, epoch + 1)

    resumed = command(data, "resume", run_id, "--json")
    assert resumed.returncode == 0, resumed.stderr
    result = json.loads(resumed.stdout.splitlines()[-1])
    assert result["metrics"] == uninterrupted["metrics"]
    expected, found = (trained_weights(each) for each in (uninterrupted, result))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_run_whose_process_lives_is_not_resumed_and_of_two_resumes_one_goes_ahead(
    data: Path, stripes: Path, tmp_path: Path
) -> None:
    spec = tiny_training(stripes, seed=5, **{"recipe.full.cycles": 8, "recipe.full.patience": None})
    log = tmp_path / "log"
    whole = [sys.executable, "-m", "unfreeze.flows.cli", "train", "--config", config_of(spec, tmp_path)]
    with log.open("wb") as output:
        training = subprocess.Popen(whole, cwd=PROJECT, env=own_environment(data), stdout=output, stderr=output)
    try:
        assert until(lambda: "full: epoch 1 " in log.read_text() or training.poll() is not None, 300)
        run_id = run_of(log.read_text())
        refused = command(data, "resume", run_id)
        assert refused.returncode == 2
        assert f"run {run_id} is being trained by process {training.pid} of this machine" in refused.stderr
        assert "Traceback" not in refused.stderr
    finally:
        training.kill()
        training.wait()
    pipe = subprocess.PIPE
    whole = [sys.executable, "-m", "unfreeze.flows.cli", "resume", run_id]
    both = [
        subprocess.Popen(whole, cwd=PROJECT, env=own_environment(data), stdout=pipe, stderr=pipe, text=True)
        for _ in range(2)
    ]
    errors = [each.communicate()[1] for each in both]
    assert sorted(each.returncode for each in both) == [0, 2], errors
    assert "is being trained by process" in errors[0 if both[0].returncode else 1]


def test_in_a_terminal_the_resume_line_comes_first_and_closing_the_terminal_saves_a_checkpoint(
    data: Path, stripes: Path, tmp_path: Path
) -> None:
    spec = tiny_training(stripes, seed=6, **{"recipe.full.cycles": 8})
    arguments = [sys.executable, "-m", "unfreeze.flows.cli", "train", "--config", config_of(spec, tmp_path)]
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(PROJECT)
        os.execve(sys.executable, arguments, {**own_environment(data), "TERM": "xterm"})
    shown = b""
    while b"unfreeze resume " not in shown or not shown.split(b"unfreeze resume ")[1].strip().count(b"\n"):
        shown += os.read(terminal, 4096)
    assert b"Training" not in shown
    run_id = run_of(shown.decode())

    def trained_a_batch_of_everything() -> bool:
        nonlocal shown
        shown += os.read(terminal, 65536)  # as a terminal does, so that the command never waits for it
        return re.search(rb"Training full[^\n]*\D[1-9]\d*/\d+", shown) is not None

    assert until(trained_a_batch_of_everything, 300), shown[-2000:]
    os.close(terminal)  # the kernel sends SIGHUP to the command
    assert until(lambda: os.waitpid(process, os.WNOHANG)[0] == process, 120)
    assert tracking.get_run(run_id).info.status == "KILLED"
    assert last_checkpoint(run_id).stage == 2
