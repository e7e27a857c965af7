"""A disk that is full at any point, read-only, or holds a damaged database: one clear line, and then it goes on.

At most sizes Prefect's server is one for all, on another disk: with a server of its own a training takes ten times as
long. First trainings have their own on the disk.
"""

import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.deployments.service import PROJECT, own_environment, running_server
from tests.disks import Disk, small_disk, why_no_disks
from tests.flows.forked_commands import forking
from tests.flows.tiny import tiny_training

pytestmark = [pytest.mark.slow, pytest.mark.skipif(why_no_disks() is not None, reason=str(why_no_disks()))]

LARGE = 2**19
"""Kilobytes of a disk that is large enough."""
SIZES = 20
"""Between a disk that takes nothing more and one that is more than large enough."""
COLD = (16, 1024, 4096)
"""Kilobytes of disks on which databases are made, or cannot be."""
Ended = subprocess.CompletedProcess[str]


class Measured(NamedTuple):
    """An undisturbed training: its settings, what it came to, and kilobytes of the disk with and without databases."""

    config: Path
    metrics: dict[str, float]
    template: Path
    least: int
    most: int


Run = Callable[..., Ended]
"""Runs a command of `unfreeze` in the data folder of the disk."""


@pytest.fixture(scope="module")
def with_own_prefect(place: Path) -> Run:
    """Commands whose Prefect lies in the data folder, each as it is started in a terminal."""

    def run(*arguments: str) -> Ended:
        command = [sys.executable, "-m", "unfreeze.flows.cli", *arguments]
        environment = own_environment(place / "home")
        return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=600)

    return run


