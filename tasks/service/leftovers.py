"""Runs whose process is gone end in MLflow and in Prefect: by the next command, by `unfreeze up`, or by a witness."""

import os
import sys
import time

from unfreeze.tasks.service.prefect_server import EMBEDDED, start_embedded
from unfreeze.tasks.service.supervise import responds

ATTEMPTS, SECONDS_BETWEEN = 40, 15


def end_gone_runs() -> bool:
    """End what looks as if it were under way, and deliver what its processes left for MLflow.

    Returns
    -------
    bool
        Whether Prefect's server, if there is one, could be told as well.
    """
    from unfreeze.tasks import tracking
    from unfreeze.tasks.prefect_run.processes import end_gone_flow_runs
    from unfreeze.tasks.tracking.syncing import close_stale_runs

    api = os.environ.get("PREFECT_API_URL")
    try:
        close_stale_runs(list(tracking.experiments().values()))
    finally:
        is_there = api is not None and responds(f"{api}/health")
        if is_there:
            end_gone_flow_runs()
    return api is None or is_there


def _main() -> None:
    """The witness of a process that was killed: try until both servers know, or for ten minutes."""
    if os.environ.pop(EMBEDDED, None):  # the killed process's own server has ended with it
        for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_UI_URL"):
            os.environ.pop(name, None)
        start_embedded()()
    for _ in range(ATTEMPTS):
        try:
            if end_gone_runs():
                return
        except Exception as error:  # MLflow is away
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {type(error).__name__}: {error}", file=sys.stderr)
        time.sleep(SECONDS_BETWEEN)


if __name__ == "__main__":
    _main()
