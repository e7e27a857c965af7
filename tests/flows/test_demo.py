"""What `make demo` trains, whole: the first thing that anybody sees of the program."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployments.service import PROJECT, own_environment


@pytest.mark.slow
def test_the_demo_reads_digits_and_unfreezing_is_what_brings_it(tmp_path: Path) -> None:
    config = PROJECT / "deployments" / "configs" / "digits.yaml"
    command = [sys.executable, "-m", "unfreeze.flows.cli", "train", "--config", str(config), "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=own_environment(tmp_path / "data"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout.splitlines()[-1])["metrics"]
    assert metrics["valid/accuracy"] > 0.97
    assert metrics["valid/accuracy"] > metrics["baseline/accuracy"] + 0.01
