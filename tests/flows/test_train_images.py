"""The whole path on a tiny data set, through a real Prefect API and a real MLflow store."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from tests.flows.tiny import tiny_training
from tests.pages import shown_artifacts
from unfreeze.models.training.checkpoints import load_checkpoint
from unfreeze.tasks import tracking

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture(scope="module")
def trained(stripes: Path, prefect_api: None) -> dict[str, Any]:
    from unfreeze.flows.train_images import train_images

    result: dict[str, Any] = train_images(tiny_training(stripes, **{"tracking.cycle_checkpoints": True}))
    return result


def artifacts(run_id: str, folder: str | None = None) -> set[str]:
    found = set()
    for item in MlflowClient().list_artifacts(run_id, folder):
        found |= artifacts(run_id, item.path) if item.is_dir else {item.path}
    return found


def test_the_summary_names_run_model_stages_and_metrics(trained: dict[str, Any]) -> None:
    assert {"run_id", "experiment_id", "model_uri", "seconds", "stages", "metrics"} <= trained.keys()
    assert [stage["name"] for stage in trained["stages"]] == ["head", "augmented", "full"]
    head, augmented, full = (stage["epochs"] for stage in trained["stages"])
    assert (head, augmented) == (2, 1)
    assert full in (3, 7, 15)  # as long as its loss falls
    assert trained["stages"][0]["stopped"] == "2 cycles trained"
    for name in ("accuracy", "accuracy_plain", "accuracy_tta", "loss", "error_reduction_tta"):
        assert f"valid/{name}" in trained["metrics"]
    assert {"baseline/accuracy", "baseline/loss"} <= trained["metrics"].keys()
    json.dumps(trained)


def test_no_step_of_a_metric_is_there_twice(trained: dict[str, Any]) -> None:
    client = MlflowClient()
    for name in client.get_run(trained["run_id"]).data.metrics:
        steps = [each.step for each in client.get_metric_history(trained["run_id"], name)]
        assert name.startswith("system/") or len(set(steps)) == len(steps), name


def test_the_run_keeps_exactly_the_artifacts_of_every_step(trained: dict[str, Any]) -> None:
    apart = ("data/", "checkpoints/", "code/uncommitted-")
    files = {path for path in artifacts(trained["run_id"]) if not path.startswith(apart)}
    # Which rows seem labelled wrong, if any, is chance with ten of them.
    assert files - {"valid/label_errors.feather", "valid/label_errors.txt"} == {
        "report.html",
        "report/data.json",
        "report/baseline.json",
        "report/choice.json",
        "report/valid.json",
        "code/spec.json",
        "code/starts.json",
        "code/packages.txt",
        "spec.json",
        "model_summary.txt",
        "learning_rate/head.png",
        "learning_rate/head.feather",
        "learning_rate/full.png",
        "learning_rate/full.feather",
        "schedule/head.png",
        "schedule/augmented.png",
        "schedule/full.png",
        "baseline/predictions.feather",
        "valid/predictions.feather",
        "valid/calibration.feather",
        "valid/per_class.feather",
        "valid/per_class.txt",
        "valid/confusion.png",
        "valid/top_losses.png",
    }
    assert "data/augmentation.png" in artifacts(trained["run_id"], "data")


def test_there_is_a_checkpoint_for_every_cycle_without_pickled_code(trained: dict[str, Any]) -> None:
    kept = {Path(path).name for path in artifacts(trained["run_id"], "checkpoints")}
    cycles = {"head-cycle-1", "head-cycle-2", "augmented-cycle-1", "full-cycle-1", "full-cycle-2"}
    assert {f"{name}.safetensors" for name in cycles} <= kept
    assert not {name for name in kept if "cycle" not in name}  # what a run is resumed from goes when it is finished
    for name in kept:
        path = tracking.fetch(trained["run_id"], f"checkpoints/{name}")
        assert path is not None
        assert load_checkpoint(path).position["groups"]


def test_metrics_go_on_counting_steps_across_stages(trained: dict[str, Any]) -> None:
    history = MlflowClient().get_metric_history(trained["run_id"], "train/loss")
    assert [metric.step for metric in history] == list(range(1, trained["stages"][-1]["steps"] + 1))
    epochs = MlflowClient().get_metric_history(trained["run_id"], "valid/accuracy")
    assert len(epochs) == sum(stage["epochs"] for stage in trained["stages"]) + 1


def test_every_layer_group_logs_its_rate_in_the_ratio_of_the_stage(trained: dict[str, Any]) -> None:
    lrs = {
        group: MlflowClient().get_metric_history(trained["run_id"], f"lr/{group}")[-1].value
        for group in ("early", "late", "head")
    }
    assert lrs["head"] / lrs["late"] == pytest.approx(3)
    assert lrs["late"] / lrs["early"] == pytest.approx(3)


def test_the_whole_spec_is_logged_as_params(trained: dict[str, Any]) -> None:
    params = MlflowClient().get_run(trained["run_id"]).data.params
    assert params["model.backbone"] == "timm/test_resnet"
    assert params["recipe.2.cycle_mult"] == "2"
    assert params["tta.n_aug"] == "2"


def test_the_data_set_is_a_logged_input_with_its_digest(trained: dict[str, Any]) -> None:
    run = MlflowClient().get_run(trained["run_id"])
    (data_set,) = run.inputs.dataset_inputs
    assert data_set.dataset.digest == run.data.tags["data.digest"][:8]


def test_mlflow_and_prefect_runs_link_to_each_other(trained: dict[str, Any]) -> None:
    flow_run_id = MlflowClient().get_run(trained["run_id"]).data.tags["prefect.flow_run_id"]
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(flow_run_id).name.startswith("train ")
    assert any(trained["run_id"] in str(each.data) for each in shown_artifacts("mlflow-run", flow_run_id))


def test_predictions_cover_every_validation_row_and_give_the_metrics(trained: dict[str, Any]) -> None:
    path = tracking.fetch(trained["run_id"], "valid/predictions.feather")
    assert path is not None
    predictions = pd.read_feather(path)
    assert len(predictions) == 10
    accuracy = (predictions["predicted"] == predictions["label"]).mean()
    assert accuracy == pytest.approx(trained["metrics"]["valid/accuracy"])
    probabilities = predictions[["p(across)", "p(down)"]].to_numpy()
    assert probabilities.sum(1) == pytest.approx(np.ones(10))


@pytest.mark.slow
def test_the_model_predicts_in_a_fresh_process_what_the_evaluation_said(
    trained: dict[str, Any], tmp_path: Path
) -> None:
    path = tracking.fetch(trained["run_id"], "valid/predictions.feather")
    assert path is not None
    expected = pd.read_feather(path)
    script = f"""
