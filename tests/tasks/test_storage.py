"""A database of studies that another process has locked."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from unfreeze.models.errors import UserError
from unfreeze.models.settings import TrainImages
from unfreeze.models.settings.search import SweepSpec
from unfreeze.tasks.sweeps import storage
from unfreeze.tasks.sweeps.storage import named_trouble
from unfreeze.tasks.sweeps.study import counts, open_study, run_next

pytestmark = pytest.mark.usefixtures("own_home")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "studies.db", isolation_level=None, check_same_thread=False)
    yield connection
    connection.close()


def search(tmp_path: Path) -> SweepSpec:
    return SweepSpec(storage=f"sqlite:///{tmp_path / 'studies.db'}")


def test_a_locked_database_is_waited_for(tmp_path: Path, database: sqlite3.Connection) -> None:
    study = open_study("pets", search(tmp_path), TrainImages())
    database.execute("BEGIN EXCLUSIVE")
    threading.Timer(7, lambda: database.execute("ROLLBACK")).start()  # SQLAlchemy alone waits for 5 s
    assert run_next(study, 1, lambda trial: 1.0)
    assert counts(study)["complete"] == 1


def test_one_that_stays_locked_is_named_in_one_line(
    tmp_path: Path, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "SECONDS_TO_UNLOCK", 0.2)
    spec = search(tmp_path)
    study = open_study("pets", spec, TrainImages())
    database.execute("BEGIN EXCLUSIVE")
    named = rf"^storage {spec.storage}: database is locked$"
    with pytest.raises(UserError, match=named):
        open_study("pets", spec, TrainImages())
    with pytest.raises(UserError, match=named), named_trouble(spec.storage):
        run_next(study, 1, lambda trial: 1.0)
