"""A deployment run by a real worker against a real server."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.deployments.service import Service, running_service, until
from tests.flows.tiny import tiny_training

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("service") / "home") as service:
        yield service


def asked(service: Service, question: str) -> list[tuple[str, ...]]:
    """Rows of the MLflow store; none before it exists."""
    store = service.home / "unfreeze" / "mlflow.db"
    try:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as connection:
            return connection.execute(question).fetchall()
    except sqlite3.OperationalError:
        return []


def test_a_cancelled_flow_run_keeps_a_checkpoint_and_can_be_resumed(service: Service, stripes: Path) -> None:
    params = tiny_training(stripes, **{"recipe.full.cycles": 60, "recipe.full.cycle_mult": 1}).model_dump(mode="json")
    flow_run = service.start("train-images/train-images", {"params": params})
    unfrozen = "select 1 from metrics where key = 'lr/early' limit 1"
    assert until(lambda: bool(asked(service, unfrozen)), 90), service.flow_run(flow_run)["state"]

    service.command("prefect", "flow-run", "cancel", flow_run)

    assert service.wait(flow_run, "CANCELLED", seconds=60)["state_name"] == "Cancelled"
    # Never Crashed in between, which an automation would answer by queueing the run again.
    states = [state["type"] for state in service.request("GET", f"/flow_run_states/?flow_run_id={flow_run}")]
    assert "CRASHED" not in states
    assert states[-1] == "CANCELLED"
    ((run_id, status),) = asked(service, "select run_uuid, status from runs")
    assert status == "KILLED"
    ((checkpoint,),) = asked(service, "select value from tags where key = 'unfreeze.checkpoint'")
    assert checkpoint.endswith(".safetensors")

    resumed = service.start("train-images/train-images", {"params": {}, "resume_run_id": run_id})
    service.wait(resumed, "COMPLETED")
    assert asked(service, "select status from runs") == [("FINISHED",)]


def test_a_sweep_runs_from_its_deployment_and_shows_its_trials(service: Service, stripes: Path) -> None:
    training = tiny_training(stripes).model_dump(mode="json")
    flow_run = service.start("sweep/sweep", {"params": {"trials": 3, "study": "deployed"}, "training": training})
    service.wait(flow_run, "COMPLETED")
    wanted = {"task_runs": {"flow_run_id": {"any_": [flow_run]}}}
    names = [run["name"] for run in httpx.post(f"{service.api}/task_runs/filter", json=wanted).json()]
    assert sum(name.startswith("trial ") for name in names) == 3
    artifacts = httpx.post(f"{service.api}/artifacts/filter", json={}).json()
    assert {"best-so-far", "search-vs-rule-of-thumb"} <= {artifact["key"] for artifact in artifacts}