import sys, mlflow, pandas as pd
model = mlflow.pyfunc.load_model({trained["model_uri"]!r})
paths = pd.read_feather({str(path)!r})["path"]
predicted = model.predict(pd.DataFrame({{"image": [open(path, "rb").read() for path in paths]}}))
assert "prefect" not in sys.modules
predicted.to_feather({str(tmp_path / "predicted.feather")!r})
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    predicted = pd.read_feather(tmp_path / "predicted.feather")
    assert predicted["class"].tolist() == expected["predicted"].tolist()
    probabilities = np.stack(predicted["probabilities"].to_numpy())
    # Evaluated on activations of half precision.
    assert probabilities == pytest.approx(expected[["p(across)", "p(down)"]].to_numpy(), abs=2e-4)


@pytest.mark.slow
def test_the_first_version_is_champion_and_the_next_is_challenger(stripes: Path) -> None:
    from unfreeze.flows.train_images import train_images

    first, second = (
        train_images(tiny_training(stripes, seed=seed, **{"tracking.model_name": "aliased"})) for seed in (1, 2)
    )
    assert first["model"]["alias"] == "champion"
    assert second["model"]["alias"] == "challenger"
    assert first["model"]["line"] == "`unfreeze predict aliased` answers with version 1 from now on"
    assert "still answers with version 1" in second["model"]["line"]
    assert f"unfreeze compare {first['run_id']} {second['run_id']}" in second["model"]["line"]
    assert second["model"]["line"].endswith("unfreeze promote aliased 2")
    champion = MlflowClient().get_model_version_by_alias("aliased", "champion")
    assert str(champion.version) == first["model"]["version"]