@pytest.fixture(scope="module")
def run(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Commands that share a Prefect server on another disk."""
    folder = tmp_path_factory.mktemp("prefect")
    environment = {**own_environment(place / "home"), "PREFECT_HOME": str(folder / "home")}
    with (
        running_server(folder, environment) as api,
        forking(folder, {**environment, "PREFECT_API_URL": api}) as forker,
    ):
        yield forker.run


def result_of(ended: Ended) -> dict[str, Any]:
    assert ended.returncode == 0, ended.stderr
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every disk is mounted: MLflow keeps absolute paths."""
    return tmp_path_factory.mktemp("disk") / "disk"


@pytest.fixture(scope="module")
def measured(stripes: Path, place: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp("settings")
    recipe = [
        {"name": "head", "precompute": True, "lr": 0.01, "cycles": 1},
        {"name": "full", "train": "all", "lr": 0.002, "ratio": 3, "cycles": 2, "fewest_errors": None},
    ]
    config, other = folder / "spec.json", folder / "other.json"
    config.write_text(tiny_training(stripes, recipe=recipe).model_dump_json())
    other.write_text(tiny_training(stripes, recipe=recipe[:1], seed=1).model_dump_json())
    template, home = folder / "template", place / "home"
    with small_disk(place, LARGE) as disk:
        result_of(run("train", "--config", str(other), "--json"))
        shutil.rmtree(home / "cache")
        shutil.copytree(home, template, symlinks=True)
        least = disk.used
        with watched(disk) as peak:
            metrics = result_of(run("train", "--config", str(config), "--json"))["metrics"]
        most = peak[0]
    return Measured(config, metrics, template, least, most)


class watched:  # noqa: N801
    """The most that a disk holds while the block runs, as the one number of a list."""

    def __init__(self, disk: Disk) -> None:
        self._disk, self._peak, self._ended = disk, [0], threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> list[int]:
        self._thread.start()
        return self._peak

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            self._peak[0] = max(self._peak[0], self._disk.used)


def assert_one_clear_line(ended: Ended, *words: str) -> None:
    assert ended.returncode in (1, 2), ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    said = [line for line in ended.stderr.splitlines() if line.startswith("unfreeze: ")]
    assert len(said) == 1, ended.stderr
    for word in words:
        assert word in said[0], ended.stderr


def again(run: Run, ended: Ended, config: Path) -> Ended:
    """What the command said to continue with, or the same command."""
    if "unfreeze resume " in ended.stderr:
        run_id = ended.stderr.split("unfreeze resume ")[1].split()[0].strip("`;,.)")
        return run("resume", run_id, "--json")
    return run("train", "--config", str(config), "--json")


def assert_right(run: Run, home: Path, ended: Ended, measured: Measured) -> None:
    """The metrics are those of the undisturbed training, and MLflow has all once."""
    result = result_of(ended)
    assert result["metrics"] == measured.metrics
    if list((home / "runs").glob("*/log.jsonl")):
        synced = run("sync")
        assert synced.returncode == 0, synced.stderr
    with closing(sqlite3.connect(home / "mlflow.db")) as store:

        def asked(question: str) -> list[Any]:
            return store.execute(question, [result["run_id"]]).fetchall()

        steps = [step for (step,) in asked("select step from metrics where run_uuid = ? and key = 'train/loss'")]
        assert sorted(steps) == list(range(1, len(steps) + 1))
        assert asked("select count(*) from model_versions where run_id = ?") == [(1,)]
        assert asked("select status from runs where run_uuid = ?") == [("FINISHED",)]


def train_on(disk: Disk, run: Run, home: Path, measured: Measured) -> None:
    """Train on a disk that may be too small, then on a larger one."""
    ended = run("train", "--config", str(measured.config), "--json")
    disk.resize(LARGE)
    if ended.returncode:
        assert_one_clear_line(ended, str(home), "full", "free some space")
        ended = again(run, ended, measured.config)
    assert_right(run, home, ended, measured)


@pytest.mark.parametrize("number", range(SIZES))
def test_a_training_whose_disk_is_full_at_any_point_ends_in_one_line_and_goes_on(
    measured: Measured, place: Path, run: Run, number: int
) -> None:
    with small_disk(place, LARGE) as disk:
        shutil.copytree(measured.template, place / "home", symlinks=True)
        disk.resize(disk.used + (measured.most - measured.least) * number // (SIZES - 2))
        train_on(disk, run, place / "home", measured)


@pytest.mark.parametrize("kilobytes", COLD)
def test_a_first_training_whose_disk_is_full_at_any_point_ends_in_one_line_and_goes_on(
    measured: Measured, place: Path, with_own_prefect: Run, kilobytes: int
) -> None:
    with small_disk(place, kilobytes) as disk:
        train_on(disk, with_own_prefect, place / "home", measured)


def test_a_data_folder_on_a_read_only_disk_is_said(measured: Measured, place: Path, run: Run) -> None:
    with small_disk(place, LARGE) as disk:
        disk.lock()
        first = run("train", "--config", str(measured.config), "--json")
        assert_one_clear_line(first, str(place / "home"), "read-only", "UNFREEZE_HOME")
        disk.lock(read_only=False)
        shutil.copytree(measured.template, place / "home", symlinks=True)
        disk.lock()
        ended = run("train", "--config", str(measured.config), "--json")
        assert_one_clear_line(ended, str(place / "home"), "read-only", "UNFREEZE_HOME")
        disk.lock(read_only=False)
        assert_right(run, place / "home", again(run, ended, measured.config), measured)


@pytest.fixture
def home(measured: Measured, place: Path) -> Iterator[Path]:
    """A data folder with databases."""
    with small_disk(place, LARGE):
        shutil.copytree(measured.template, place / "home", symlinks=True)
        yield place / "home"


@pytest.mark.parametrize("damage", ["garbage", "half"])
def test_a_damaged_database_is_named_with_what_to_do(home: Path, measured: Measured, run: Run, damage: str) -> None:
    database, kept = home / "mlflow.db", home / "kept"
    shutil.copy(database, kept)
    content = database.read_bytes()
    database.write_bytes(b"no database at all\n" * 1000 if damage == "garbage" else content[: len(content) // 2])
    ended = run("train", "--config", str(measured.config), "--json")
    assert_one_clear_line(ended, f"{database} is damaged", "move it away")
    shutil.move(kept, database)
    assert_right(run, home, again(run, ended, measured.config), measured)


def test_a_damaged_database_of_prefect_is_named_and_can_be_moved_away(
    home: Path, measured: Measured, with_own_prefect: Run
) -> None:
    database = home / "prefect" / "prefect.db"
    database.parent.mkdir()
    database.write_bytes(b"no database at all\n" * 1000)
    ended = with_own_prefect("train", "--config", str(measured.config), "--json")
    assert_one_clear_line(ended, f"{database} is damaged", "move it away")
    database.unlink()
    assert_right(with_own_prefect, home, again(with_own_prefect, ended, measured.config), measured)


def test_a_training_begins_although_another_process_holds_the_database(
    home: Path, measured: Measured, run: Run
) -> None:
    with closing(sqlite3.connect(home / "mlflow.db", isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        ended = run("train", "--config", str(measured.config), "--json")
        database.execute("ROLLBACK")
    assert "MLflow at sqlite" in ended.stderr
    assert run("sync").returncode == 0
    assert result_of(ended)["metrics"] == measured.metrics
