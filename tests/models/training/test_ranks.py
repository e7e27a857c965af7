"""Two ranks on the CPU against one process."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from unfreeze.models.images.modality import Images
from unfreeze.models.recipe.modality import bind
from unfreeze.models.recipe.ranks import follow, lead
from unfreeze.models.recipe.run import Evaluate, Train, run_recipe
from unfreeze.models.recipe.state import Record
from unfreeze.models.settings import (
    AugmentSpec,
    DataSpec,
    FinderSpec,
    ModelSpec,
    OptimizerSpec,
    Stage,
    TrainImages,
    TtaSpec,
)
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.training import ranks

RECIPE = [
    Stage(name="head", views=2, find_lr=True, cycles=1, cycle_len=3),
    Stage(name="all", train="all", find_lr=True, freeze_batchnorm=True, ratio=3, cycles=1, cycle_len=8),
]


def spec(source: Path, **optimizer: Any) -> TrainImages:
    return TrainImages(
        data=DataSpec(source=str(source), size=32, valid_fraction=0.25),
        model=ModelSpec(backbone="timm/test_resnet", weights="none", head="linear"),
        recipe=RECIPE,
        augment=AugmentSpec(mix="cutmix"),
        optimizer=OptimizerSpec(batch_size=8, **optimizer),
        tta=TtaSpec(n_aug=1),
        finder=FinderSpec(steps=36, trials=False),
        device="cpu",
        precision="fp32",
    )


def trained(folder: Path, params: TrainImages) -> dict[str, Any]:
    """Every batch's loss, what the finder suggests, the metrics, and the final weights."""
    workspace, losses, record, found = Workspace(folder), [], Record(), {}
    prepared = Images().prepare(params, workspace)
    lead(params, prepared, record)
    for step in run_recipe(bind(params, prepared), workspace, record):
        done = step.run()
        if isinstance(step, Train):
            losses += [float(event.loss) for event in done if event.kind == "batch"]
        elif isinstance(step, Evaluate):
            found[step.section] = done.metrics
    weights = step.state.learner.state()
    return {"losses": losses, "suggestions": record.suggestions, "metrics": found, "weights": weights}


def on_this_rank(folder: Path, params: TrainImages) -> dict[str, Any] | None:
    with ranks.joined():
        return follow(folder) if ranks.rank() else trained(folder, params)


def on_two_ranks(folder: Path, params: TrainImages) -> dict[str, Any]:
    config = LaunchConfig(1, 1, 2, rdzv_backend="c10d", rdzv_endpoint="127.0.0.1:0", run_id="test", max_restarts=0)
    return elastic_launch(config, on_this_rank)(folder, params)[0]


@pytest.mark.slow
def test_two_ranks_train_as_one_process_does_to_rounding(stripes, tmp_path, one_thread):
    params = spec(stripes, accumulate=2, ema=0.9)
    alone, both = trained(tmp_path / "alone", params), on_two_ranks(tmp_path / "both", params)
    assert len(alone["losses"]) == len(both["losses"]) >= 50
    assert both["losses"] == pytest.approx(alone["losses"], abs=1e-5)
    assert both["suggestions"].keys() == {0, 1}
    for position, lrs in both["suggestions"].items():
        assert lrs == pytest.approx(alone["suggestions"][position], rel=1e-4)
    for name, weight in both["weights"].items():
        torch.testing.assert_close(weight, alone["weights"][name], atol=1e-4, rtol=1e-3)
    for section, metrics in alone["metrics"].items():
        assert both["metrics"][section] == pytest.approx(metrics, abs=1e-4)


@pytest.mark.parametrize(("rows", "expected"), [(11, (slice(8, 11), 11)), (7, (slice(None), 28))])
def test_a_batch_too_small_for_all_ranks_is_trained_by_each(rows, expected, monkeypatch):
    monkeypatch.setattr(ranks, "count", lambda: 4)
    monkeypatch.setattr(ranks, "rank", lambda: 3)
    assert ranks.share(rows) == expected


@pytest.mark.parametrize(("rows", "expected"), [(7, [[0, 1, 2], [3, 4, 5], [6, 6, 6]]), (1, [[0], [0], [0]])])
def test_every_rank_predicts_as_many_rows(rows, expected, monkeypatch):
    monkeypatch.setattr(ranks, "count", lambda: 3)
    for number, wanted in enumerate(expected):
        monkeypatch.setattr(ranks, "rank", lambda number=number: number)
        assert ranks.rows_to_predict(rows).tolist() == wanted
