"""What a command says where no Prefect server answers."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployments.service import PROJECT, free_port, own_environment

pytestmark = pytest.mark.slow


def test_without_a_server_at_its_address_a_command_says_so_in_one_line(own_home: Path) -> None:
    api = f"http://127.0.0.1:{free_port()}/api"
    command = [sys.executable, "-m", "unfreeze.flows.cli", "train", "digits"]
    environment = {**own_environment(own_home), "PREFECT_API_URL": api}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"unfreeze: Prefect at {api} does not answer")
    assert "PREFECT_API_URL" in line
