"""`unfreeze demo`, whole: the first thing that a new user sees of the program."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployments.service import own_environment
from unfreeze.flows import cli


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    assert cli.main(["demo", str(tmp_path)]) == 2
    assert f"{tmp_path} exists and holds something else" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_the_demo_learns_to_read_digits_and_leaves_images_for_the_commands_that_it_names(tmp_path: Path) -> None:
    def unfreeze(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "unfreeze.flows.cli", *arguments],
            cwd=tmp_path,
            env=own_environment(tmp_path / "data"),
            capture_output=True,
            text=True,
        )

    done = unfreeze("demo", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["metrics"]["valid/accuracy"] > 0.85
    assert len(list((tmp_path / "unfreeze-demo" / "digits").glob("*/*.png"))) == 500
    next_steps = [line.strip().split("   ")[0] for line in done.stderr.partition("\nNext")[2].splitlines()[1:]]
    commands = [line.split()[1:] for line in next_steps if not line.endswith(" up")]
    assert [command[0] for command in commands] == ["look", "predict", "explain"]
    for command in commands:
        tried = unfreeze(*command)
        assert tried.returncode == 0, tried.stderr
