"""`unfreeze plan`: what a training will do and take, before it is started."""

import json
import shlex
from pathlib import Path

import pytest

from unfreeze.flows.cli import main

TINY = ["--model.backbone", "timm/test_resnet", "--model.weights", "none", "--data.size", "32", "--device", "cpu"]
RECIPE = [
    *("--recipe", "[{name: head, precompute: true, find_lr: true, cycles: 2},"),
    "{name: full, train: all, lr: 0.001, ratio: 10, cycles: 40}]",
]
ARGUMENTS = [*TINY, RECIPE[0], " ".join(RECIPE[1:])]


def test_it_shows_stages_lrs_time_and_memory(stripes: Path, own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(stripes), *ARGUMENTS, "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out.splitlines()[-1])
    head, full = found["stages"]
    assert head["found"]
    assert full["lrs"] == pytest.approx({"early": 1e-5, "late": 1e-4, "head": 1e-3})
    assert full["stage"]["epochs"] == full["fewest_epochs"] == full["most_epochs"] == 40
    assert found["most_seconds"] == found["seconds"]
    assert found["seconds"] >= head["seconds"] + full["seconds"]
    assert 0 < found["memory"] < found["memory_there"]
    assert "of training and evaluation" in printed.err


def test_a_budget_gives_the_flags_that_shorten_the_training(
    stripes: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(stripes), *ARGUMENTS, "--json"]) == 0
    whole = json.loads(capsys.readouterr().out.splitlines()[-1])
    half = str(0.5 * whole["seconds"] / 3600)
    assert main(["plan", str(stripes), *ARGUMENTS, "--hours", half, "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out.splitlines()[-1])
    flags = shlex.split(found["flags"])
    assert flags[flags.index("--recipe.full.cycles") + 1] == str(found["stages"][1]["stage"]["cycles"])
    assert "to train within the budget: " in printed.err
    assert main(["plan", str(stripes), *ARGUMENTS, *flags, "--json"]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [stage["stage"] for stage in again["stages"]] == [stage["stage"] for stage in found["stages"]]


def test_a_budget_that_nothing_fits_is_an_error(
    stripes: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("plan", "train"):
        assert main([command, str(stripes), *ARGUMENTS, "--hours", "0.000001"]) == 2
    assert "even one epoch of every stage takes" in capsys.readouterr().err
    assert main(["plan", str(stripes), "--hours", "0"]) == 2
    assert "Must be > 0" in capsys.readouterr().err
