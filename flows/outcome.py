"""Flow results that survive the loss of the Prefect server."""

from collections.abc import Callable
from typing import Any, TypeVar

import httpx
from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectException
from prefect.states import Completed

from unfreeze.tasks.machine.flow_runs import end_gone_flow_runs, note_end
from unfreeze.tasks.machine.notices import log_notice

Result = TypeVar("Result")

_results: list[Any] = []
"""Result of the flow that is ending in this process, if any yet."""
prefect_is_gone = False
"""Whether Prefect was unreachable when this process's latest flow ended."""


def keep_result(result: Result) -> Result:
    """Remember a flow's result or state, and return it."""
    _results[:] = [result]
    return result


def forget_result() -> None:
    """Forget a subflow's result when its parent fails."""
    _results.clear()


def state_of(flow: Callable[..., Any], *arguments: Any) -> State[Any]:
    """Run a flow and return its final state, even if Prefect became unreachable before recording it."""
    global prefect_is_gone  # noqa: PLW0603
    _results.clear()
    prefect_is_gone = False
    end_gone_flow_runs()
    try:
        state: State[Any] = flow(*arguments, return_state=True)
        error = state.result(raise_on_failure=False)
    except (httpx.HTTPError, PrefectException) as gone:
        if not _results:
            raise
        error = gone
    if not _results or not isinstance(error, httpx.HTTPError | PrefectException):
        return state
    prefect_is_gone = True
    log_notice(f"Prefect does not answer ({type(error).__name__}: {error}); its page does not show how the run ended")
    result = _results.pop()
    ended: State[Any] = result if isinstance(result, State) else Completed(data=result)
    note_end(ended)
    return ended
