"""What the data folder takes, and what of it is removed."""

from contextlib import suppress
from pathlib import Path

import pytest

from tests.flows.tiny import latest_checkpoint
from unfreeze.flows.cli import main
from unfreeze.models.store.sealed_files import publish
from unfreeze.models.store.workspace import Derived, Workspace
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.environment import home
from unfreeze.tasks.service.disk_use import Share, disk_use


def shares() -> dict[str, Share]:
    return {share.kind: share for share in disk_use()}


def cached(kind: str, name: str, size: int) -> Path:
    path = home() / "cache" / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name("new").write_bytes(bytes(size))
    publish(path.with_name("new"), path)
    return path


def run_with_checkpoints(kind: str, status: tracking.RunStatus) -> str:
    with suppress(ZeroDivisionError), tracking.new_run("tests", "run", {"seed": 1}, {"unfreeze.kind": kind}) as key:
        for _ in range(2):
            tracking.save_checkpoint(key, lambda path: path.write_bytes(bytes(1_000_000)))
            assert tracking.wait_until_published(key)
        if status != "FINISHED":
            raise ZeroDivisionError
    return key


def test_an_empty_folder_takes_nothing(own_home: Path) -> None:
    assert disk_use() == []
    assert main(["clean", "--yes"]) == 0


def test_caches_can_be_freed_by_kind_but_not_what_a_process_uses(own_home: Path) -> None:
    cached("images", "a.arrow", 3_000_000)
    cached("images", "b.arrow", 1_000_000)
    Workspace(home()).derive(
        "build", {"it": Derived("activations", "c")}, lambda wanted: wanted["it"].write_bytes(bytes(500_000)) and None
    )
    found = shares()
    assert (found["cache: images"].files, found["cache: images"].size) == (2, 4_000_000)
    assert found["cache: images"].freeable == 4_000_000
    assert (found["cache: activations"].size, found["cache: activations"].freeable) == (500_000, 0)


def test_rows_are_freed_with_their_lists(own_home: Path) -> None:
    rows, another = cached("images", "a.rows", 3_000_000), cached("images", "b.json", 1_000_000)
    left = rows.with_name(f"c.arrow.{'0' * 32}.partial")
    left.write_bytes(bytes(1000))
    found = shares()
    assert (found["cache: images"].files, found["cache: images"].freeable) == (2, 4_000_000)
    assert found["unfinished files"].freeable == 1000
    assert main(["clean", "--yes"]) == 0
    assert not any(path.exists() for path in (rows, another, left))


def test_nothing_is_removed_without_a_yes(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = cached("images", "a.arrow", 3_000_000)
    assert main(["clean"]) == 0
    assert path.exists()
    said = capsys.readouterr()
    assert "cache: images" in said.out
    assert "`unfreeze clean --yes` frees 3.0 MB" in said.err
    assert main(["clean", "--yes"]) == 0
    assert not path.exists()
    assert "freed 3.0 MB" in capsys.readouterr().err


def test_what_a_killed_process_left_is_removed(own_home: Path) -> None:
    left = home() / "cache" / "images" / f"a.arrow.{'0' * 32}.partial"
    left.parent.mkdir(parents=True)
    left.write_bytes(bytes(1000))
    assert shares()["unfinished files"].freeable == 1000
    main(["clean", "--yes"])
    assert not left.exists()


def test_checkpoints_of_a_stopped_run_and_of_a_trial_stay_those_of_a_finished_one_go(home_with_store: Path) -> None:
    finished = run_with_checkpoints("train-images", "FINISHED")
    stopped = run_with_checkpoints("train-images", "FAILED")
    trial = run_with_checkpoints("trial", "FINISHED")
    found = shares()
    assert (found["checkpoints"].size, found["checkpoints"].freeable) == (4_000_000, 0)
    assert found["runs under way or stopped"].size > 2_000_000
    assert latest_checkpoint(finished) is None
    for run_id in (stopped, trial):
        latest = latest_checkpoint(run_id)
        assert latest is not None
        assert latest.exists()
