"""Whatever a full disk or a damaged database leads to, the line about it says where it is and what to do."""

import errno
import itertools
import os
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest

from unfreeze.tasks.machine.storage import state_of_storage, storage_trouble, told_by, unreadable_database

GARBAGE = b"no database at all\n" * 1000


def raised(*errors: Exception) -> Exception:
    """The last of errors of which each led to the next."""
    for cause, error in itertools.pairwise(errors):
        error.__cause__ = cause
    return errors[-1]


@pytest.fixture
def databases(own_home: Path) -> Path:
    """A data folder whose databases are whole."""
    (own_home / "prefect").mkdir(parents=True)
    for name in ("mlflow.db", "prefect/prefect.db"):
        with sqlite3.connect(own_home / name) as database:
            database.execute("create table runs (id)")
        database.close()
    return own_home


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/cache/file"),
        raised(OSError(errno.EDQUOT, "Disk quota exceeded"), ValueError("no checkpoint")),
        raised(sqlite3.OperationalError("database or disk is full"), RuntimeError("500")),
        ExceptionGroup("several", [RuntimeError("I/O error: No space left on device (os error 28)")]),
    ],
)
def test_a_full_disk_is_told_by_whatever_it_led_to(own_home: Path, error: Exception) -> None:
    line = told_by(error)
    assert line is not None
    assert " is full; free some space there, or set UNFREEZE_HOME" in line
    assert ("/data/cache/file" in line) or (str(own_home) in line)


def test_a_database_that_finds_no_room_for_a_file_beside_it_tells_of_the_full_disk(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    own_home.mkdir()
    assert told_by(error) == f"a database in {own_home} cannot be read or written (disk i/o error); look at its disk"
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=0))
    assert str(told_by(error)).startswith(f"the disk of {own_home} is full")


def test_a_place_that_must_not_be_written_is_told_with_its_reason() -> None:
    line = told_by(OSError(errno.EROFS, os.strerror(errno.EROFS), "/data/mlflow.lock"))
    assert line == (
        "/data/mlflow.lock cannot be read or written (read-only file system); make it writable, or set UNFREEZE_HOME "
        "to another folder"
    )


def test_an_error_of_another_kind_is_no_trouble_with_the_storage(databases: Path) -> None:
    assert storage_trouble(ValueError("invalid literal")) is None


@pytest.mark.parametrize("name", ["mlflow.db", "prefect/prefect.db"])
def test_a_damaged_database_is_found_where_the_error_says_nothing(databases: Path, name: str) -> None:
    (databases / name).write_bytes(GARBAGE)
    line = storage_trouble(RuntimeError("Internal Server Error"))
    assert line is not None
    assert line.startswith(f"{databases / name} is damaged (file is not a database); ")
    assert unreadable_database(name) == line


def test_a_database_that_another_process_holds_is_in_use(databases: Path) -> None:
    holder = sqlite3.connect(databases / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    line = state_of_storage()
    assert line is not None
    assert line.startswith(f"{databases / 'mlflow.db'} is in use by another process (database is locked); run")
    assert unreadable_database("mlflow.db") is None
    holder.close()


def test_a_folder_without_databases_is_well(own_home: Path) -> None:
    assert state_of_storage() is None
    assert unreadable_database("mlflow.db") is None
