"""`--model.backbone auto` from plan to model: the run keeps the network that its data decided."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from tests.flows.tiny import tiny_training
from unfreeze.flows.cli import main
from unfreeze.models.images import backbone_choice
from unfreeze.models.store.model_folder import read_description
from unfreeze.tasks import tracking
from unfreeze.tasks.tracking import registry

NAME = "timm/test_resnet.r160_in1k"
HEAD = [{"name": "head", "precompute": True, "lr": 0.01}]


@pytest.fixture(autouse=True)
def _one_candidate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch hub folder with random weights of one network."""
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(backbone_choice, "CANDIDATES", (NAME, "resnet34"))
    save_file(timm.create_model("test_resnet").state_dict(), folder / f"{NAME.removeprefix('timm/')}.safetensors")


def test_the_plan_shows_the_ranking(stripes: Path, own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--model.backbone", "auto", "--data.size", "32", "--device", "cpu", "--recipe", json.dumps(HEAD)]
    assert main(["plan", str(stripes), *settings]) == 0
    printed = capsys.readouterr().err
    assert f"backbone {NAME}, million parameters" in printed
    assert f"backbone {NAME} is taken" in printed


@pytest.mark.usefixtures("prefect_api")
@pytest.mark.slow
def test_a_run_keeps_the_network_that_was_taken(stripes: Path) -> None:
    from unfreeze.flows.train_images import train_images

    settings = {"model.backbone": "auto", "model.weights": "imagenet", "recipe": HEAD}
    result = train_images(tiny_training(stripes, **settings))
    assert tracking.spec_of(result["run_id"])["model"]["backbone"] == NAME
    model = registry.version_of(result["model"]["name"], result["model"]["version"])
    assert read_description(registry.folder_of(model))["model"]["backbone"] == NAME
