"""What a run logs while MLflow cannot take it, and that MLflow has it once in the end."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.flows.tiny import latest_checkpoint
from unfreeze.models.errors import UserError
from unfreeze.tasks import tracking
from unfreeze.tasks.tracking import children, delivery, syncing
from unfreeze.tasks.tracking.operations import perform
from unfreeze.tasks.tracking.spool import Spool, folder_of, spools
from unfreeze.tasks.tracking.syncing import close_stale_runs, require_delivered, sync

pytestmark = pytest.mark.usefixtures("home_with_store")


def start(name: str) -> str:
    return tracking.start_run("tests", name, {"seed": 1}, {"kind": "test"})


def history(run_id: str, key: str) -> list[tuple[int, float]]:
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    return [(metric.step, metric.value) for metric in client.get_metric_history(run_id, key)]


@contextmanager
def locked_store() -> Iterator[None]:
    """MLflow's database is held by another process, for good as far as anybody can tell."""
    database = sqlite3.connect(os.environ["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///"), isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        database.execute("ROLLBACK")
        database.close()


def metrics(*steps: int) -> tuple[str, dict[str, object]]:
    return "metrics", {"rows": [["train/loss", 1 / step, 1000 + step, step] for step in steps]}


@pytest.mark.slow
def test_what_was_kept_survives_a_kill_in_its_order() -> None:
    code = """
import os
from unfreeze.tasks.tracking.spool import Spool
spool = Spool("r")
path = spool.place("note.txt")
path.write_text("content")
spool.add([("tags", {"tags": {"a": "1"}}), ("file", {"path": str(path), "folder": None})])
spool.add([("end", {"status": "FINISHED", "time": 1})])
spool.first()
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    spool, found = Spool("r"), []
    while operation := spool.first():
        found.append((operation.kind, Path(operation.body["path"]).read_text() if "path" in operation.body else ""))
        spool.done(operation)
    assert found == [("tags", ""), ("file", "content"), ("end", "")]


def test_entries_of_one_call_are_kept_all_or_none() -> None:
    spool = Spool("r")
    with pytest.raises(TypeError):
        spool.add([metrics(1), ("tags", {"tags": object()})])
    assert spool.waiting() == 0


def test_a_checkpoint_that_waits_is_replaced_by_the_next_of_its_step_of_the_recipe() -> None:
    spool = Spool("r")

    def checkpoint(name: str | None = None) -> tuple[str, dict[str, object]]:
        path = spool.place("checkpoint")
        path.write_bytes(b"weights")
        return "checkpoint", {"path": str(path), "name": name}

    spool.add([checkpoint(), metrics(1)])
    spool.add([checkpoint(), metrics(2)])
    assert spool.kinds() == ["checkpoint", "metrics", "metrics"]
    spool.add([("tags", {"tags": {"unfreeze.stage.0": "{}"}})])
    spool.add([checkpoint()])
    spool.add([checkpoint("kept.safetensors")])
    spool.add([checkpoint()])
    assert spool.kinds() == ["checkpoint", "metrics", "metrics", "tags", "checkpoint", "checkpoint", "checkpoint"]
    assert len(list((spool.folder / "files").iterdir())) == 4


def test_a_spool_that_is_delivered_leaves_nothing_behind() -> None:
    run_id = start("run")
    with tracking.delivering(run_id):
        tracking.log_tags(run_id, {"a": "1"})
        tracking.log_text(run_id, "content", "folder/note.txt")
        assert tracking.tags_of(run_id)["a"] == "1"
        tracking.close_run(run_id, "FINISHED")
    assert not folder_of(run_id).exists()
    run, note = tracking.get_run(run_id), tracking.fetch(run_id, "folder/note.txt")
    assert (run.data.tags["a"], run.info.status) == ("1", "FINISHED")
    assert note is not None
    assert note.read_text() == "content"


def test_metrics_that_are_sent_again_are_in_the_store_once() -> None:
    run_id = start("run")
    for rows in (metrics(1, 2), metrics(1, 2), metrics(2, 3)):
        perform(run_id, *rows)
    assert history(run_id, "train/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]


def test_a_resumed_run_skips_the_steps_that_it_has() -> None:
    run_id = start("run")
    for last in (3, 5):
        with tracking.delivering(run_id), tracking.MetricLog(run_id, with_checkpoints=True) as log:
            for step in range(1, last + 1):
                log.log({"train/loss": 1 / step}, step)
            tracking.log_metrics(run_id, {"valid/loss": 0.25}, 3)
    assert history(run_id, "train/loss") == [(step, 1 / step) for step in range(1, 6)]
    assert history(run_id, "valid/loss") == [(3, 0.25)]


def test_metrics_are_kept_with_their_checkpoint_and_not_before() -> None:
    run_id = start("run")
    with tracking.delivering(run_id) as delivery, tracking.MetricLog(run_id, with_checkpoints=True) as log:
        log.log({"train/loss": 1.0}, 1)
        assert delivery.wait(30)
        assert history(run_id, "train/loss") == []
        tracking.save_checkpoint(run_id, lambda path: path.write_bytes(b"1"), None, log)
        assert delivery.wait(30)
        assert history(run_id, "train/loss") == [(1, 1.0)]
        tracking.save_checkpoint(run_id, lambda path: path.write_bytes(b"2"), None, log)
    latest = latest_checkpoint(run_id)
    assert latest is not None
    assert latest.read_bytes() == b"2"
    assert sorted(tracking.artifacts(run_id, "checkpoints")) == [
        "checkpoints/last-a.safetensors",
        "checkpoints/last-b.safetensors",
    ]


def test_a_locked_database_delays_nobody_who_logs_and_has_everything_once_it_is_free() -> None:
    run_id = start("run")
    with tracking.delivering(run_id) as delivery:
        with locked_store():
            began = time.monotonic()
            with tracking.MetricLog(run_id) as log:
                for step in range(1, 2000):
                    log.log({"train/loss": 1 / step}, step)
            tracking.log_text(run_id, "content", "note.txt")
            assert time.monotonic() - began < 3
            assert not delivery.wait(1)
        assert delivery.wait(60)
    assert history(run_id, "train/loss") == [(step, 1 / step) for step in range(1, 2000)]


def test_without_space_on_the_disk_metrics_wait_in_memory(capsys: pytest.CaptureFixture[str]) -> None:
    run_id = start("run")
    with tracking.delivering(run_id) as delivery:
        pages = delivery.spool._database.execute("PRAGMA page_count").fetchone()[0]
        delivery.spool._database.execute(f"PRAGMA max_page_count = {pages}")
        for start_at in (1, 1001):
            with tracking.MetricLog(run_id) as log:
                for step in range(start_at, start_at + 1000):
                    log.log({"train/loss": 1 / step}, step)
        assert capsys.readouterr().err.count("cannot be written") == 1
        delivery.spool._database.execute("PRAGMA max_page_count = 100000")
    assert history(run_id, "train/loss") == [(step, 1 / step) for step in range(1, 2001)]


def test_what_mlflow_refuses_does_not_hold_up_the_rest() -> None:
    run_id = start("run")
    with tracking.delivering(run_id):
        tracking.log_tags(run_id, {"x" * 300: "1"})
        tracking.log_tags(run_id, {"good": "1"})
    assert tracking.get_run(run_id).data.tags["good"] == "1"
    (left,) = sync()
    assert (left.delivered, left.left) == (0, 1)
    assert "refused" in left.why


KILLED_WHILE_LOCKED = """
import os, sys
from unfreeze.tasks import tracking
run_id = tracking.start_run("tests", "killed", {}, {})
with tracking.delivering(run_id):
    print(run_id, flush=True)
    sys.stdin.readline()
    tracking.log_tags(run_id, {"late": "1"})
    if "finished" in sys.argv:
        tracking.close_run(run_id, "FINISHED")
    os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("way", "status"), [("killed", "KILLED"), ("finished", "FINISHED")])
