"""`unfreeze doctor` in situations that a new user meets."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from unfreeze.flows.cli import main
from unfreeze.models.settings.retrain import Service
from unfreeze.tasks.machine import servers
from unfreeze.tasks.service import doctor


@pytest.fixture
def found(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], tuple[int, dict[str, str]]]:
    """Runs the command; returns its exit status and its lines by what they are about."""
    monkeypatch.setattr(servers, "SECONDS_TO_ANSWER", 1.0)
    monkeypatch.setenv("PREFECT_API_URL", "")

    def run() -> tuple[int, dict[str, str]]:
        status = main(["doctor"])
        lines = capsys.readouterr().out.splitlines()
        return status, {line[6:].split()[0]: f"{line[:4].strip()} {line[16:]}" for line in lines}

    return run


def test_a_machine_that_can_train_passes(found) -> None:
    status, lines = found()
    assert status == 0
    assert lines["versions"].startswith("ok Python 3.")
    assert lines["disk"].startswith("ok ")
    assert lines["Prefect"].startswith("ok no server is named")
    assert "timm/tf_efficientnet_lite0" in lines["weights"]


def test_a_server_that_does_not_answer_blocks_and_the_variable_to_correct_is_named(
    found, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://user:secret@127.0.0.1:9/api")
    status, lines = found()
    assert status == 1
    assert lines["Prefect"].startswith("fail http://")
    assert "correct PREFECT_API_URL" in lines["Prefect"]
    assert "secret" not in lines["Prefect"]


def test_a_port_that_is_taken_names_who_has_it_and_another(found, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(doctor, "Service", lambda: Service(prefect_port=port, mlflow_port=port))
        _, lines = found()
    assert lines["port"] == (
        f"warn {port} is taken (process {os.getpid()}, {psutil.Process().name()}): unfreeze up --mlflow-port {port + 1}"
    )


def test_little_space_is_a_warning_that_says_what_can_go(found, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SCARCE", 1e18)
    status, lines = found()
    assert status == 0
    assert lines["disk"].startswith("warn ")
    assert "`unfreeze clean`" in lines["disk"]


def test_a_damaged_database_blocks(found, own_home: Path) -> None:
    own_home.mkdir()
    (own_home / "mlflow.db").write_bytes(b"no database" * 1000)
    status, lines = found()
    assert status == 1
    assert lines["disk"].startswith(f"fail {own_home / 'mlflow.db'} is damaged")


def test_proxies_are_named_without_their_passwords(found, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://me:secret@127.0.0.1:9")
    _, lines = found()
    assert "127.0.0.1:9 for downloads" in lines["proxies"]
    assert "secret" not in lines["proxies"]


def test_a_library_that_does_not_fit_blocks_and_the_command_that_mends_it_is_given(
    found, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "requires", lambda name: ["numpy>=99", "fits; extra == 'other'", "no-such-package"])
    status, lines = found()
    assert status == 1
    assert lines["versions"].endswith("pip install 'numpy>=99' no-such-package")
