"""The data folder: private, found, and not fooled by files that came with a folder from elsewhere."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from unfreeze.models.settings.retrain import Service
from unfreeze.tasks.machine.environment import credentials, live_service, make_home
from unfreeze.tasks.machine.processes import SPINS, share_processors, this_process
from unfreeze.tasks.service import overview
from unfreeze.tasks.service.stack import Stack
from unfreeze.tasks.tracking import server


@pytest.fixture
def folder(own_home: Path) -> Path:
    return make_home()


@pytest.fixture
def others_process() -> Iterator[dict[str, str]]:
    """Tags of a process of another user."""
    if os.getuid() != 0:
        pytest.skip("only root can start a process of another user")
    process = subprocess.Popen(["sleep", "60"], user=65534)
    yield {
        "unfreeze.host": socket.gethostname(),
        "unfreeze.process": f"{process.pid}:{psutil.Process(process.pid).create_time():.0f}",
    }
    process.kill()
    process.wait()


def record(folder: Path, **changes: Any) -> None:
    known = {
        **this_process(),
        "user": os.getuid(),
        "prefect": "http://127.0.0.1:4200/api",
        "mlflow": "http://localhost:5000",
        "pool": "local",
    }
    (folder / "service.json").write_text(json.dumps({**known, **changes}))


def test_the_data_folder_is_for_its_owner_only_also_where_it_was_open(folder: Path) -> None:
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    make_home()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_credentials_stay_the_same_and_are_made_anew_where_others_could_read_them(folder: Path) -> None:
    first = credentials()
    assert credentials() == first
    user, _, password = first.partition(":")
    assert user == "unfreeze"
    assert len(password) >= 32
    (folder / "prefect.auth").chmod(0o644)
    assert credentials() != first
    assert (folder / "prefect.auth").stat().st_mode & 0o777 == 0o600


def test_a_live_service_of_this_machine_and_user_is_believed(folder: Path) -> None:
    assert live_service() is None
    record(folder)
    found = live_service()
    assert found is not None
    assert found["prefect"] == "http://127.0.0.1:4200/api"


@pytest.mark.parametrize(
    "planted",
    [
        {"unfreeze.host": "elsewhere"},
        {"user": 12345},
        {"user": None},
        {"unfreeze.process": "1:0"},
        {"unfreeze.process": "no process"},
        {"prefect": "http://evil.example/api"},
        {"mlflow": "https://evil.example"},
        {"mlflow": "http://127.0.0.1.evil.example"},
        {"mlflow": "http://127.0.0.1@evil.example"},
        {"mlflow": "file:///etc"},
        {"prefect": 7},
    ],
    ids=str,
)
def test_a_planted_record_redirects_no_command(planted: dict[str, Any], folder: Path) -> None:
    record(folder, **planted)
    assert live_service() is None


def test_a_record_of_another_users_process_is_not_believed(folder: Path, others_process: dict[str, str]) -> None:
    record(folder, **others_process)
    assert live_service() is None


@pytest.mark.parametrize("content", ["", "[]", "{", '"text"', "null"])
def test_a_damaged_record_is_no_service(content: str, folder: Path) -> None:
    (folder / "service.json").write_text(content)
    assert live_service() is None


def test_passwords_in_addresses_of_servers_move_to_where_their_clients_look(own_home: Path) -> None:
    code = (
        "import os, unfreeze.tasks.machine.environment; print(*(os.environ.get(name) for name in ("
        "'MLFLOW_TRACKING_URI', 'MLFLOW_TRACKING_USERNAME', 'MLFLOW_TRACKING_PASSWORD', "
        "'PREFECT_API_URL', 'PREFECT_API_AUTH_STRING')))"
    )
    addresses = {
        "MLFLOW_TRACKING_URI": "http://ada:s3%40cret@127.0.0.1:5000",
        "PREFECT_API_URL": "http://team:word@127.0.0.1:4200/api",
    }
    environment = {**os.environ, **addresses, "UNFREEZE_HOME": str(own_home)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stdout.split()
    assert found == ["http://127.0.0.1:5000", "ada", "s3@cret", "http://127.0.0.1:4200/api", "team:word"]


@pytest.fixture
def no_spins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is put back after the test
        monkeypatch.delenv(name)


def test_waiting_threads_sleep_where_another_process_takes_a_processor(no_spins: None) -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        share_processors()
        other.kill()
    assert os.environ["GOMP_SPINCOUNT"] == SPINS


def test_waiting_threads_spin_where_nobody_else_is_at_work(no_spins: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: 100 * 0.3 / (psutil.cpu_count() or 1))
    share_processors()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_a_person_says_how_threads_wait(no_spins: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: 100.0)
    share_processors()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_the_password_of_a_tracking_database_is_in_no_command_line_artifact_or_printed_line(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg://ada:s3cret@127.0.0.1/mlflow")
    monkeypatch.setattr(overview, "champions", list)
    monkeypatch.setattr(overview, "end_gone_runs", list)
    shown = [server.mlflow_link("0" * 32), server.mlflow_command(), server.pages("0" * 32)["MLflow"]]
    shown.append(str(overview.overview()))
    assert [text for text in shown if "s3cret" in text or "ada@127.0.0.1/mlflow" not in text] == []
    stack = Stack(Service(), print)
    assert "s3cret" not in " ".join([*stack._mlflow_command(), *stack._worker_command()])
    assert os.environ["MLFLOW_TRACKING_URI"].count("s3cret") == 1, "child processes connect with it"
