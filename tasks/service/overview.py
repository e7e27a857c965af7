"""The service at a glance: the pages that matter, and what runs, what serves, what was decided last."""

import os
from typing import Any

from unfreeze.models.errors import UserError
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.environment import live_service, tracking_store
from unfreeze.tasks.machine.servers import responds
from unfreeze.tasks.service.deployments import online_workers, runs_in_flight
from unfreeze.tasks.service.health import health
from unfreeze.tasks.service.leftovers import end_gone_runs
from unfreeze.tasks.tracking.registry import champions
from unfreeze.tasks.tracking.server import models_page, runs_page

MOST_SHOWN = 20


def addresses() -> dict[str, str]:
    """``Prefect`` (its API) and ``MLflow``, as far as servers are known."""
    known = {"Prefect": os.environ.get("PREFECT_API_URL", ""), "MLflow": os.environ["MLFLOW_TRACKING_URI"]}
    return {name: address for name, address in known.items() if address.startswith("http")}


def pages() -> dict[str, str]:
    """Title -> address of every page that people look at.

    Raises
    ------
    UserError
        If no server is known.
    """
    known = addresses()
    if not known:
        raise UserError("no server is running: start them with `unfreeze up`, or set PREFECT_API_URL")
    found: dict[str, str] = {}
    if "Prefect" in known:
        names = ("dashboard", "deployments", "runs", "automations")
        found |= {f"Prefect, {name}": f"{known['Prefect'].removesuffix('/api')}/{name}" for name in names}
    if "MLflow" in known:
        for name, number in tracking.experiments().items():
            found[f"MLflow, {name}"] = runs_page(known["MLflow"], number)
        found["MLflow, models"] = models_page(known["MLflow"])
    return found


def overview() -> dict[str, list[dict[str, Any]]]:
    """Tables by title: ``servers``, ``workers``, ``runs_in_flight``, ``health`` and ``models`` (with retrainings)."""
    known = addresses()
    up = {name for name, address in known.items() if responds(f"{address}/health")}
    servers = [
        {"server": name, "address": address, "state": "up" if name in up else "down"} for name, address in known.items()
    ]
    if "Prefect" not in known:
        servers.append({"server": "Prefect", "address": "", "state": "not running: unfreeze up"})
    if "MLflow" not in known:
        servers.append({"server": "MLflow", "address": tracking_store(), "state": "store without a server"})
    if "MLflow" in up or "MLflow" not in known:
        end_gone_runs()
    service = live_service() or {}
    pool = service.get("pool", "local")
    state: dict[str, list[dict[str, Any]]] = {"servers": servers, "workers": [], "runs_in_flight": []}
    if "Prefect" in up:
        state["workers"] = [{"worker": name, "pool": pool, "state": "online"} for name in online_workers(pool)]
        state["runs_in_flight"] = [
            {"run": run.name, "state": run.state_name, "since": _time(run.start_time or run.expected_start_time)}
            for run in runs_in_flight()[:MOST_SHOWN]
        ]
        if service:
            state["health"] = health(service)
    if "MLflow" in up or "MLflow" not in known:
        state["models"] = champions()
    return state


def _time(moment: Any) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}" if moment else ""