def test_what_a_killed_process_left_is_delivered_by_the_next_and_its_run_ends_as_it_did(way: str, status: str) -> None:
    start("first")  # which makes the store
    pipe = subprocess.PIPE
    child = subprocess.Popen([sys.executable, "-c", KILLED_WHILE_LOCKED, way], stdin=pipe, stdout=pipe, text=True)
    assert child.stdout is not None
    run_id = child.stdout.readline().strip()
    with locked_store():
        child.communicate("go\n")
    assert child.returncode == -9
    assert spools() == [run_id]
    assert tracking.get_run(run_id).info.status == "RUNNING"
    close_stale_runs([tracking.experiment_id("tests")])
    run = tracking.get_run(run_id)
    assert (run.info.status, run.data.tags["late"]) == (status, "1")
    assert spools() == []


def trials_of(parent: str) -> list[Run]:
    experiments = [tracking.experiment_id("tests")]
    return list(tracking.client().search_runs(experiments, f"tags.`mlflow.parentRunId` = '{parent}'"))


def log_trial(parent: str) -> str:
    experiment = tracking.experiment_id("tests")
    with tracking.part_of_run(parent, experiment, "trial 0", {"lr": 0.1}, {"unfreeze.trial": "0"}) as key:
        tracking.log_spec(key, {"seed": 1})
        with tracking.MetricLog(key) as log:
            log.log({"valid/loss": 0.5}, 1)
        tracking.log_tags(key, {"unfreeze.rule": "none"})
        assert tracking.tags_of(key)["unfreeze.rule"] == "none"
        tracking.close_run(key, "FINISHED")
    return key


def test_a_part_of_a_run_is_made_and_logged_by_way_of_the_whole_one() -> None:
    parent = start("whole")
    with tracking.delivering_together(parent, is_first=True):
        key = log_trial(parent)
    assert spools() == []
    (run,) = trials_of(parent)
    assert (run.info.status, run.info.run_name, run.data.params) == ("FINISHED", "trial 0", {"lr": "0.1"})
    assert (run.data.tags["unfreeze.rule"], run.data.tags["unfreeze.key"]) == ("none", key)
    assert tracking.spec_of(run.info.run_id) == {"seed": 1}
    assert history(run.info.run_id, "valid/loss") == [(1, 0.5)]
    whole = tracking.get_run(parent)
    assert (whole.info.status, whole.data.metrics) == ("RUNNING", {})
    assert "unfreeze.rule" not in whole.data.tags


