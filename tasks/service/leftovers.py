"""Runs whose process is gone end in MLflow and in Prefect: by the next command or by `unfreeze up`."""

import os

from unfreeze.tasks.machine.servers import responds
from unfreeze.tasks.service.prefect_server import knows_a_server, start_embedded


def end_gone_runs() -> bool:
    """End what looks as if it were under way, and deliver what its processes left for MLflow.

    Returns
    -------
    bool
        Whether Prefect's server knows as well.
    """
    from unfreeze.tasks import tracking
    from unfreeze.tasks.tracking.syncing import close_stale_runs

    try:
        close_stale_runs(list(tracking.experiments().values()))
    finally:  # whatever happens to MLflow
        is_known = _end_flow_runs()
    return is_known


def _end_flow_runs() -> bool:
    """End flow runs whose process is gone; whether Prefect's server knows of all."""
    from unfreeze.tasks.machine.flow_runs import end_gone_flow_runs, gone_flow_runs

    if not gone_flow_runs():
        return True
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    if not knows_a_server():
        start_embedded()()  # on the database of the servers that trainings here had of their own
    api = os.environ.get("PREFECT_API_URL") or PREFECT_API_URL.value()
    if not responds(f"{api}/health"):
        return False
    # Prefect read its settings before that server was started.
    own = {PREFECT_API_URL: api, PREFECT_API_AUTH_STRING: os.environ.get("PREFECT_API_AUTH_STRING")}
    with temporary_settings({name: value for name, value in own.items() if value}):
        end_gone_flow_runs()
    return True
