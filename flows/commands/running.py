"""Start a flow for a command, and end the command with what it returns."""

import importlib
import sys
from collections.abc import Callable
from typing import Any

from pydantic_core import to_json

from unfreeze.flows.running import prefect_starting, state_of
from unfreeze.models.errors import UserError
from unfreeze.tasks.machine.servers import require_mlflow
from unfreeze.tasks.machine.storage import storage_trouble

RUN = "A run's id or the beginning of it, its name, or `last` for the latest training."
Show = Callable[[dict[str, Any]], None]


def run_flow(module: str, name: str, *arguments: Any, show: Show, json: bool) -> int:
    """Run the flow of that name in ``unfreeze.flows.MODULE`` and show its result; returns the exit status.

    Prefect and torch are imported only now: each takes seconds.
    """
    with prefect_starting():
        flow = getattr(importlib.import_module(f"unfreeze.flows.{module}"), name)
    return finish(state_of(flow, *arguments), show, json)


def finish(state: Any, show: Show, json: bool) -> int:
    """Show a flow's result, or say why there is none."""
    if state.is_cancelled():
        print(f"unfreeze: {state.message}", file=sys.stderr)
        return 130
    result = state.result(raise_on_failure=False)
    if isinstance(result, UserError):
        raise result
    if isinstance(result, BaseException):
        failure = storage_trouble(result) or f"failed: {type(result).__name__}: {result}"
        print(f"unfreeze: {failure}", file=sys.stderr)
        return 1
    return shown(result, show, json)


def shown(result: dict[str, Any], show: Show, json: bool) -> int:
    """Show a result to people, and to programs if `json`."""
    show(result)
    if json:
        print(to_json(result, inf_nan_mode="null").decode(), flush=True)
    return 0


def known_runs(*given: str) -> list[str]:
    """Ids of the runs that a user means; UserError for one that MLflow does not know, before anything heavy starts."""
    require_mlflow()
    from unfreeze.tasks.tracking import get_run
    from unfreeze.tasks.tracking.runs import find_run

    found = [find_run(each) for each in given]
    for run_id in found:
        get_run(run_id)
    return found
