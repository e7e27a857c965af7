"""One retraining of a model at a time, and none for every time that was missed."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.concurrency.sync import concurrency
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectAlreadyExists

WAIT_SECONDS = 15
"""How long to ask for a turn: a busy server takes seconds to answer, and a free turn must not pass for a held one."""
LEASE_SECONDS = 60
"""A retraining that died gives its turn back after so long; one that lives renews it."""


class NotNow(Exception):
    """There is a reason not to run, which is not an error."""


@contextmanager
def turn(name: str) -> Iterator[None]:
    """Hold the only turn of that name while the block runs.

    Raises
    ------
    NotNow
        If another flow run holds it.
    """
    limit = f"unfreeze: {name}"
    # Two that find none at the same moment both try to make it.
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.upsert_global_concurrency_limit_by_name(limit, 1)
    slot = concurrency(limit, timeout_seconds=WAIT_SECONDS, lease_duration=LEASE_SECONDS, strict=True)
    try:
        slot.__enter__()
    except TimeoutError:
        raise NotNow(f"another run of {name} is under way") from None
    try:
        yield
    finally:
        slot.__exit__(None, None, None)


def leave_to_later_run() -> None:
    """End a scheduled run for which a later one is due as well: of many that were missed, the last does the work.

    Raises
    ------
    NotNow
        If there is such a later run.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None or run.deployment_id is None or not run.auto_scheduled or run.expected_start_time is None:
        return
    past = FlowRunFilterExpectedStartTime(after_=run.expected_start_time, before_=datetime.now(UTC))
    scheduled = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
    with get_client(sync_client=True) as client:
        later = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=scheduled, expected_start_time=past),
            deployment_filter=DeploymentFilter.model_validate({"id": {"any_": [run.deployment_id]}}),
        )
    same = [each.expected_start_time for each in later if each.parameters == run.parameters]
    if any(due is not None and due > run.expected_start_time for due in same):
        raise NotNow("a later run of the same schedule is due as well; the last of them does the work")
