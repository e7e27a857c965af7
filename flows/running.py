"""Flows, and how commands and notebooks run them: with a Prefect server, to a result that survives its loss."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

from unfreeze.models.errors import UserError
from unfreeze.tasks.machine.environment import make_home
from unfreeze.tasks.machine.flow_runs import HOOKS, end_gone_flow_runs, note_end
from unfreeze.tasks.machine.notices import log_notice
from unfreeze.tasks.machine.processes import share_processors
from unfreeze.tasks.machine.servers import require_prefect
from unfreeze.tasks.machine.storage import storage_trouble
from unfreeze.tasks.service.prefect_server import knows_a_server, start_embedded

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

_results: list[Any] = []
"""Result or final state of the flow that is ending in this process, if any yet."""
prefect_is_gone = False
"""Whether Prefect was unreachable when this process's latest flow ended."""


def flow(name: str, flow_run_name: str) -> Callable[[Callable[..., Any]], Any]:
    """Make a function a Prefect flow that Ctrl-C ends as Cancelled, with a message on how to continue."""
    from prefect import flow as prefect_flow
    from prefect.states import Cancelled

    def decorate(function: Callable[..., Any]) -> Any:
        @wraps(function)
        def run(*arguments: Any, **settings: Any) -> Any:
            _results.clear()
            try:
                result = function(*arguments, **settings)
            except KeyboardInterrupt as stopped:
                result = Cancelled(message="; ".join(["Stopped", *getattr(stopped, "__notes__", [])]))
            except BaseException:
                _results.clear()  # a subflow's
                raise
            _results[:] = [result]
            return result

        return prefect_flow(name=name, flow_run_name=flow_run_name, **HOOKS)(run)

    return decorate


@contextmanager
def prefect_starting() -> Iterator[None]:
    """Quiet the libraries, and start Prefect's embedded server while the block imports torch (seconds each).

    The block ends once the server answers, because a flow would not wait for a half-started one.
    """
    make_home()
    share_processors()
    # Progress bars suffice in a terminal, the steps' own lines elsewhere.
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING" if sys.stderr.isatty() else "INFO")
    os.environ.setdefault("PREFECT_LOGGING_SERVER_LEVEL", "ERROR")
    for noisy in ("alembic", "mlflow", "httpx", "timm", "huggingface_hub"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Prefect would report every line that it cannot send on stderr, between ours.
    logging.raiseExceptions = False
    # They log every attempt, the second with a traceback; we report outages.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    if knows_a_server():
        require_prefect()
        yield
        return
    wait_for_server = start_embedded()
    yield
    try:
        wait_for_server()
    except UserError as error:  # its log has the traceback, the disk the cause
        raise UserError(storage_trouble(error) or str(error)) from error


def state_of(flow: Callable[..., Any], *arguments: Any) -> "State[Any]":
    """Run a flow and return its final state, even if Prefect became unreachable before recording it."""
    from httpx import HTTPError
    from prefect.client.schemas.objects import State
    from prefect.exceptions import PrefectException
    from prefect.states import Completed

    from unfreeze.tasks.machine.interruption import heed_hangups

    global prefect_is_gone  # noqa: PLW0603
    _results.clear()
    prefect_is_gone = False
    heed_hangups()
    end_gone_flow_runs()
    try:
        state: State[Any] = flow(*arguments, return_state=True)
        error = state.result(raise_on_failure=False, _sync=True)  # type: ignore[call-overload]  # in a notebook too
    except (HTTPError, PrefectException) as gone:
        if not _results:
            raise
        error = gone
    if not _results or not isinstance(error, HTTPError | PrefectException):
        return state
    prefect_is_gone = True
    log_notice(f"Prefect does not answer ({type(error).__name__}: {error}); its page does not show how the run ended")
    result = _results.pop()
    ended: State[Any] = result if isinstance(result, State) else Completed(data=result)
    note_end(ended)
    return ended