def test_the_model_is_kept_in_the_experiment_of_its_run(trained: dict[str, Any]) -> None:
    model = MlflowClient().get_logged_model(trained["model_uri"].removeprefix("models:/"))
    assert str(model.experiment_id) == str(trained["experiment_id"])
    assert "mlflow-artifacts" in model.artifact_location


@pytest.mark.slow
def test_a_second_run_shows_its_preparation_as_cached_and_has_the_same_result(
    trained: dict[str, Any], stripes: Path
) -> None:
    from unfreeze.flows.train_images import train_images

    again = train_images(tiny_training(stripes))
    assert again["metrics"] == trained["metrics"]
    assert not artifacts(again["run_id"], "checkpoints")
    assert "unfreeze.checkpoint" not in tracking.tags_of(again["run_id"])
    flow_run_id = MlflowClient().get_run(again["run_id"]).data.tags["prefect.flow_run_id"]
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])))
    cached = {run.name for run in runs if run.state_name == "Cached"}
    assert {"index images", "resize images", "precompute activations for head"} <= cached
    assert {run.name for run in runs} >= {"train head", "train full", "evaluate valid"}


@pytest.mark.slow
def test_a_deleted_cache_is_built_again(trained: dict[str, Any], stripes: Path) -> None:
    from unfreeze.flows.train_images import train_images
    from unfreeze.tasks.machine.environment import home

    images = list((home() / "cache" / "images").glob("*.arrow"))
    for path in images:
        path.unlink()
    again = train_images(tiny_training(stripes))
    assert again["metrics"] == trained["metrics"]
    assert len([path for path in images if path.exists()]) == 1  # other tests' caches are not this run's


def test_bad_input_fails_with_its_message_and_ends_the_run_as_failed(tmp_path: Path) -> None:
    from unfreeze.flows.train_images import train_images

    state = train_images(tiny_training(tmp_path), return_state=True)
    assert state.is_failed()
    assert "is empty" in str(state.message)
    (run,) = MlflowClient().search_runs([tracking.experiment_id("unfreeze")], max_results=1)
    assert run.info.status == "FAILED"


@pytest.mark.slow
def test_a_snapshot_ensemble_averages_the_last_cycles_and_is_what_gets_registered(stripes: Path) -> None:
    from unfreeze.flows.train_images import train_images
    from unfreeze.models.images.serving.predictor import ImagePredictor
    from unfreeze.tasks.tracking import registry

    changes = {"recipe.full.patience": "none", "recipe.full.cycles": 3, "recipe.full.cycle_mult": 1}
    name = {"tracking.model_name": "snapshots", "snapshots": 2, "keep": "trained"}
    result = train_images(tiny_training(stripes, **changes, **name))
    folder = registry.folder_of(registry.version_of("snapshots", "champion"))
    predictor = ImagePredictor(folder, "cpu")
    assert len(predictor.networks) == 2
    path = tracking.fetch(result["run_id"], "valid/predictions.feather")
    assert path is not None
    said = pd.read_feather(path)
    probabilities = predictor.probabilities(said["path"].tolist())
    assert probabilities == pytest.approx(said[["p(across)", "p(down)"]].to_numpy(), abs=1e-4)
    alone = [ImagePredictor(folder, "cpu") for _ in range(2)]
    for number, each in enumerate(alone):
        each.networks = [each.networks[number]]
    members = [each.probabilities(said["path"].tolist()) for each in alone]
    assert np.abs(members[0] - members[1]).max() > 1e-4
    assert np.mean(members, axis=0) == pytest.approx(probabilities)


def test_the_default_recipe_is_trained_refitted_and_reported(stripes: Path, own_home: Path) -> None:
    from unfreeze.flows.train_images import train_images

    changes = {"recipe": "default", "recipe.full.cycle_len": 1, "recipe.full.cycle_steps": 2}
    found = train_images(tiny_training(stripes, **changes, **{"recipe.full.fewest_errors": None, "refit": True}))
    head, full = found["stages"]
    assert (head["lr"], head["epochs"], head["stopped"]) == (None, 0, "fitted by logistic regression")
    assert full["lr"] == 0.002
    assert "refitted on all" in MlflowClient().get_run(found["run_id"]).data.tags["unfreeze.refitted"]
    assert "report.html" in artifacts(found["run_id"])
