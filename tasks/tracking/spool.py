"""What a run has logged and MLflow does not have yet: a durable log in the data folder, one for each run."""

import json
import os
import shutil
import sqlite3
import threading
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from unfreeze.tasks.machine.environment import home, make_home

FILES, LOG = "files", "log.db"
CHECKPOINT, METRICS = "checkpoint", "metrics"
CHILD = "child"
"""In the body of an operation on a run that is part of the spool's: its key, see `unfreeze.tasks.tracking.children`."""

Entry = tuple[str, dict[str, Any]]
"""Kind and body of an operation, see `unfreeze.tasks.tracking.operations`; a body's ``path`` is a file of the spool."""


class Operation(NamedTuple):
    """Something that is to be done to a run in MLflow."""

    number: int
    kind: str
    body: dict[str, Any]

    @property
    def size(self) -> int:
        """Bytes of its files."""
        if "path" not in self.body:
            return 0
        path = Path(self.body["path"])
        return sum(each.stat().st_size for each in (path, *path.rglob("*")) if each.is_file())


def folder_of(name: str) -> Path:
    """The folder of a spool."""
    return home() / "spool" / name


def own_name(run_id: str) -> str:
    """A name for this process's spool of a run that several processes have at a time."""
    return f"{run_id}.{uuid.uuid4().hex[:12]}"


def run_of(name: str) -> str:
    """The run whose spool has that name."""
    return name.partition(".")[0]


def spools() -> list[str]:
    """Names of the spools of this data folder in which something waits."""
    return sorted(path.parent.name for path in (home() / "spool").glob(f"*/{LOG}"))


def spools_of(run_id: str) -> list[str]:
    """Those of one run."""
    return [name for name in spools() if run_of(name) == run_id]


def waiting_in(name: str) -> int:
    """How many operations wait in a spool, whichever process it belongs to."""
    try:
        with closing(sqlite3.connect(f"file:{folder_of(name) / LOG}?mode=ro", uri=True, timeout=5)) as database:
            return int(database.execute("SELECT COUNT(*) FROM operations").fetchone()[0])
    except sqlite3.Error:  # it was delivered meanwhile
        return 0


def lock_of(name: str) -> FileLock:
    """The lock of the process that has a spool, or delivers what that one left."""
    folder = make_home() / "locks"
    folder.mkdir(exist_ok=True)
    return FileLock(folder / f"{name}.lock", thread_local=False)


def attempt_of(name: str) -> FileLock:
    """The lock of an attempt at sending that goes on after its run has let go of the spool.

    SQLite waits for a database that is locked for longer than a run waits for MLflow.
    """
    return lock_of(f"{name}.attempt")


