"""Runs at a glance: what became of each, and the command that continues it."""

import time
from collections import Counter
from typing import Any

from unfreeze.tasks.tracking.server import client, experiments
from unfreeze.tasks.tracking.spool import run_of, spools, waiting_in

RESUME = "unfreeze.resume"
"""Tag of a run: the command that continues it, for one that is not a training."""
ENDED_EARLY = ("KILLED", "FAILED")


def recent_runs(count: int) -> list[dict[str, Any]]:
    """The latest runs that a person started, the last first.

    Returns
    -------
    list of dict
        ``run`` (its id), ``name``, ``kind``, ``state``, ``began``, ``waiting`` (operations that MLflow does not have
        yet) and ``continue``, a command; both None where there is nothing to do.
    """
    waiting: Counter[str] = Counter()
    for name in spools():
        waiting[run_of(name)] += waiting_in(name)
    found = client().search_runs(
        list(experiments().values()),
        "tags.`unfreeze.kind` != 'trial'",
        order_by=["attributes.start_time DESC"],
        max_results=count,
    )
    rows = []
    for run in found:
        tags, run_id, state = run.data.tags, run.info.run_id, run.info.status
        kind = tags["unfreeze.kind"]
        command = tags.get(RESUME) or (f"unfreeze resume {run_id}" if kind.startswith("train-") else None)
        rows.append(
            {
                "run": run_id,
                "name": run.info.run_name,
                "kind": kind,
                "state": state,
                "began": time.strftime("%Y-%m-%d %H:%M", time.localtime(run.info.start_time / 1000)),
                "waiting": waiting.get(run_id) or None,
                "continue": command if state in ENDED_EARLY else None,
            }
        )
    return rows
