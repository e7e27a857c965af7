"""One retraining of a model at a time, and none for every time that was missed."""

from datetime import UTC, datetime

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.context import FlowRunContext

from unfreeze.models.settings.retrain import Retrain
from unfreeze.tasks.retraining.training import name_of


class NotNow(Exception):
    """There is a reason not to run, which is not an error."""


def require_turn(model: str) -> None:
    """End this flow run if another one of its flow, for the same model, began before and has not ended.

    Prefect's own limits of concurrency count a process that died as long as their server does not know better, which
    is for ever if the server died with it; states of flow runs whose process is gone are set by whoever comes next.

    Raises
    ------
    NotNow
        If there is such a flow run.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow is None:
        return
    own = context.flow_run.id
    under_way = FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PAUSED, StateType.CANCELLING])
    with get_client(sync_client=True) as client:
        begun = _since(client.read_flow_run(own))
        others = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[context.flow.name])),
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=under_way)),
        )
    for other in others:
        # Of two that began at the same moment one goes on.
        if (_since(other), str(other.id)) < (begun, str(own)) and _model_of(other) == model:
            raise NotNow(f"another retraining of {model} is under way: flow run {other.name}, {other.id}")


def _since(run: FlowRun) -> datetime:
    """When a flow run came into its state, by the server's clock."""
    assert run.state is not None
    return run.state.timestamp


def _model_of(run: FlowRun) -> str | None:
    """The full name of the model that a flow run retrains; None if there is no such model any more."""
    try:
        return name_of(Retrain.model_validate(run.parameters.get("params") or {}))
    except ValueError:
        return None


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
