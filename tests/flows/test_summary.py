"""`unfreeze summary`: the network of a training, without training it."""

import json
from pathlib import Path

import pytest

from tests.flows.tiny import write_sales
from unfreeze.flows.cli import main

TINY = ["--model.backbone", "timm/test_resnet", "--model.weights", "none", "--data.size", "32", "--device", "cpu"]


def test_it_shows_every_layer_as_the_stage_trains_it(
    stripes: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["summary", str(stripes), *TINY, "--stage", "head", "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out.splitlines()[-1])
    assert {row["trains"] for row in found["layers"] if row["group"] == "early"} == {"no"}
    head = sum(row["parameters"] for row in found["layers"] if row["group"] == "head")
    assert found["trainable"] == head < found["parameters"]
    assert f"{found['parameters']:,} parameters, of which {head:,} train" in printed.err
    assert main(["summary", str(stripes), *TINY, "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["trainable"] > found["trainable"]


def test_a_table_has_one_too_and_an_unknown_stage_is_an_error(
    tmp_path: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sales = [str(write_sales(tmp_path) / "sales.csv"), "--data.target", "[sales]", "--device", "cpu"]
    assert main(["summary", *sales, "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {row["lr"] for row in found["layers"] if row["trains"]} == {"0.007"}
    assert main(["summary", *sales, "--stage", "nope"]) == 2
    assert "not one of the recipe's: all" in capsys.readouterr().err
