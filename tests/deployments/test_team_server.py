"""A team's server: accounts, PostgreSQL, a bucket, two workers; a training through all of it."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from tests.conftest import draw_stripes
from tests.deployments.service import PROJECT, until
from tests.deployments.team import WORKER, Team, postgresql_programs, running_team
from tests.flows.tiny import tiny_training

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        postgresql_programs() is None,
        reason="needs a PostgreSQL with pg_trgm: apt-get install postgresql, or put its pg_config on the PATH",
    ),
]


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    with running_team(tmp_path_factory.mktemp("team")) as team:
        yield team


def mlflow_run(team: Team, flow_run: str) -> dict[str, Any]:
    """The MLflow run of a Prefect flow run: info, params, tags and metrics."""
    account = team.environment["MLFLOW_TRACKING_USERNAME"], team.environment["MLFLOW_TRACKING_PASSWORD"]
    wanted = {"experiment_ids": ["1"], "filter": f"tags.`prefect.flow_run_id` = '{flow_run}'"}
    answer = httpx.post(f"{team.mlflow}/api/2.0/mlflow/runs/search", json=wanted, auth=account, timeout=60)
    (run,) = answer.raise_for_status().json()["runs"]
    data = run["data"]
    kinds = ("params", "tags", "metrics")
    return {
        "info": run["info"],
        **{kind: {each["key"]: each["value"] for each in data.get(kind, [])} for kind in kinds},
    }


# --- accounts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("account", [None, ("team", "wrong"), ("admin", "password1234")])
def test_both_servers_refuse_requests_without_an_account(team: Team, account: tuple[str, str] | None) -> None:
    for address in (
        f"{team.api}/work_pools/local",
        f"{team.mlflow}/api/2.0/mlflow/experiments/get?experiment_id=0",
        f"{team.mlflow}/api/2.0/mlflow-artifacts/artifacts",
        f"{team.mlflow}/",
    ):
        assert httpx.get(address, auth=account).status_code == 401, address
    assert httpx.get(f"{team.secrets['MLFLOW_S3_ENDPOINT_URL']}/mlflow").status_code == 403


def test_the_account_of_the_workers_is_no_administrator(team: Team) -> None:
    account = WORKER, team.environment["MLFLOW_TRACKING_PASSWORD"]
    users = f"{team.mlflow}/api/2.0/mlflow/users"
    body = {"username": "mallory", "password": "a-long-password"}
    assert httpx.post(f"{users}/create", json=body, auth=account).status_code == 403
    found = team.ask_mlflow("users/get", username=WORKER)["user"]
    assert (found["username"], found["is_admin"]) == (WORKER, False)


def test_mlflow_answers_to_no_other_host_name(team: Team) -> None:
    account = WORKER, team.environment["MLFLOW_TRACKING_PASSWORD"]
    address = f"{team.mlflow}/api/2.0/mlflow/experiments/get?experiment_id=0"
    codes = [
        httpx.get(address, auth=account, headers={"Host": host}).status_code for host in ("mlflow:5000", "evil:5000")
    ]
    assert codes == [200, 403]


# --- set-up -----------------------------------------------------------------------------------------------------------


def test_the_set_up_made_every_deployment_and_the_automations(team: Team) -> None:
    deployments = team.request("POST", "/deployments/filter", {})
    assert "train-images" in {each["entrypoint"].split(".")[-1].replace("_", "-") for each in deployments}
    assert {each["work_pool_name"] for each in deployments} == {"local"}
    names = {each["name"] for each in team.request("POST", "/automations/filter", {})}
    assert {"unfreeze: silent runs have crashed", "unfreeze: crashed runs are queued again"} <= names


def test_prefect_takes_the_template_of_kubernetes_jobs(team: Team) -> None:
    template = PROJECT / "deployments" / "kubernetes" / "job-template.json"
    create = ["prefect", "work-pool", "create", "cluster", "--type", "kubernetes", "--base-job-template", str(template)]
    team.command(*create)
    team.command(*create, "--overwrite")
    pool = team.request("GET", "/work_pools/cluster")
    assert (pool["type"], pool["base_job_template"]) == ("kubernetes", json.loads(template.read_text()))


# --- training ---------------------------------------------------------------------------------------------------------


def test_a_training_ends_in_mlflow_and_in_the_bucket(team: Team, stripes: Path) -> None:
    params = tiny_training(stripes, **{"tracking.model_name": "stripes"})
    flow_run = team.start("train-images/train-images", {"params": params.model_dump(mode="json")})
    team.wait(flow_run, "COMPLETED")

    run = mlflow_run(team, flow_run)
    assert run["info"]["status"] == "FINISHED"
    assert run["info"]["artifact_uri"].startswith("mlflow-artifacts:/")
    assert run["params"]["model.backbone"] == "timm/test_resnet"
    assert 0 <= run["metrics"]["valid/accuracy_tta"] <= 1
    version = team.ask_mlflow("registered-models/alias", name="stripes", alias="champion")["model_version"]
    assert version["run_id"] == run["info"]["run_id"]
    objects = team.in_bucket()
    assert any(f"{version['run_id']}/artifacts/valid/" in name for name in objects)
    assert not any(f"{version['run_id']}/artifacts/checkpoints/" in name for name in objects)
    assert any(name.endswith("/artifacts/MLmodel") for name in objects)


def test_the_run_of_a_stopped_worker_continues_at_the_other(team: Team, stripes: Path) -> None:
    long = {"recipe.full.cycles": 40, "recipe.full.cycle_mult": 1, "seed": 1}
    flow_run = team.start(
        "train-images/train-images", {"params": tiny_training(stripes, **long).model_dump(mode="json")}
    )
    assert until(lambda: any(line.startswith("full: epoch 2 ") for line in team.log(flow_run)), 90)
    busy = team.worker_of(flow_run)
    assert busy is not None
    team.workers[busy].send_signal(signal.SIGTERM)

    assert team.workers[busy].wait(60) == 0
    assert until(lambda: team.worker_of(flow_run) == 1 - busy, 120), team.flow_run(flow_run)["state"]
    assert team.wait(flow_run, "COMPLETED")["run_count"] == 2
    assert mlflow_run(team, flow_run)["info"]["status"] == "FINISHED"
    assert any(line.startswith("MLflow run") and "is resumed" in line for line in team.log(flow_run))


# --- retraining, promotion, prediction: the steps after a training ----------------------------------------------------


def test_a_model_is_retrained_promoted_and_predicts_through_the_team_s_servers(
    team: Team, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = tmp_path_factory.mktemp("team-sources") / "lines"
    draw_stripes(source, 24, seed=0)
    first = team.start("train-images/train-images", {"params": tiny_training(source).model_dump(mode="json")})
    team.wait(first, "COMPLETED")
    draw_stripes(source, 8, seed=3)
    retrain = {"model": "lines", "warm_start": "champion", "promotion": {"significance": 1}}
    retrained = team.start("retrain/retrain", {"params": retrain})
    team.wait(retrained, "COMPLETED", seconds=240)
    version = team.ask_mlflow("model-versions/get", name="lines-classifier", version="2")["model_version"]
    decided = {tag["key"]: tag["value"] for tag in version["tags"]}
    assert decided["unfreeze.decision"] in ("promoted", "kept champion")

    for number in ("1", "2"):
        team.command("unfreeze.flows.cli", "promote", "lines", number)
    champion = team.ask_mlflow("registered-models/alias", name="lines-classifier", alias="champion")["model_version"]
    assert champion["version"] == "2"

    out = source.parent / "predictions.feather"
    params = {"model": "lines@champion", "source": str(source), "out": str(out)}
    team.wait(team.start("predict/predict", {"params": params}), "COMPLETED")
    predictions = pd.read_feather(out)
    assert len(predictions) == 64
    assert set(predictions["version"].astype(str)) == {"2"}
    assert set(predictions["class"]) <= {"across", "down"}
