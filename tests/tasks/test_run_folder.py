"""A run's folder while MLflow is there, away, or comes back: nothing is lost, and MLflow has everything once."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.flows.tiny import latest_checkpoint
from unfreeze.models.errors import UserError
from unfreeze.tasks import tracking
from unfreeze.tasks.tracking import folder as folders, publish as publishes, publisher
from unfreeze.tasks.tracking.folder import RunFolder, folder_of, run_folders
from unfreeze.tasks.tracking.publish import pending, publish
from unfreeze.tasks.tracking.publisher import Publisher, publisher_of

pytestmark = pytest.mark.usefixtures("home_with_store")


@contextmanager
def under_way(run_id: str | None = None, shared: bool = False, kind: str = "test") -> Iterator[str]:
    """A run of this process, begun or resumed; yields its key."""
    if run_id is None:
        run = tracking.new_run("tests", "run", {"seed": 1}, {"unfreeze.kind": kind}, shared)
    else:
        run = tracking.resumed_run(run_id, {})
    with run as key:
        yield key


def run_of(key: str) -> RunFolder:
    found = folder_of(key)
    assert found is not None
    return found


def thread_of(key: str) -> Publisher:
    found = publisher_of(run_of(key))
    assert found is not None
    return found


def history(run_id: str, name: str) -> list[tuple[int, float]]:
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    return [(each.step, each.value) for each in client.get_metric_history(tracking.get_run(run_id).info.run_id, name)]


@contextmanager
def locked_store() -> Iterator[None]:
    """MLflow's database is held by another process."""
    database = sqlite3.connect(os.environ["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///"), isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        database.execute("ROLLBACK")
        database.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATIENCE", "PATIENCE_WHEN_STOPPED", "PATIENCE_AT_THE_START", "SECONDS_FOR_ONE_ATTEMPT"):
        monkeypatch.setattr(publisher, name, 0.2)


def test_a_finished_run_is_whole_in_mlflow_and_leaves_no_folder() -> None:
    with under_way() as key:
        tracking.log_tags(key, {"a": "1"})
        tracking.log_text(key, "content", "folder/note.txt")
        assert tracking.tags_of(key)["a"] == "1"
        run_id = tracking.ids_of(key)["run_id"]
        assert run_id is not None
    assert run_folders() == []
    run, note = tracking.get_run(key), tracking.fetch(key, "folder/note.txt")
    assert (run.info.run_id, run.data.tags["a"], run.info.status) == (run_id, "1", "FINISHED")
    assert run.data.params == {"seed": "1"}
    assert note is not None
    assert note.read_text() == "content"


@pytest.mark.slow
def test_commits_survive_a_kill_and_half_a_line_counts_for_nothing(home_with_store: Path) -> None:
    code = """
import os
from unfreeze.tasks.tracking.folder import new_folder
folder = new_folder({"experiment": "tests", "name": "killed", "params": []}, {"unfreeze.kind": "test"})
folder.commit(tags={"a": "1"}, rows=[["train/loss", 0.5, 1000, 1]])
with (folder.path / "log.jsonl").open("a") as log:
    log.write('{"tags": {"b": ')
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    (found,) = run_folders()
    assert (found.tags.get("a"), found.tags.get("b"), found.known) == ("1", None, {"train/loss": (1, 0.5)})
    found.commit(tags={"c": "1"})
    assert RunFolder(found.path).tags["c"] == "1"
    assert [(each.left, each.why) for each in tracking.sync()] == [(0, "")]
    assert tracking.get_run(found.key).info.status == "KILLED"


def test_a_damaged_log_is_replaced_by_what_mlflow_has(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), under_way() as key:
        tracking.log_tags(key, {"a": "1"})
        raise ZeroDivisionError
    log = run_of(key).path / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"a": "1"', b'"a": "3"'))
    folders._folders.clear()
    with under_way(key):
        assert tracking.tags_of(key)["a"] == "1"
    assert f"{log} is damaged" in capsys.readouterr().err


def test_publishing_again_changes_nothing() -> None:
    with under_way() as key:
        with tracking.MetricLog(key) as log:
            for step in (1, 2):
                log.log({"train/loss": 1 / step}, step)
        thread_of(key).wait(30)
        (run_of(key).path / "published.json").unlink()
        thread_of(key).poke()
    assert history(key, "train/loss") == [(1, 1.0), (2, 0.5)]
    experiments = [tracking.experiment_id("tests")]
    assert len(tracking.client().search_runs(experiments, f"tags.`unfreeze.key` = '{key}'")) == 1


@pytest.mark.parametrize("where", ["here", "on another machine"])
def test_a_resumed_run_has_each_step_once_and_its_latest_checkpoint(
    where: str, home_with_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = None
    for last in (3, 5):
        with pytest.raises(ZeroDivisionError), under_way(key) as key, tracking.MetricLog(key, True) as log:
            tracking.log_metrics(key, {"valid/loss": 0.25}, 3)
            for step in range(1, last + 1):
                log.log({"train/loss": 1 / step}, step)
            tracking.save_checkpoint(key, lambda path, last=last: path.write_text(f"at {last}"), None, log)
            raise ZeroDivisionError
        assert tracking.get_run(key).info.status == "FAILED"
        if where == "on another machine":
            shutil.rmtree(run_of(key).path)
            folders._folders.clear()
            monkeypatch.setattr("socket.gethostname", lambda: "another")
    with under_way(key):
        latest = latest_checkpoint(key)
        assert latest is not None
        assert latest.read_text() == "at 5"
        assert len(run_of(key).checkpoints) == 2
    assert history(key, "train/loss") == [(step, 1 / step) for step in range(1, 6)]
    assert history(key, "valid/loss") == [(3, 0.25)]


def test_metrics_are_committed_with_their_checkpoint_and_not_before() -> None:
    with under_way() as key, tracking.MetricLog(key, with_checkpoints=True) as log:
        log.log({"train/loss": 1.0}, 1)
        assert thread_of(key).wait(30)
        assert history(key, "train/loss") == []
        tracking.save_checkpoint(key, lambda path: path.write_bytes(b"1"), None, log)
        assert thread_of(key).wait(30)
        assert history(key, "train/loss") == [(1, 1.0)]
        tracking.save_checkpoint(key, lambda path: path.write_bytes(b"2"), None, log)
        tracking.save_checkpoint(key, lambda path: path.write_bytes(b"3"), "cycle-1.safetensors", log)
        assert thread_of(key).wait(30)
        run_id = tracking.get_run(key).info.run_id
        names = {each.path for each in tracking.client().list_artifacts(run_id, "checkpoints")}
        assert names >= {"checkpoints/last-a.safetensors", "checkpoints/cycle-1.safetensors"}
        assert tracking.get_run(key).data.tags["unfreeze.checkpoint"] == "checkpoints/cycle-1.safetensors"


def test_a_finished_training_has_no_checkpoints_left() -> None:
    with under_way(kind="train-images") as key:
        tracking.save_checkpoint(key, lambda path: path.write_bytes(b"1"))
        assert thread_of(key).wait(30)
        assert tracking.client().list_artifacts(tracking.get_run(key).info.run_id, "checkpoints")
    run = tracking.get_run(key)
    assert tracking.client().list_artifacts(run.info.run_id, "checkpoints") == []
    assert "unfreeze.checkpoint" not in run.data.tags


def test_params_are_sent_again_if_mlflow_goes_away_right_after_it_has_made_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log_batch, failed = MlflowClient.log_batch, []

    def away(client: MlflowClient, run_id: str, **batch: Any) -> None:
        if "params" in batch and not failed:
            failed.append(run_id)
            raise ConnectionError
        log_batch(client, run_id, **batch)

    monkeypatch.setattr(MlflowClient, "log_batch", away)
    with under_way() as key:
        pass
    run = tracking.get_run(key)
    assert failed == [run.info.run_id]
    assert run.data.params == {"seed": "1"}


def test_a_locked_database_delays_nobody_who_logs_and_has_everything_once_it_is_free() -> None:
    with under_way() as key:
        with locked_store():
            began = time.monotonic()
            with tracking.MetricLog(key) as log:
                for step in range(1, 2000):
                    log.log({"train/loss": 1 / step}, step)
            tracking.log_text(key, "content", "note.txt")
            assert time.monotonic() - began < 3
            assert not thread_of(key).wait(1)
        assert thread_of(key).wait(60)
    assert history(key, "train/loss") == [(step, 1 / step) for step in range(1, 2000)]


def test_a_run_begins_and_ends_without_mlflow_and_is_published_afterwards(
    impatient: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked_store():
        with under_way() as key:
            tracking.log_text(key, "content", "note.txt")
            assert tracking.ids_of(key) == {"run_id": key, "experiment_id": None}
        assert "`unfreeze sync` publishes them" in capsys.readouterr().err
        with pytest.raises(UserError, match="does not have run"):
            tracking.get_run(key)
    for thread in threading.enumerate():
        if thread.name.startswith("publisher"):
            thread.join(60)
    assert [(each.left, each.why) for each in tracking.sync()] == [(0, "")]
    assert tracking.sync() == []
    run = tracking.get_run(key)
    assert run.info.status == "FINISHED"
    assert tracking.get_run(run.info.run_id).data.tags["unfreeze.key"] == key
    assert tracking.artifacts(key) == ["code", "note.txt", "spec.json"]


def test_without_space_on_the_disk_commits_wait_in_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with under_way() as key:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            for start in (1, 1001):
                with tracking.MetricLog(key) as log:
                    for step in range(start, start + 1000):
                        log.log({"train/loss": 1 / step}, step)
        assert capsys.readouterr().err.count("cannot be written") == 1
        assert run_of(key).unwritten
    assert history(key, "train/loss") == [(step, 1 / step) for step in range(1, 2001)]


def test_what_mlflow_refuses_does_not_hold_up_the_rest() -> None:
    with under_way() as key:
        tracking.log_tags(key, {"x" * 300: "1", "good": "1"})
    assert tracking.get_run(key).data.tags["good"] == "1"
    (left,) = tracking.sync()
    assert left.left == 1
    assert "refused" in left.why


@pytest.mark.slow
@pytest.mark.parametrize(("way", "status"), [("killed", "KILLED"), ("finished", "FINISHED")])
def test_what_a_killed_process_left_is_published_by_the_next_and_its_run_ends_as_it_did(way: str, status: str) -> None:
    code = """
import os, sys
from unfreeze.tasks import tracking
with tracking.new_run("tests", "killed", {}, {"unfreeze.kind": "test"}) as key:
    print(key, flush=True)
    sys.stdin.readline()
    tracking.log_tags(key, {"late": "1"})
    if "finished" in sys.argv:
        tracking.close_run(key, "FINISHED")
    os.kill(os.getpid(), 9)
"""
    pipe = subprocess.PIPE
    child = subprocess.Popen([sys.executable, "-c", code, way], stdin=pipe, stdout=pipe, text=True)
    assert child.stdout is not None
    key = child.stdout.readline().strip()
    with pytest.raises(UserError, match=f"is being trained by process {child.pid} of this machine"), under_way(key):
        pass
    assert [each.why for each in tracking.sync() if each.left] in (
        [],
        ["its process is under way and publishes it"],
    )
    with locked_store():
        child.communicate("go\n")
    assert child.returncode == -9
    assert tracking.get_run(key).info.status == "RUNNING"
    tracking.sync()
    run = tracking.get_run(key)
    assert (run.info.status, run.data.tags["late"]) == (status, "1")


def trials_of(parent: str) -> list[Run]:
    experiments = [tracking.experiment_id("tests")]
    run_id = tracking.get_run(parent).info.run_id
    return list(tracking.client().search_runs(experiments, f"tags.`mlflow.parentRunId` = '{run_id}'"))


def test_a_part_of_a_run_is_published_with_it_and_its_weights_can_be_dropped() -> None:
    part = {"unfreeze.trial": "0"}
    with under_way(shared=True) as whole, tracking.part_of_run(whole, "trial 0", {"lr": 0.1}, part) as key:
        tracking.log_spec(key, {"seed": 1})
        with tracking.MetricLog(key) as log:
            log.log({"valid/loss": 0.5}, 1)
        tracking.save_checkpoint(key, lambda path: path.write_bytes(b"weights"))
        assert tracking.tags_of(key)["unfreeze.trial"] == "0"
        tracking.close_run(key, "FINISHED")
    assert run_folders() == []
    (run,) = trials_of(whole)
    assert (run.info.status, run.info.run_name, run.data.params) == ("FINISHED", "trial 0", {"lr": "0.1"})
    assert run.data.tags["unfreeze.key"] == key
    assert tracking.spec_of(key) == {"seed": 1}
    assert history(key, "valid/loss") == [(1, 0.5)]
    parent = tracking.get_run(whole)
    assert (parent.info.status, parent.data.metrics) == ("FINISHED", {})
    assert tracking.artifacts(key, "checkpoints")
    tracking.drop_weights(key)
    assert tracking.artifacts(key, "checkpoints") == []


def test_a_run_stays_open_until_the_end_of_the_block_around_it() -> None:
    with tracking.staying_open():
        with under_way() as key:
            pass
        with locked_store():
            began = time.monotonic()
            tracking.log_tags(key, {"later": "1"})
            assert time.monotonic() - began < 3
        with pytest.raises(UserError, match="being trained"), tracking.resumed_run(key, {}):
            pass
    assert tracking.get_run(key).data.tags["later"] == "1"
    assert run_folders() == []


def test_a_run_that_was_resumed_elsewhere_is_set_aside(home_with_store: Path) -> None:
    with pytest.raises(ZeroDivisionError), under_way() as key:
        raise ZeroDivisionError
    run_id = tracking.get_run(key).info.run_id
    for name, value in (("unfreeze.host", "elsewhere"), ("unfreeze.process", "1:1")):
        tracking.client().set_tag(run_id, name, value)
    run_of(key).commit(tags={"late": "1"})
    (left,) = tracking.sync()
    assert "was resumed by process 1:1 on elsewhere" in left.why
    assert "late" not in tracking.tags_of(key)
    assert len(list((home_with_store / "runs" / "outdated").iterdir())) == 1
    assert tracking.sync() == []


def test_an_attempt_that_a_run_left_behind_is_waited_for(monkeypatch: pytest.MonkeyPatch, impatient: None) -> None:
    free, sent = threading.Event(), list[str]()
    log_artifact = MlflowClient.log_artifact

    def slowly(*arguments: object) -> None:
        sent.append(threading.current_thread().name)
        assert free.wait(30)
        log_artifact(*arguments)

    monkeypatch.setattr(MlflowClient, "log_artifact", slowly)
    with under_way() as key:
        tracking.log_text(key, "content", "note.txt")
    threading.Timer(1, free.set).start()
    (done,) = tracking.sync()
    assert (done.left, done.why) == (0, "")
    assert tracking.artifacts(key) == ["code", "note.txt", "spec.json"]


def test_a_run_of_which_another_machine_was_just_heard_is_refused_but_not_to_the_next_attempt_of_its_flow_run() -> None:
    with pytest.raises(ZeroDivisionError), under_way() as key:
        tracking.log_tags(key, {"prefect.flow_run_id": "f"})
        raise ZeroDivisionError
    run_id = tracking.get_run(key).info.run_id
    shutil.rmtree(run_of(key).path)
    tracking.client().set_tag(run_id, "unfreeze.host", "elsewhere")
    tracking.client().update_run(run_id, status="RUNNING")
    other = {"prefect.flow_run_id": "another"}
    with pytest.raises(UserError, match="on elsewhere, which was heard of"), tracking.resumed_run(run_id, other):
        pass
    with tracking.resumed_run(run_id, {"prefect.flow_run_id": "f"}) as again:
        assert again == key


def test_pending_counts_what_mlflow_lacks(impatient: None) -> None:
    folder = folders.new_folder({"experiment": "tests", "name": "run", "params": []}, {"unfreeze.kind": "test"})
    tracking.log_text(folder.key, "content", "note.txt")
    assert pending(folder) == 2
    folders.let_go(folder)
    publish(folder)
    assert pending(folder) == 0
    assert publishes.refused(folder) == []
