"""One at a time, and the last of those that were missed, against a real Prefect API."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Scheduled

import unfreeze.tasks.retraining.turns
from unfreeze.tasks.retraining.turns import NotNow, leave_to_later_run, turn

pytestmark = pytest.mark.usefixtures("prefect_api")


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
    monkeypatch.setattr(unfreeze.tasks.retraining.turns, "FlowRunContext", under_way)
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


def test_a_turn_is_held_by_one_and_free_again_even_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError), turn("retrain birds"):
        monkeypatch.setattr(unfreeze.tasks.retraining.turns, "WAIT_SECONDS", 3)
        with pytest.raises(NotNow, match="retrain birds is under way"), turn("retrain birds"):
            pass
        with turn("retrain cats"):
            pass
        raise ZeroDivisionError
    with turn("retrain birds"):
        pass
