"""A flow's result, kept where its Prefect server went away before it could be told."""

from collections.abc import Callable
from typing import Any

import httpx
from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectException
from prefect.states import Completed

from unfreeze.tasks.prefect_run.notices import log_notice

_results: list[dict[str, Any]] = []
"""The result of the flow that is ending in this process, once it has one."""


def keep_result(result: dict[str, Any]) -> dict[str, Any]:
    """Remember what a flow is about to return; returns it."""
    _results[:] = [result]
    return result


def state_of(flow: Callable[..., Any], *arguments: Any) -> State[Any]:
    """Run a flow and return its state; that is Completed even if Prefect went away before it could hear of it."""
    _results.clear()
    try:
        state: State[Any] = flow(*arguments, return_state=True)
        if not _results or not isinstance(state.result(raise_on_failure=False), httpx.HTTPError | PrefectException):
            return state
        error: BaseException = state.result(raise_on_failure=False)
    except (httpx.HTTPError, PrefectException) as gone:
        if not _results:
            raise
        error = gone
    log_notice(
        f"Prefect does not answer ({type(error).__name__}: {error}); its page does not show that the run is done"
    )
    return Completed(data=_results.pop())
