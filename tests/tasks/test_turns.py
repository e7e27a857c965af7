"""One at a time, and the last of those that were missed, against a real Prefect API."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Completed, Crashed, Paused, Running, Scheduled

import unfreeze.tasks.retraining.watching
from unfreeze.models.settings.retrain import Retrain
from unfreeze.tasks.retraining.watching import NotNow, leave_to_later_run, require_turn

pytestmark = pytest.mark.usefixtures("prefect_api")

BIRDS = Retrain().model


@flow
def nightly(model: str) -> None:
    """Stands for a scheduled flow."""


def missed(hours: list[int], models: list[str]) -> list[FlowRun]:
    """Runs of a deployment's schedule that were due so many hours ago and have not begun."""
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow(nightly), name=f"missed {hours} {models}")
        return [
            client.create_flow_run_from_deployment(
                deployment,
                parameters={"model": model},
                state=Scheduled(scheduled_time=datetime.now(UTC) - timedelta(hours=ago)),
            ).model_copy(update={"auto_scheduled": True})
            for ago, model in zip(hours, models, strict=True)
        ]


def begin(run: FlowRun, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way = SimpleNamespace(get=lambda: SimpleNamespace(flow_run=run))
    monkeypatch.setattr(unfreeze.tasks.retraining.watching, "FlowRunContext", under_way)
    leave_to_later_run()


def test_of_several_that_were_missed_only_the_last_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, last = missed([3, 2, 1], ["birds"] * 3)
    for run in (first, second):
        with pytest.raises(NotNow, match="later run"):
            begin(run, monkeypatch)
    begin(last, monkeypatch)


def test_a_later_run_of_another_model_or_one_that_a_person_started_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    birds, cats = missed([2, 1], ["birds", "cats"])
    begin(birds, monkeypatch)
    first, _ = missed([2, 1], ["cats", "cats"])
    begin(first.model_copy(update={"auto_scheduled": False}), monkeypatch)
    begin(cats, monkeypatch)


@flow(name="retrain")
def retraining(params: dict[str, str]) -> None:
    """Stands for the flow."""


def begun(model: str = BIRDS) -> FlowRun:
    """A flow run that is under way."""
    with get_client(sync_client=True) as client:
        return client.create_flow_run(retraining, parameters={"params": {"model": model}}, state=Running())


def ask(run: FlowRun, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way = SimpleNamespace(get=lambda: SimpleNamespace(flow_run=run, flow=retraining))
    monkeypatch.setattr(unfreeze.tasks.retraining.watching, "FlowRunContext", under_way)
    require_turn(BIRDS)


def change(run: FlowRun, state: State[None]) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, state, force=True)


@pytest.mark.parametrize("end", [Completed(), Crashed()])
def test_of_several_retrainings_of_a_model_the_first_is_under_way_until_it_ends_or_dies(
    end: State[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = begun(), begun()
    ask(first, monkeypatch)
    with pytest.raises(NotNow, match=f"another retraining of {BIRDS} is under way: flow run {first.name}, {first.id}"):
        ask(second, monkeypatch)
    change(first, end)
    ask(second, monkeypatch)
    change(second, Completed())


def test_a_retraining_that_waits_for_a_person_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    first = begun()
    change(first, Paused(timeout_seconds=600))
    second = begun()
    with pytest.raises(NotNow, match=str(first.id)):
        ask(second, monkeypatch)
    change(first, Completed())
    change(second, Completed())


def test_a_retraining_of_another_model_is_no_reason_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    other, run = begun("cats"), begun()
    ask(run, monkeypatch)
    change(other, Completed())
    change(run, Completed())
