"""What a run's log says of errors and stops: once, and no crash where there is none."""

from datetime import UTC, datetime, timedelta

import pytest

from unfreeze.models.errors import UserError

pytestmark = pytest.mark.usefixtures("prefect_api", "home_with_store")


def test_bad_input_is_reported_once_though_a_step_and_its_flow_fail_of_it(log_lines: list[str]) -> None:
    from prefect import flow, task

    import unfreeze.flows.running  # noqa: F401  whose filters are tested

    @task
    def step() -> None:
        raise UserError("data.source: no such folder")

    def whole() -> None:
        step()

    with pytest.raises(UserError):
        flow(whole, name="fails")()
    assert log_lines.count("data.source: no such folder") == 1
    assert [line for line in log_lines if "Failed" in line] == []


def test_a_stop_is_no_crash(log_lines: list[str]) -> None:
    from prefect import task

    from unfreeze.flows.running import flow

    @task
    def step() -> None:
        stopped = KeyboardInterrupt()
        stopped.add_note("continue with: unfreeze resume 1")
        raise stopped

    def whole() -> None:
        step()

    state = flow("stops", "stops")(whole)(return_state=True)
    assert state.is_cancelled()
    assert [line for line in log_lines if "rash" in line] == []
    assert any("continue with: unfreeze resume 1" in line for line in log_lines)


def test_a_run_that_no_worker_has_begun_says_why_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL
    from prefect.states import Scheduled

    from unfreeze.tasks.service.overview import overview

    with get_client(sync_client=True) as client:
        due = datetime.now(UTC) - timedelta(minutes=1)
        client.create_flow_run(flow(lambda: None, name="waits"), name="queued", state=Scheduled(scheduled_time=due))
    monkeypatch.setenv("PREFECT_API_URL", PREFECT_API_URL.value())
    (row,) = [row for row in overview()["runs_in_flight"] if row["run"] == "queued"]
    assert row["state"].endswith(": waits: no worker is online")
