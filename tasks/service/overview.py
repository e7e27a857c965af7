"""The state of the service: its pages, servers, workers, runs and models."""

from typing import Any

from unfreeze.models.errors import UserError
from unfreeze.tasks.machine.devices import leases
from unfreeze.tasks.machine.environment import live_service, tracking_store
from unfreeze.tasks.machine.servers import addresses, responds
from unfreeze.tasks.service.deployments import online_workers, runs_in_flight, runs_waiting
from unfreeze.tasks.service.prefect_server import end_gone_runs
from unfreeze.tasks.tracking.registry import champions
from unfreeze.tasks.tracking.server import experiments, models_page, runs_page

MOST_SHOWN = 20


def pages() -> dict[str, str]:
    """Title -> address of every page for users.

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
        for name, number in experiments().items():
            found[f"MLflow, {name}"] = runs_page(known["MLflow"], number)
        found["MLflow, models"] = models_page(known["MLflow"])
    return found


def overview() -> dict[str, list[dict[str, Any]]]:
    """Tables by title: ``servers``, ``workers``, ``runs_in_flight``, ``health``, ``models`` (with retrainings)."""
    known = addresses()
    up = {name for name, address in known.items() if responds(f"{address}/health")}
    servers = [
        {"server": name, "address": address, "state": "up" if name in up else "down"} for name, address in known.items()
    ]
    if "Prefect" not in known:
        servers.append({"server": "Prefect", "address": "", "state": "not running: unfreeze up"})
    if "MLflow" not in known:
        servers.append({"server": "MLflow", "address": tracking_store(), "state": "store without a server"})
    has_store = "MLflow" in up or "MLflow" not in known
    if has_store:
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
        why = "waits until a run ends: see `unfreeze up --limit`" if state["workers"] else "waits: no worker is online"
        state["runs_in_flight"] += [
            {"run": run.name, "state": f"{run.state_name}: {why}", "since": _time(run.expected_start_time)}
            for run in runs_waiting()[:MOST_SHOWN]
        ]
        state["gpus"] = leases()
        if service:
            state["health"] = [{"part": name, **part} for name, part in service.get("health", {}).items()]
    if has_store:
        state["models"] = champions()
    return state


def _time(moment: Any) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}" if moment else ""
