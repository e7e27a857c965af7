"""Losses, heads and metrics in a file of the user's: used by name, and tried before a training starts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from unfreeze.flows.cli import main
from unfreeze.models.errors import UserError
from unfreeze.models.images.networks.classifier import head_of
from unfreeze.models.settings import ModelSpec, OptimizerSpec
from unfreeze.models.targets import MultiLabel, Numbers, SingleLabel

CODE = """
import torch
import numpy as np
def cost(probabilities, targets):
    assert isinstance(probabilities, np.ndarray)
    return float(np.mean(probabilities[np.arange(len(targets)), targets] < 0.5))
def torch_cost(probabilities, targets):
    return torch.nn.functional.nll_loss(probabilities, targets)
def text(probabilities, targets):
    return "good"
def hinge(outputs, targets):
    return torch.nn.functional.multi_margin_loss(outputs, targets)
def of_rows(outputs, targets):
    return torch.nn.functional.cross_entropy(outputs, targets, reduction="none")
def head(features, classes, width, dropout):
    return torch.nn.Sequential(torch.nn.Linear(features, width), torch.nn.Tanh(), torch.nn.Linear(width, classes))
def narrow(features, classes, width, dropout):
    return torch.nn.Linear(features, classes - 1)
"""
TARGETS = np.array([0, 1, 2, 0])


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path / "mine.py"


def test_a_metric_in_a_file_gets_arrays(mine: Path) -> None:
    metric = SingleLabel(["a", "b", "c"]).metrics(["accuracy", "mine.py:cost"])["cost"]
    assert metric(np.eye(3), np.array([0, 1, 0])) == pytest.approx(1 / 3)


@pytest.mark.parametrize("target", [SingleLabel(["a", "b", "c"]), MultiLabel(["a", "b"]), Numbers(["x", "y"])])
def test_a_metric_that_fails_is_found_when_it_is_chosen_with_file_function_and_message(mine: Path, target) -> None:
    with pytest.raises(UserError, match=r"metrics: mine.py:torch_cost failed in .*, line \d+: TypeError: .*") as found:
        target.metrics(["mine.py:torch_cost"])
    assert "\n" not in str(found.value)


def test_a_metric_of_text_is_refused(mine: Path) -> None:
    with pytest.raises(UserError, match=r"mine\.py:text must return a number, not str"):
        SingleLabel(["a", "b"]).metrics(["mine.py:text"])


def test_a_loss_in_a_file_trains(mine: Path) -> None:
    loss = SingleLabel(["a", "b", "c"]).loss(OptimizerSpec(loss="mine.py:hinge"), TARGETS, torch.device("cpu"))
    outputs = torch.randn(4, 3)
    assert loss(outputs, torch.from_numpy(TARGETS)) == torch.nn.functional.multi_margin_loss(
        outputs, torch.from_numpy(TARGETS)
    )


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("mine.py:of_rows", r"mine.py:of_rows must return the mean loss as a scalar tensor .*, not \(2,\)"),
        ("mine.py:cost", "mine.py:cost failed in .*mine.py, line 5: AssertionError"),
        ("mine.py:hing", "mine.py has no function hing; did you mean hinge?"),
        ("yours.py:hinge", "there is no file .*yours.py"),
    ],
)
def test_a_loss_that_cannot_work_is_refused_before_any_step(mine: Path, name: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        SingleLabel(["a", "b", "c"]).loss(OptimizerSpec(loss=name), TARGETS, torch.device("cpu"))


def test_a_head_in_a_file_is_the_network_s(mine: Path) -> None:
    head = head_of(ModelSpec(head="mine.py:head", head_width=16), 8, 3)
    assert isinstance(head[1], torch.nn.Tanh)
    assert head.training


def test_a_head_of_another_shape_is_refused(mine: Path) -> None:
    with pytest.raises(UserError, match=r"mine.py:narrow returns makes \(2, 2\) of \(2, 8\), not \(2, 3\)"):
        head_of(ModelSpec(head="mine.py:narrow"), 8, 3)


def test_a_name_that_is_not_there_ends_the_command_before_anything_starts(
    mine: Path, stripes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(stripes), "--optimizer.loss", "mine.py:hing"]) == 2
    assert "mine.py has no function hing; did you mean hinge?" in capsys.readouterr().err