def test_a_part_whose_creation_is_sent_twice_is_there_once() -> None:
    parent = start("whole")
    about = {"experiment": tracking.experiment_id("tests"), "name": "trial 0", "params": [["lr", "0.1"]]}
    body = {**about, "child": "k", "tags": {}, "time": 1000}
    perform(parent, "begin", body)
    children._ids.clear()  # as in another process
    perform(parent, "begin", body)
    kind, rows = metrics(1)
    perform(parent, kind, {**rows, "child": "k"})
    assert [history(run.info.run_id, "train/loss") for run in trials_of(parent)] == [[(1, 1.0)]]


def test_two_processes_of_a_run_leave_a_spool_each_and_both_are_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "PATIENCE", 0.1)
    monkeypatch.setattr(delivery, "PATIENCE_WHEN_STOPPED", 0.1)
    parent = start("whole")
    for number in range(2):
        with locked_store(), tracking.delivering_together(parent, is_first=False):
            tracking.log_tags(parent, {f"process {number}": "1"})
    assert len(spools()) == 2
    assert [(each.run_id, each.left) for each in sync()] == [(parent, 0)] * 2
    assert {"process 0", "process 1"} <= tracking.tags_of(parent).keys()


def test_what_follows_a_run_within_a_block_goes_the_same_way() -> None:
    run_id = start("run")
    with tracking.staying_open():
        with tracking.held_run(run_id), tracking.delivering(run_id):
            tracking.close_run(run_id, "FINISHED")
        with locked_store():
            began = time.monotonic()
            tracking.log_tags(run_id, {"later": "1"})
            assert time.monotonic() - began < 3
        with pytest.raises(UserError, match="being trained"), tracking.held_run(run_id):
            pass
    assert tracking.tags_of(run_id)["later"] == "1"
    with tracking.held_run(run_id):
        assert spools() == []


@pytest.mark.slow
def test_an_outage_that_has_lasted_for_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "SECONDS_FOR_ONE_ATTEMPT", 0.1)
    run_id = start("run")
    with tracking.delivering(run_id) as delivered, locked_store():
        tracking.log_tags(run_id, {"a": "1"})
        latest = time.monotonic() + 100
        while delivered.trouble is None and time.monotonic() < latest:
            time.sleep(0.1)
        monkeypatch.setattr(delivered, "_since", time.monotonic() - 100)
        began = time.monotonic()
        assert not delivered.wait(50)
        assert time.monotonic() - began < 40
    assert tracking.tags_of(run_id)["a"] == "1"


def test_what_a_run_left_in_the_middle_of_an_attempt_is_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run_id, free, sent = start("a"), threading.Event(), list[str]()

    def counted(run_id: str, kind: str, body: dict[str, object]) -> dict[str, str]:
        if kind == "file":
            sent.append(threading.current_thread().name)
            assert free.wait(30)
        return perform(run_id, kind, body)

    for module in (delivery, syncing):
        monkeypatch.setattr(module, "perform", counted)
    monkeypatch.setattr(delivery, "PATIENCE", 0.1)
    with tracking.delivering(run_id):
        tracking.log_text(run_id, "content", "note.txt")
    threading.Timer(1, free.set).start()
    (done,) = sync()
    assert (done.left, done.why) == (0, "")
    assert sent == [f"delivery {run_id}"]


def test_a_run_is_not_resumed_while_its_newest_state_waits(home_with_store: Path) -> None:
    run_id = start("run")
    spool = Spool(run_id)
    spool.keep_facts({name: tracking.tags_of(run_id)[name] for name in ("unfreeze.host", "unfreeze.process")})
    spool.add([("tags", {"tags": {"late": "1"}})])
    (home_with_store / "mlflow.db").rename(home_with_store / "away.db")
    (home_with_store / "mlflow.db").mkdir()
    with pytest.raises(UserError, match="cannot be delivered"):
        require_delivered(run_id)
    (home_with_store / "mlflow.db").rmdir()
    (home_with_store / "away.db").rename(home_with_store / "mlflow.db")
    require_delivered(run_id)
    assert tracking.tags_of(run_id)["late"] == "1"


def test_what_waits_of_a_run_that_another_process_took_up_is_set_aside(home_with_store: Path) -> None:
    run_id = start("run")
    spool = Spool(run_id)
    spool.keep_facts({"unfreeze.host": "here", "unfreeze.process": "1:1"})
    spool.add([("tags", {"tags": {"late": "1"}})])
    (left,) = sync()
    assert "was resumed by process" in left.why
    assert "late" not in tracking.tags_of(run_id)
    assert len(list((home_with_store / "spool" / "outdated").iterdir())) == 1
    assert sync() == []
