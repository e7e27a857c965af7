"""How the service is: what was restarted, what its logs complain of, whether active schedules have runs to come."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.sorting import FlowRunSort

ERROR = re.compile(r"^\S+ \| (?:ERROR|CRITICAL) +\| (?P<text>.*)$")
"""A line of Prefect's logs; its traceback, if any, follows."""
EXCEPTION = re.compile(r"^(?:[\w.]+(?:Error|Exception|Interrupt|Exit)\b.*)$")
MOST_READ = 20_000_000
"""Bytes at the end of a log that are looked through."""
SCHEDULER_SECONDS = 120
"""The scheduler looks once a minute for active schedules."""


def health(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each part of the service that `unfreeze up` recorded (`live_service`) and one for the schedules.

    Returns
    -------
    list of dict
        ``part``, ``state`` (`ok`, `errors` in its log, or `failing`), ``since``, ``restarts`` and ``trouble``.
    """
    rows = []
    for name, part in record.get("health", {}).items():
        count, latest = errors_in(Path(part["log"]), part["log_begins"])
        restarts = f"{part['restarts']}, the last at {part['last_restart']}" if part["restarts"] else "0"
        trouble = f"{count} errors in {part['log']}, the last: {latest}" if count else None
        rows.append(_row(name, "errors" if count else "ok", trouble, record.get("since"), restarts))
    return [*rows, _schedules()]


def errors_in(log: Path, begins: int = 0) -> tuple[int, str]:
    """How many errors a log of Prefect holds from byte `begins` on, and the latest in a line."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(min(begins, size), size - MOST_READ))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return 0, ""
    count, latest, in_traceback = 0, "", False
    for line in lines:
        if found := ERROR.match(line):
            count, latest, in_traceback = count + 1, found["text"], True
        elif in_traceback and EXCEPTION.match(line):
            latest, in_traceback = f"{latest}: {line}", False
    return count, latest


def _schedules() -> dict[str, Any]:
    """Whether every deployment with an active schedule has a run to come."""
    now = datetime.now(UTC)
    to_come = FlowRunFilter.model_validate({"expected_start_time": {"after_": now}})
    with get_client(sync_client=True) as client:
        deployments = client.read_deployments(limit=200)
        runs = client.read_flow_runs(flow_run_filter=to_come, sort=FlowRunSort.EXPECTED_START_TIME_ASC, limit=200)
    waiting = {run.deployment_id for run in runs}
    active = [each for each in deployments if not each.paused and any(one.active for one in each.schedules)]
    seen = now - timedelta(seconds=SCHEDULER_SECONDS)
    overdue = [each for each in active if each.id not in waiting and each.updated and each.updated < seen]
    if not overdue:
        return _row("schedules", "ok", f"{len(active) or 'none'} active")
    names = ", ".join(f"{each.name} ({each.entrypoint})" for each in overdue)
    return _row("schedules", "failing", f"active, but without a run to come: {names}")


def _row(part: str, state: str, trouble: str | None, since: Any = None, restarts: str | None = None) -> dict[str, Any]:
    return {"part": part, "state": state, "since": since, "restarts": restarts, "trouble": trouble}
