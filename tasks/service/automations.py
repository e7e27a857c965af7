"""Automations that bring a flow run back whose worker, machine or process died; Prefect alone leaves it as it is."""

from collections.abc import Iterable
from datetime import timedelta

from prefect.automations import Automation, AutomationCore, EventTrigger, Posture, ResourceSpecification
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState

HEARTBEAT_SECONDS = 30
"""What ``PREFECT_FLOWS_HEARTBEAT_FREQUENCY`` has to be for workers; Prefect allows no less."""
SILENT_SECONDS = 120
"""A run that was not heard of for so long is dead: four heartbeats, so that three may get lost."""
WAITING_SECONDS = 180
"""A run that a worker claimed but did not start by then is given to another."""
MOST_ATTEMPTS = 3
"""A run that crashed this often stays Crashed: it is the cause."""

EVERY_FLOW_RUN = ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})
# Any news of the run will do; a heartbeat is news as well.
ANY_NEWS = {"prefect.flow-run.*"}


def zombie_automation(seconds: float = SILENT_SECONDS) -> Automation:
    """Mark a flow run as Crashed whose heartbeats stopped: its machine or its process died without a word."""
    return Automation(
        name="unfreeze: silent runs have crashed",
        description="Heartbeats come every 30 s (PREFECT_FLOWS_HEARTBEAT_FREQUENCY of the worker). Pause this while "
        "the Prefect server is down for longer than the silence that it allows.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect=ANY_NEWS,
            match=EVERY_FLOW_RUN,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=seconds),
        ),
        actions=[
            ChangeFlowRunState(state=StateType.CRASHED, message=f"No heartbeat for {seconds:.0f} s: its process died")
        ],
    )


def unstarted_automation(seconds: float = WAITING_SECONDS, pool_type: str = "process") -> Automation:
    """Queue a flow run again that a worker claimed and never started: it died in between, so no heartbeat ever came.

    Parameters
    ----------
    pool_type
        Type of the work pools it is for. On Kubernetes a run may well wait for a machine for longer.
    """
    return Automation(
        name="unfreeze: runs that were claimed but not started are queued again",
        description="A worker that dies between claiming a run and starting it leaves the run Pending.",
        trigger=EventTrigger(
            after={"prefect.flow-run.Pending", "prefect.flow-run.Submitting"},
            expect=ANY_NEWS,
            match=EVERY_FLOW_RUN,
            match_related=ResourceSpecification(
                {"prefect.resource.role": "work-pool", "prefect.work-pool.type": pool_type}
            ),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=seconds),
        ),
        actions=[_queue_again(f"Not started within {seconds:.0f} s: its worker died")],
    )


def reschedule_crashed_automation(attempts: int = MOST_ATTEMPTS) -> Automation:
    """Queue a crashed flow run again, for any worker; a training then continues from its last checkpoint.

    Parameters
    ----------
    attempts
        Starts after which it stays Crashed. A run that never started counts none and is not queued again: it would
        only fail to start once more.
    """
    return Automation(
        name="unfreeze: crashed runs are queued again",
        description=f"At most {attempts} attempts; a person's Retry on the page counts as one.",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Crashed"},
            match=ResourceSpecification(
                {
                    "prefect.resource.id": "prefect.flow-run.*",
                    "prefect.run-count": [str(count) for count in range(1, attempts)],
                }
            ),
            # A run without a deployment is a person's command, or part of another run.
            match_related=ResourceSpecification({"prefect.resource.role": "deployment"}),
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[_queue_again("Queued again after a crash")],
    )


def recovery_automations() -> list[Automation]:
    """All of them, with their usual times."""
    return [zombie_automation(), unstarted_automation(), reschedule_crashed_automation()]


def apply_automations(automations: Iterable[Automation]) -> None:
    """Create the automations on the server, or update those of the same name; one that was paused stays so."""
    with get_client(sync_client=True) as client:
        for automation in automations:
            wanted = AutomationCore(**automation.model_dump(exclude={"id", "owner_resource"}))
            known = client.read_automations_by_name(automation.name)
            if not known:
                client.create_automation(wanted)
            for found in known:
                client.update_automation(found.id, wanted.model_copy(update={"enabled": found.enabled}))


def _queue_again(message: str) -> ChangeFlowRunState:
    return ChangeFlowRunState(state=StateType.SCHEDULED, name="AwaitingRetry", message=message)
