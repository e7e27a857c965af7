"""Runs of dead processes come back by themselves; automations are kept up to date and stay as a person left them."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.automations import Automation, AutomationCore
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import State, StateType
from prefect.events import emit_event
from prefect.events.worker import EventsWorker
from prefect.states import Completed, Crashed, Pending, Running

from unfreeze.tasks.service.automations import apply_automations, automations

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_api")]


SILENT, UNSTARTED, CRASHED, NEW_DATA = automations(uuid4())


def shortened(automation: AutomationCore, seconds: float) -> AutomationCore:
    trigger = automation.trigger.model_copy(update={"within": timedelta(seconds=seconds)})
    return automation.model_copy(update={"trigger": trigger})


@pytest.fixture
def client(prefect_api: None) -> Iterator[SyncPrefectClient]:
    """A client of a server without automations."""
    with get_client(sync_client=True) as client:
        _remove_all(client)
        yield client
        _remove_all(client)


def _remove_all(client: SyncPrefectClient) -> None:
    for automation in on_server(client):
        client.delete_automation(UUID(automation["id"]))


def on_server(client: SyncPrefectClient) -> list[dict[str, Any]]:
    return list(client.request("POST", "/automations/filter", json={}).json())


def new_run(client: SyncPrefectClient, deployed: bool = True) -> UUID:
    flow = client.create_flow_from_name("any")
    if not deployed:
        answer = client.request("POST", "/flow_runs/", json={"flow_id": str(flow), "state": {"type": "PENDING"}})
        return UUID(answer.json()["id"])
    client.create_work_pool(WorkPoolCreate(name="pool", type="process"), overwrite=True)
    deployment = client.create_deployment(flow, "any", work_pool_name="pool")
    return client.create_flow_run_from_deployment(deployment).id


def crash(client: SyncPrefectClient, run: UUID) -> None:
    for state in (Pending(), Running(), Crashed()):
        client.set_flow_run_state(run, state, force=True)


def becomes(client: SyncPrefectClient, run: UUID, state: StateType, seconds: float = 30) -> State[Any]:
    deadline = time.monotonic() + seconds
    while client.read_flow_run(run).state_type != state:
        assert time.monotonic() < deadline, client.read_flow_run(run).state
        time.sleep(0.2)
    found = client.read_flow_run(run).state
    assert found is not None
    return found


def heartbeat(run: UUID) -> None:
    emit_event("prefect.flow-run.heartbeat", {"prefect.resource.id": f"prefect.flow-run.{run}"})
    EventsWorker.drain_all()


def test_automations_are_created_once_and_then_updated(client: SyncPrefectClient) -> None:
    apply_automations([SILENT, UNSTARTED, CRASHED])
    apply_automations([shortened(SILENT, 77), UNSTARTED, CRASHED])
    found = on_server(client)
    assert len(found) == 3
    assert sorted(float(each["trigger"]["within"]) for each in found) == [0, 77, 180]


def test_an_automation_that_was_paused_stays_paused(client: SyncPrefectClient) -> None:
    apply_automations([SILENT])
    Automation.read(name=SILENT.name).disable()  # type: ignore[attr-defined]  # a coroutine only where one waits for it
    apply_automations([shortened(SILENT, 50)])
    (found,) = on_server(client)
    assert (found["enabled"], float(found["trigger"]["within"])) == (False, 50)


def test_a_crashed_run_is_queued_again_until_it_crashed_as_often_as_allowed(client: SyncPrefectClient) -> None:
    apply_automations([CRASHED])
    run, by_hand = new_run(client), new_run(client, deployed=False)
    crash(client, by_hand)
    crash(client, run)
    for _ in range(2):
        assert becomes(client, run, StateType.SCHEDULED).name == "AwaitingRetry"
        crash(client, run)
    time.sleep(3)
    assert client.read_flow_run(run).state_type == StateType.CRASHED
    assert client.read_flow_run(by_hand).state_type == StateType.CRASHED, "nothing could run it"


def test_silent_runs_crash_and_unstarted_ones_are_queued_again_and_others_left_alone(client: SyncPrefectClient) -> None:
    apply_automations([shortened(SILENT, 10), shortened(UNSTARTED, 10)])
    silent, alive, done, claimed = (new_run(client) for _ in range(4))
    client.set_flow_run_state(claimed, Pending())
    for run in (silent, alive, done):
        client.set_flow_run_state(run, Pending())
        client.set_flow_run_state(run, Running())
        heartbeat(run)
    client.set_flow_run_state(done, Completed())
    deadline = time.monotonic() + 120
    while client.read_flow_run(silent).state_type != StateType.CRASHED:
        assert time.monotonic() < deadline, client.read_flow_run(silent).state
        time.sleep(2)
        heartbeat(alive)
    assert "No heartbeat for" in str(becomes(client, silent, StateType.CRASHED).message)
    assert becomes(client, claimed, StateType.SCHEDULED).name == "AwaitingRetry"
    assert client.read_flow_run(alive).state_type == StateType.RUNNING
    assert client.read_flow_run(done).state_type == StateType.COMPLETED
