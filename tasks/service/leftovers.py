"""Runs whose process is gone end in MLflow and in Prefect: by the next command, by `unfreeze up`, or by a witness."""

import os
import sys
import time

from unfreeze.tasks.machine.servers import responds
from unfreeze.tasks.service.prefect_server import EMBEDDED, knows_a_server, start_embedded

ATTEMPTS, SECONDS_BETWEEN = 40, 15


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
    from unfreeze.tasks.prefect_run.processes import end_gone_flow_runs, gone_flow_runs

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


def _main() -> None:
    """The witness of a process that was killed: try until both servers know, or for ten minutes."""
    if os.environ.pop(EMBEDDED, None):  # the killed process's own server has ended with it
        for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_UI_URL"):
            os.environ.pop(name, None)
    for _ in range(ATTEMPTS):
        try:
            if end_gone_runs():
                return
        except Exception as error:  # MLflow is away
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {type(error).__name__}: {error}", file=sys.stderr)
        time.sleep(SECONDS_BETWEEN)


if __name__ == "__main__":
    _main()
