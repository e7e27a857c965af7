"""The tests themselves leave no process behind."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.deployments.service import PROJECT, until

KILLED = """
import os, psutil, signal, subprocess

def test_that_is_killed(prefect_api):
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    with open({out!r}, "w") as file:
        print(*(each.pid for each in psutil.Process().children(recursive=True)), file=file)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_servers_and_processes_end_with_a_pytest_that_is_killed(workers: int, tmp_path: Path) -> None:
    out = tmp_path / "started"
    (tmp_path / "test_killed.py").write_text(KILLED.format(out=str(out)))
    options = [f"-n{workers}", "-p", "tests.conftest", "--rootdir", str(tmp_path), "-c", os.devnull, str(tmp_path)]
    command = [sys.executable, "-m", "pytest", "-q", *options]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300)
    assert ended.returncode != 0
    started = [int(pid) for pid in out.read_text().split()]
    assert len(started) >= 3, ended.stdout  # a Prefect server, what watches, and ours

    def alive() -> list[int]:
        return [pid for pid in started if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]

    assert until(lambda: not alive(), 60), [psutil.Process(pid).cmdline() for pid in alive()]
