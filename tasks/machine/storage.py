"""Storage failures in one line: a full or read-only disk, a damaged or locked database, an impossible path."""

import os
import re
import shutil
import sqlite3
import traceback
from contextlib import closing
from pathlib import Path

from unfreeze.models.errors import one_line
from unfreeze.tasks.machine.environment import home

_FULL = re.compile("no space left on device|database or disk is full|disk quota exceeded", re.IGNORECASE)
_READ_ONLY = re.compile(
    "read-only file system|readonly database|permission denied|operation not permitted", re.IGNORECASE
)
_IMPOSSIBLE = re.compile("file name too long|too many levels of symbolic links", re.IGNORECASE)
_SQLITE_IO = re.compile("disk i/o error", re.IGNORECASE)
_PLACE = re.compile(r"""\[Errno \d+\] [^:\n]+: (['"])(.+?)\1""")
"""The file that an OSError names."""
_AGAIN = "run the same command again, or the `unfreeze resume` that it printed"
_WRITABLE = "make it writable, or set UNFREEZE_HOME to another folder"
_DATABASES = {
    "mlflow.db": "it holds all runs and models: put a copy of it back, or move it away to begin without them",
    "prefect/prefect.db": "it holds the pages of earlier flow runs: move it away, and Prefect begins a new one",
}
"""Database in the data folder -> remedy for damage."""
_SCARCE = 2 * 2**20
"""Free bytes below which a disk counts as full: a database that finds no space releases what it had taken."""


def storage_trouble(error: BaseException) -> str | None:
    """Problem, place and remedy if an error was caused by the storage, else None."""
    return told_by(error) or state_of_storage()


def told_by(error: BaseException) -> str | None:
    """The storage problem named by an error or its causes; None if there is no such."""
    said = "".join(traceback.format_exception(error, limit=0))  # also of causes and groups
    place = found[2] if (found := _PLACE.search(said)) else str(home())
    if _FULL.search(said):
        return _full(place)
    if reason := _READ_ONLY.search(said):
        return f"{place} cannot be read or written ({reason[0].lower()}); {_WRITABLE}"
    if reason := _IMPOSSIBLE.search(said):
        return f"{one_line(place)}: {reason[0].lower()}; give another path"
    if reason := _SQLITE_IO.search(said):  # also if there is no space for the file that its processes share
        unclear = f"a database in {home()} cannot be read or written ({reason[0].lower()}); look at its disk"
        return state_of_storage() or unclear
    return None


def state_of_storage() -> str | None:
    """Current problem of the data folder or its databases, and its remedy; None if they are sound."""
    folder = home()
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if shutil.disk_usage(there).free < _SCARCE:
        return _full(str(folder))
    if not os.access(there, os.W_OK):
        return f"{folder} cannot be written; {_WRITABLE}"
    for name, remedy in _DATABASES.items():
        if problem := _problem_of(folder / name):
            return f"{folder / name} {problem}; {remedy if 'damaged' in problem else _AGAIN}"
    return None


def unreadable_database(name: str) -> str | None:
    """Remedy for a file of the data folder that is no longer a valid database, found at once; None for any other."""
    database = home() / name
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=0)) as opened:
            opened.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:  # missing, or held by another process
        return None
    except sqlite3.DatabaseError as error:
        return f"{database} is damaged ({error}); {_DATABASES[name]}"
    return None


def _full(place: str) -> str:
    return (
        f"the disk of {place} is full; free some space there, or set UNFREEZE_HOME to a folder on another disk, and "
        f"{_AGAIN}"
    )


def _problem_of(database: Path) -> str | None:
    if not database.exists():
        return None
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True, timeout=1)) as opened:
            opened.execute("BEGIN IMMEDIATE")
            found = opened.execute("PRAGMA quick_check(1)").fetchone()[0]
            opened.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        return f"is in use by another process ({error})" if "locked" in str(error) else f"cannot be used ({error})"
    except sqlite3.DatabaseError as error:
        return f"is damaged ({error})"
    return None if found == "ok" else f"is damaged ({one_line(found)})"
