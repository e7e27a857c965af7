"""Automations that requeue flow runs whose worker, machine or process died, and start retrainings on new data."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, ChangeFlowRunState, RunDeployment

SILENT_SECONDS = 120
"""A run silent for this long is dead: four heartbeats, of which three may get lost."""
WAITING_SECONDS = 180
"""A run that a worker claimed but did not start in this time is given to another."""
MOST_ATTEMPTS = 3
"""A run that crashed this often stays Crashed, as it is the cause itself."""
NEW_DATA = "unfreeze.new-data"
"""Event of the sensor flow; its resource is `RESOURCE` and the model's name, its payload has the name as ``model``."""
RESOURCE = "unfreeze.model"

FLOW_RUNS = {"prefect.resource.id": "prefect.flow-run.*"}


def zombie_automation(seconds: float = SILENT_SECONDS) -> Automation:
    """Mark a flow run as Crashed when its heartbeats stop because its machine or process died."""
    return _automation(
        "unfreeze: silent runs have crashed",
        "Heartbeats come every 30 s (PREFECT_FLOWS_HEARTBEAT_FREQUENCY of the worker). Pause this while the Prefect "
        "server is down for longer than the silence that it allows.",
        ChangeFlowRunState(state=StateType.CRASHED, message=f"No heartbeat for {seconds:.0f} s: its process died"),
        silent_for=seconds,
        after={"prefect.flow-run.heartbeat"},
    )


def unstarted_automation(seconds: float = WAITING_SECONDS, pool_type: str = "process") -> Automation:
    """Requeue a flow run that a worker claimed and, having died, never started: no heartbeat ever came.

    Applies to work pools of one type, because on Kubernetes a run may wait longer for a machine.
    """
    return _automation(
        "unfreeze: runs that were claimed but not started are queued again",
        "A worker that dies between claiming a run and starting it leaves the run Pending.",
        _queue_again(f"Not started within {seconds:.0f} s: its worker died"),
        silent_for=seconds,
        after={"prefect.flow-run.Pending", "prefect.flow-run.Submitting"},
        match_related={"prefect.resource.role": "work-pool", "prefect.work-pool.type": pool_type},
    )


def reschedule_crashed_automation(attempts: int = MOST_ATTEMPTS) -> Automation:
    """Requeue a crashed flow run for any worker; a training then continues from its last checkpoint.

    After `attempts` it stays Crashed. A run that never started has no attempts and is not requeued, because it would
    fail to start again.
    """
    return _automation(
        "unfreeze: crashed runs are queued again",
        f"At most {attempts} attempts; a person's Retry on the page counts as one.",
        _queue_again("Queued again after a crash"),
        expect={"prefect.flow-run.Crashed"},
        match={**FLOW_RUNS, "prefect.run-count": [str(count) for count in range(1, attempts)]},
        # A run without a deployment is a user's command or a subflow.
        match_related={"prefect.resource.role": "deployment"},
    )


def new_data_automation(deployment_id: UUID) -> Automation:
    """Start a retraining whenever the sensor flow has found new data of a model."""
    return _automation(
        "unfreeze: new data start a retraining",
        "The flow `watch` emits the event; switch its schedule on to look every 15 minutes.",
        RunDeployment(deployment_id=deployment_id, parameters={"params": {"model": "{{ event.payload.model }}"}}),
        expect={NEW_DATA},
        match={"prefect.resource.id": f"{RESOURCE}.*"},
    )


def recovery_automations() -> list[Automation]:
    """All automations that recover flow runs, with their default times."""
    return [zombie_automation(), unstarted_automation(), reschedule_crashed_automation()]


def apply_automations(automations: Iterable[Automation]) -> None:
    """Create the automations on the server, or update those of the same name; paused ones stay paused."""
    with get_client(sync_client=True) as client:
        for automation in automations:
            wanted = AutomationCore(**automation.model_dump(exclude={"id", "owner_resource"}))
            known = client.read_automations_by_name(automation.name)
            if not known:
                client.create_automation(wanted)
            for found in known:
                client.update_automation(found.id, wanted.model_copy(update={"enabled": found.enabled}))


def _automation(
    name: str, description: str, action: ActionTypes, silent_for: float | None = None, **trigger: Any
) -> Automation:
    """Act on an event of a flow run, or after `silent_for` seconds without one (heartbeats are events)."""
    if silent_for is None:
        kind: dict[str, Any] = {"posture": Posture.Reactive, "within": timedelta(0)}
    else:
        within = timedelta(seconds=silent_for)
        kind = {"posture": Posture.Proactive, "within": within, "expect": {"prefect.flow-run.*"}, "match": FLOW_RUNS}
    settings = {"for_each": {"prefect.resource.id"}, "threshold": 1, **kind, **trigger}
    return Automation(
        name=name, description=description, trigger=EventTrigger.model_validate(settings), actions=[action]
    )


def _queue_again(message: str) -> ChangeFlowRunState:
    return ChangeFlowRunState(state=StateType.SCHEDULED, name="AwaitingRetry", message=message)