class Spool:
    """The operations of a run that wait, in their order; any thread may use it, but only one process at a time.

    What `add` has returned for survives a kill and a loss of power. Several entries of one call are kept all or none.

    Parameters
    ----------
    name
        The id of the MLflow run; with a dot and something more for one that several processes have at a time.
    """

    def __init__(self, name: str) -> None:
        self.folder = folder_of(name)
        make_home()
        (self.folder / FILES).mkdir(parents=True, exist_ok=True)
        self._lock, self._under_way = threading.RLock(), 0
        self._database = sqlite3.connect(self.folder / LOG, timeout=30, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS operations (number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, "
            "body TEXT NOT NULL, refused TEXT)"
        )
        self._database.execute("CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)")

    def place(self, name: str) -> Path:
        """Where a file of that name is to be written before an entry of `add` names it."""
        folder = self.folder / FILES / uuid.uuid4().hex
        folder.mkdir()
        return folder / name

    def add(self, entries: Sequence[Entry]) -> None:
        """Append operations, once their files are on the disk.

        A checkpoint takes the place of one that waits, if nothing but metrics was logged since.
        """
        for _, body in entries:
            if "path" in body:
                _sync(Path(body["path"]))
        with self._lock:
            replaced: list[str] = []  # files
            self._database.execute("BEGIN IMMEDIATE")
            try:
                for kind, body in entries:
                    text = self._written(body)
                    earlier = self._superseded(body) if kind == CHECKPOINT and body.get("name") is None else None
                    if earlier is None:
                        self._database.execute("INSERT INTO operations (kind, body) VALUES (?, ?)", (kind, text))
                    else:
                        self._database.execute(
                            "UPDATE operations SET body = ? WHERE number = ?", (text, earlier.number)
                        )
                        replaced.append(earlier.body["path"])
                self._database.execute("COMMIT")
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
        for path in replaced:
            _discard(path)

    def _superseded(self, new: Mapping[str, Any]) -> Operation | None:
        """The checkpoint that a new one replaces: the latest, unless it is being sent or a step was done since."""
        rows = self._database.execute("SELECT number, kind, body FROM operations ORDER BY number DESC")
        for number, kind, text in rows:
            if kind == METRICS:
                continue
            body = self._read(text)
            is_alike = kind == CHECKPOINT and body.get("name") is None and body.get(CHILD) == new.get(CHILD)
            return Operation(number, kind, body) if is_alike and number != self._under_way else None
        return None

    def _written(self, body: dict[str, Any]) -> str:
        """A body as it is kept: its path is relative, because the data folder may be moved."""
        relative = {"path": str(Path(body["path"]).relative_to(self.folder))} if "path" in body else {}
        return json.dumps({**body, **relative})

    def _read(self, text: str) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(text)
        return {**body, "path": str(self.folder / body["path"])} if "path" in body else body

    def first(self) -> Operation | None:
        """The operation that is next; it stays as it is until `done` or `postpone`."""
        with self._lock:
            row = self._database.execute(
                "SELECT number, kind, body FROM operations WHERE refused IS NULL ORDER BY number LIMIT 1"
            ).fetchone()
            self._under_way = row[0] if row else 0
        return Operation(row[0], row[1], self._read(row[2])) if row else None

    def postpone(self) -> None:
        """Nothing is being sent any more."""
        with self._lock:
            self._under_way = 0

    def done(self, operation: Operation) -> None:
        """Forget an operation that MLflow has."""
        with self._lock:
            self._database.execute("DELETE FROM operations WHERE number = ?", (operation.number,))
            self._under_way = 0
        if "path" in operation.body:
            _discard(operation.body["path"])

    def refuse(self, operation: Operation, reason: str) -> None:
        """Put an operation aside that MLflow will not take, so that it does not hold up the others."""
        with self._lock:
            self._database.execute("UPDATE operations SET refused = ? WHERE number = ?", (reason, operation.number))
            self._under_way = 0

    def retry_refused(self) -> None:
        """Let what was refused be sent again."""
        with self._lock:
            self._database.execute("UPDATE operations SET refused = NULL")

    def refused(self) -> list[str]:
        """Why operations were refused."""
        with self._lock:
            rows = self._database.execute("SELECT refused FROM operations WHERE refused IS NOT NULL ORDER BY number")
            return [str(row[0]) for row in rows]

    def waiting(self) -> int:
        """How many operations wait to be sent."""
        with self._lock:
            count = self._database.execute("SELECT COUNT(*) FROM operations WHERE refused IS NULL").fetchone()[0]
        return int(count)

    def kinds(self) -> list[str]:
        """Kinds of all operations that are kept, in their order."""
        with self._lock:
            return [str(row[0]) for row in self._database.execute("SELECT kind FROM operations ORDER BY number")]

    def keep_facts(self, facts: Mapping[str, str]) -> None:
        """Remember something about the run by name."""
        with self._lock:
            self._database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", list(facts.items()))

    def facts(self) -> dict[str, str]:
        """What `keep_facts` remembered."""
        with self._lock:
            return dict(self._database.execute("SELECT name, value FROM facts").fetchall())

    def close(self) -> None:
        """Close it; a spool in which nothing is left is removed."""
        with self._lock:
            is_empty = not self.kinds()
            self._database.close()
        if is_empty:
            shutil.rmtree(self.folder, ignore_errors=True)


def _sync(path: Path) -> None:
    """Wait until a file, or every file of a folder, is on the disk."""
    for each in (path, *(path.rglob("*") if path.is_dir() else ())):
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _discard(path: str) -> None:
    """Remove a file of the spool with the folder that `Spool.place` made for it."""
    shutil.rmtree(Path(path).parent, ignore_errors=True)
