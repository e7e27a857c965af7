"""Work pool, deployments and automations on a Prefect server, and the flow runs there."""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter, WorkPoolFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelling

from unfreeze.models.errors import UserError
from unfreeze.tasks.service.automations import apply_automations, automations

STOPPABLE = [StateType.PENDING, StateType.RUNNING]
RETRAIN = "unfreeze.flows.retrain.retrain"
"""Entry point of the deployment that new data start."""
IN_FLIGHT = [*STOPPABLE, StateType.PAUSED, StateType.CANCELLING]


def register_deployments(pool: str, environment: Mapping[str, str]) -> int:
    """Create the work pool and every deployment of `prefect.yaml` in it; returns the number of deployments.

    Flows are imported from the package installed on the worker, unless `prefect.yaml` has a pull step. Names and
    schedules are set only for new deployments: those switched on, edited or added on the page stay.

    Raises
    ------
    UserError
        If Prefect rejects them, with its message.
    """
    settings: dict[str, Any] = yaml.safe_load(files("unfreeze").joinpath("prefect.yaml").read_text())
    settings.setdefault("pull", [])
    with get_client(sync_client=True) as client:
        with contextlib.suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        known = {str(deployment.entrypoint): deployment.name for deployment in client.read_deployments(limit=200)}
    for deployment in settings["deployments"]:
        deployment["work_pool"] = {**deployment["work_pool"], "name": pool}
        if deployment["entrypoint"] in known:
            deployment.pop("schedules", None)
            deployment["name"] = known[deployment["entrypoint"]]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "prefect.yaml").write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-m", "prefect", "deploy", "--all", "--no-prompt"]
        done = subprocess.run(command, cwd=folder, env=dict(environment), capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"`prefect deploy` failed:\n{(done.stdout + done.stderr).strip()[-2000:]}")
    with get_client(sync_client=True) as client:
        retrain = next(each for each in client.read_deployments(limit=200) if each.entrypoint == RETRAIN)
    apply_automations(automations(retrain.id))
    return len(settings["deployments"])


def online_workers(pool: str) -> list[str]:
    """Names of the pool's online workers; empty if the pool or the API cannot be found."""
    try:
        with get_client(sync_client=True) as client:
            workers = client.read_workers_for_work_pool(pool)
    except (ObjectNotFound, PrefectHTTPStatusError, OSError):
        return []
    return [worker.name for worker in workers if worker.status == "ONLINE"]


def runs_in_flight(pool: str | None = None) -> list[FlowRun]:
    """Pending, running, paused and cancelling flow runs."""
    wanted = FlowRunFilter.model_validate({"state": {"type": {"any_": IN_FLIGHT}}})
    of_pool = WorkPoolFilter.model_validate({"name": {"any_": [pool]}}) if pool is not None else None
    with get_client(sync_client=True) as client:
        return list(client.read_flow_runs(flow_run_filter=wanted, work_pool_filter=of_pool))


def runs_waiting() -> list[FlowRun]:
    """Flow runs whose time has come and that no worker has begun, which Prefect calls Late."""
    now = datetime.now(UTC).isoformat()
    wanted = FlowRunFilter.model_validate(
        {"state": {"type": {"any_": [StateType.SCHEDULED]}}, "expected_start_time": {"before_": now}}
    )
    with get_client(sync_client=True) as client:
        return list(client.read_flow_runs(flow_run_filter=wanted))


def cancel_running(pool: str, here: Collection[str | None], seconds: float, report: Callable[[str], None]) -> int:
    """Cancel those of the pool's flow runs whose ids are `here`, and wait for their checkpoints; returns how many."""
    running = [run for run in runs_in_flight(pool) if run.state_type in STOPPABLE and str(run.id) in here]
    if not running:
        return 0
    report(f"stopping {', '.join(run.name for run in running)}: the batch under way ends, a checkpoint is saved")
    with get_client(sync_client=True) as client:
        for run in running:
            client.set_flow_run_state(run.id, Cancelling())
    deadline = time.monotonic() + seconds
    ids = {run.id for run in running}
    while time.monotonic() < deadline and ids & {run.id for run in runs_in_flight(pool)}:
        time.sleep(0.5)
    return len(running)
