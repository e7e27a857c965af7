"""What the logs of a service complain of."""

from pathlib import Path

from unfreeze.tasks.service.health import errors_in

LOG = """\
17:00:01.000 | INFO    | prefect.server - started
17:01:10.099 | ERROR   | docket.dependencies - schedule_deployments(){schedule_deployments}
Traceback (most recent call last):
  File "scheduler.py", line 273, in schedule_deployments
sqlalchemy.exc.InvalidRequestError: Can't evaluate bulk DML statement
17:02:10.099 | WARNING | prefect.server - slow
"""


def test_errors_are_counted_and_the_latest_is_shown_with_its_exception(tmp_path: Path) -> None:
    log = tmp_path / "prefect.log"
    log.write_text(LOG)
    count, latest = errors_in(log)
    assert count == 1
    assert "schedule_deployments" in latest
    assert latest.endswith("InvalidRequestError: Can't evaluate bulk DML statement")
    with log.open("a") as file:
        file.write("17:03:00.000 | CRITICAL | prefect.server - out of files\n")
    assert errors_in(log) == (2, "prefect.server - out of files")


def test_what_an_earlier_service_wrote_into_the_log_does_not_count(tmp_path: Path) -> None:
    log = tmp_path / "prefect.log"
    log.write_text(LOG)
    assert errors_in(log, begins=len(LOG)) == (0, "")


def test_a_log_that_is_not_there_has_no_errors(tmp_path: Path) -> None:
    assert errors_in(tmp_path / "missing.log") == (0, "")
