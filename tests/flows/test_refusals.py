"""Trainings that cannot work end with status 2 and one line, before anything is read, trained or kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.flows.tiny import tiny_table, tiny_training, write_sales
from unfreeze.flows.sweep import search
from unfreeze.flows.train_images import train
from unfreeze.models.errors import UserError
from unfreeze.models.settings.search import Dimension, SweepSpec


def refusal_of_command(folder: Path, *arguments: str) -> str:
    """What the command says, run in `folder` as the installed script is: its folder is not on the import path."""
    script = "import sys; sys.path[0] = sys.argv.pop(1); from unfreeze.flows.cli import main; sys.exit(main())"
    project = Path(__file__).parents[2]
    command = [sys.executable, "-c", script, str(project), *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("unfreeze: ")]
    return line


def runs_in(home: Path) -> list[str]:
    if not (home / "mlflow.db").exists():
        return []
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    return [run.info.run_id for run in client.search_runs([each.experiment_id for each in client.search_experiments()])]


@pytest.mark.slow
def test_the_command_refuses_a_backbone_that_does_not_exist_with_a_near_one(
    stripes: Path, home_with_store: Path
) -> None:
    line = refusal_of_command(stripes, "train", str(stripes), "--model.backbone", "resnet35")
    assert line.startswith("unfreeze: unknown backbone 'resnet35'; did you mean resnet")
    assert runs_in(home_with_store) == []
    assert not (home_with_store / "cache").exists()


@pytest.mark.slow
def test_the_command_refuses_a_metric_that_is_not_there_with_the_folder(tmp_path: Path, home_with_store: Path) -> None:
    line = refusal_of_command(tmp_path, "train", "digits", "--metrics", "my_metrics:score")
    assert line.startswith("unfreeze: metrics: 'my_metrics:score': importing my_metrics failed: ModuleNotFoundError")
    assert str(tmp_path) in line
    assert runs_in(home_with_store) == []


def test_a_run_is_not_opened_for_a_backbone_or_a_metric_that_does_not_exist(
    stripes: Path, home_with_store: Path
) -> None:
    for changes in ({"model.backbone": "resnet35"}, {"metrics": ["accuracy", "my_metrics:score"]}):
        with pytest.raises(UserError, match=r"did you mean|importing my_metrics failed"):
            train(tiny_training(stripes, **changes))
    assert runs_in(home_with_store) == []


@pytest.mark.parametrize(
    ("metric", "task", "message"),
    [
        ("f11", "auto", "not one of .*rmspe"),
        ("rmse", "classification", "does not fit"),
        ("no_module:f", "auto", "No module named"),
    ],
)
def test_a_run_is_not_opened_for_a_table_s_metric_that_does_not_exist(
    tmp_path: Path, home_with_store: Path, metric: str, task: str, message: str
) -> None:
    params = tiny_table(write_sales(tmp_path), metrics=[metric], **{"data.task": task, "data.log_target": False})
    with pytest.raises(UserError, match=message):
        train(params)
    assert runs_in(home_with_store) == []


def test_a_sweep_is_not_begun_with_a_backbone_among_its_choices_that_does_not_exist(
    stripes: Path, home_with_store: Path
) -> None:
    space = [Dimension(name="model.backbone", choices=["timm/test_resnet", "timm/test_resnett"])]
    with pytest.raises(UserError, match="unknown backbone 'timm/test_resnett'; did you mean timm/test_resnet"):
        search(SweepSpec(study="refused", space=space), tiny_training(stripes))
    assert runs_in(home_with_store) == []
