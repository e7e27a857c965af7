"""A run as a folder in the data folder, the source of truth that `publish` copies to MLflow.

===================  ==================================================================================================
``lock``             held by the process that trains the run, or by each process of a sweep
``log.jsonl``        append-only, fsynced; a line is a checksum and a commit, written whole or not at all
``artifacts/``       files, under their names in MLflow
``checkpoints/``     the latest two, and the named ones
``model/``           the final model, in MLflow's format
``parts/KEY/``       child runs: a sweep's trials
``published.json``   MLflow's id of the run, and what was published
===================  ==================================================================================================

A commit is a JSON object with any of these keys: ``begin``, ``tags``, ``rows`` (metrics), ``checkpoint``, ``dropped``,
``data``, ``model``, ``decision``, ``state``. Metrics are committed with the checkpoint that follows them, so a
resumed run has each step once.
"""

import fcntl
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import xxhash

from unfreeze.models.errors import UserError
from unfreeze.models.store.sealed_files import flush_to_disk
from unfreeze.tasks.machine.environment import home, make_home
from unfreeze.tasks.machine.locks import hold, holding, release
from unfreeze.tasks.machine.notices import log_notice
from unfreeze.tasks.machine.processes import this_process

LOG, PUBLISHED, LOCK, PARTS = "log.jsonl", "published.json", "lock", "parts"
ARTIFACTS, CHECKPOINTS, MODEL = "artifacts", "checkpoints", "model"
OUTDATED = "outdated"
"""Folder beside the runs, for runs that another process resumed elsewhere."""
OWNER = ("unfreeze.host", "unfreeze.process")
KEPT_CHECKPOINTS = 2
SECONDS_TO_TAKE = 2.0
"""How long to wait for a lock: commands that look for killed runs hold it for a moment."""


class DamagedLogError(Exception):
    """A line of the log does not match its checksum."""


def _line(entries: Mapping[str, Any]) -> str:
    """A commit as a line: its checksum and JSON."""
    text = json.dumps(entries)
    return f"{xxhash.xxh3_64_hexdigest(text.encode())} {text}\n"


def _read(line: bytes) -> dict[str, Any]:
    seal, _, text = line.rstrip(b"\n").partition(b" ")
    if seal.decode(errors="replace") != xxhash.xxh3_64_hexdigest(text):
        raise DamagedLogError
    entries: dict[str, Any] = json.loads(text)
    return entries


def owner_of(tags: Mapping[str, str]) -> tuple[str | None, ...]:
    """Host and process that have a run, by its tags."""
    return tuple(tags.get(name) for name in OWNER)


class RunFolder:
    """One run's folder; the attributes reflect its log up to this process's last commit.

    Attributes
    ----------
    about
        ``experiment``, ``name``, ``params`` (pairs), ``time``, ``shared`` (by several processes).
    tags, known
        Tags; metric -> its latest step and value.
    checkpoints
        File names, the latest last.
    state, ended
        ``RUNNING``, ``FINISHED``, ``FAILED`` or ``KILLED``; end time in milliseconds since 1970.
    owners
        Every process that has had the run.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.key = path, path.name
        self.about: dict[str, Any] = {}
        self.tags: dict[str, str] = {}
        self.known: dict[str, tuple[int, float]] = {}
        self.checkpoints: list[str] = []
        self.state, self.ended = "RUNNING", 0
        self.owners: set[tuple[str | None, ...]] = set()
        self.size = 0
        """Bytes of the log read so far; whole lines only."""
        self.keeps_unwritten = False
        """Whether commits that do not fit on the disk wait in memory for the next one."""
        self.unwritten: list[dict[str, Any]] = []
        """Commits in memory only, which the next one writes too."""
        self._guard = threading.RLock()
        self.lock: int | None = None
        """Descriptor of the lock, if this process holds the run."""
        self.refresh()

    @property
    def owner(self) -> tuple[str | None, ...]:
        """Host and process that last started or resumed the run."""
        return owner_of(self.tags)

    @property
    def whole(self) -> Path:
        """The folder of the top-level run."""
        return self.path.parents[1] if self.path.parent.name == PARTS else self.path

    @property
    def shown_id(self) -> str:
        """MLflow's id of the run, or its key before MLflow has it."""
        return str(self.published().get("id", self.key))

    def refresh(self) -> "RunFolder":
        """Read commits of any process since the last read."""
        with self._guard:
            for commit, end in self.commits(self.size):
                self._apply(commit)
                self.size = end
        return self

    def commits(self, start: int = 0, end: int | None = None) -> Iterator[tuple[dict[str, Any], int]]:
        """Commits of the log from byte `start` to `end`, each with the byte at which it ends."""
        try:
            with (self.path / LOG).open("rb") as log:
                log.seek(start)
                for line in log:
                    start += len(line)
                    if not line.endswith(b"\n") or (end is not None and start > end):
                        return
                    yield _read(line), start
        except FileNotFoundError:
            return

    def commit(self, **entries: Any) -> None:
        """Append a commit durably; the files it names must already be on the disk.

        Without entries only unwritten commits are written.

        Raises
        ------
        OSError
            If the disk is full, unless `keeps_unwritten`.
        """
        with self._guard:
            self._apply(entries)
            self.unwritten += [entries] if entries else []
            if not self.unwritten:
                return
            try:
                self._append("".join(map(_line, self.unwritten)).encode())
            except OSError as error:
                if not self.keeps_unwritten:
                    raise
                if len(self.unwritten) == 1:
                    log_notice(f"{self.path} cannot be written ({error}); what the run logs waits in memory")
                return
            self.unwritten = []
            if "checkpoint" in entries or "dropped" in entries:  # not otherwise: another thread may be saving one
                for path in (self.path / CHECKPOINTS).glob("*"):
                    if path.name not in self.checkpoints:
                        path.unlink(missing_ok=True)

    def _append(self, lines: bytes) -> None:
        with (self.path / LOG).open("r+b", buffering=0) as log:
            fcntl.flock(log, fcntl.LOCK_EX)  # until closed
            whole = log.seek(0, os.SEEK_END)
            log.seek(max(0, whole - 1))
            if log.read(1) not in (b"", b"\n"):  # a process was killed in the middle of a line
                log.seek(0)
                whole = log.read().rfind(b"\n") + 1
            try:
                log.truncate(whole)
                log.seek(whole)
                while lines:
                    lines = lines[log.write(lines) :]
                os.fsync(log.fileno())
            except OSError:
                log.truncate(whole)
                raise

    def _apply(self, commit: Mapping[str, Any]) -> None:
        """Fold a commit into the attributes; idempotent."""
        self.about |= commit.get("begin", {})
        if tags := commit.get("tags"):
            self.tags |= tags
            if OWNER[1] in tags:
                self.owners.add(self.owner)
        for key, value, _, step in commit.get("rows", []):
            if step >= self.known.get(key, (step, 0))[0]:
                self.known[key] = (step, value)
        if (name := commit.get("checkpoint")) is not None:
            self.checkpoints = [*(each for each in self.checkpoints if each != name), name]
            unnamed = [each for each in self.checkpoints if is_unnamed(each)]
            self.checkpoints = [each for each in self.checkpoints if each not in unnamed[:-KEPT_CHECKPOINTS]]
        if "dropped" in commit:
            self.checkpoints = [each for each in self.checkpoints if each in commit["dropped"]["but"]]
        if "state" in commit:
            self.state, self.ended = commit["state"], commit.get("time", 0)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Write a file or folder below the run's folder atomically; yields a temporary path.

        It appears at the block's end, complete and on the disk, unless the block raises.
        """
        place = self.path / "new" / uuid.uuid4().hex
        place.mkdir(parents=True)
        target, written = self.path / name, place / Path(name).name
        try:
            yield written
            for each in (written, *written.rglob("*")):
                flush_to_disk(each)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(written, target)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def next_checkpoint(self) -> str:
        """File name of the next unnamed checkpoint."""
        numbers = [int(each[5:].partition(".")[0]) for each in self.checkpoints if is_unnamed(each)]
        return f"last-{max(numbers, default=0) + 1}.safetensors"

    def files(self) -> dict[str, Path]:
        """Name -> path of every artifact."""
        root = self.path / ARTIFACTS
        return {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}

    def parts(self) -> list["RunFolder"]:
        """Child runs of this one."""
        found = (opened(path) for path in sorted((self.path / PARTS).glob("*")))
        return [each for each in found if each is not None]

    def published(self) -> dict[str, Any]:
        """What MLflow has of the run, see `publish`; empty before the first publication."""
        try:
            return _read((self.path / PUBLISHED).read_bytes())
        except (OSError, DamagedLogError):
            return {}

    def keep_published(self, shown: Mapping[str, Any]) -> None:
        """Replace what `published` returns; losing it is harmless, since publishing may be repeated."""
        temporary = self.path / f"{PUBLISHED}.new"
        temporary.write_text(_line(shown))
        os.replace(temporary, self.path / PUBLISHED)


def is_unnamed(checkpoint: str) -> bool:
    """Whether a checkpoint is unnamed, to be replaced by the next but one."""
    return checkpoint.startswith("last-")


_folders: dict[Path, RunFolder] = {}
_ids: dict[str, Path] = {}
"""MLflow's id -> folder, for folders this process has read."""


def runs_folder() -> Path:
    """The folder of all runs."""
    return home() / "runs"


def opened(path: Path) -> RunFolder | None:
    """The run in a folder; None if there is none or its log is damaged, in which case MLflow's copy is used."""
    if not (path / LOG).exists():
        _folders.pop(path, None)
        return None
    try:
        if path not in _folders:
            _folders[path] = RunFolder(path)
        return _folders[path].refresh()
    except DamagedLogError:
        log_notice(f"warning: {path / LOG} is damaged; what MLflow has of the run is used")
        return None


def run_folders() -> list[RunFolder]:
    """Every top-level run of the data folder."""
    found = (opened(path) for path in sorted(runs_folder().glob("*")) if path.name != OUTDATED)
    return [each for each in found if each is not None]


def folder_of(run_id: str) -> RunFolder | None:
    """The folder of a run, by its key or MLflow's id; None if only MLflow has the run."""
    if not run_id.isalnum():
        return None
    root = runs_folder()
    # A known place first, since every line of a training's log asks.
    for path in chain([root / run_id, _ids.get(run_id, root)], root.glob(f"*/{PARTS}/{run_id}")):
        if (folder := opened(path)) is not None:
            return folder
    for path in chain(root.glob(f"*/{PUBLISHED}"), root.glob(f"*/{PARTS}/*/{PUBLISHED}")):
        if (folder := opened(path.parent)) is not None and folder.published().get("id") == run_id:
            _ids[run_id] = folder.path
            return folder
    return None


def new_folder(
    about: Mapping[str, Any],
    tags: Mapping[str, str],
    path: Path | None = None,
    commits: Iterable[Mapping[str, Any]] = (),
) -> RunFolder:
    """Create the folder of a run of this process, with further commits, and hold it until `let_go`."""
    make_home()
    path = path or runs_folder() / uuid.uuid4().hex
    lock = _hold(path, about, path.name, tags)
    begin = {"begin": {"time": int(time.time() * 1000), **about}, "tags": {**tags, **this_process()}}
    (path / f"{LOG}.new").write_text("".join(map(_line, [begin, *commits])))
    flush_to_disk(path / f"{LOG}.new")
    os.replace(path / f"{LOG}.new", path / LOG)
    folder = _folders[path] = RunFolder(path)
    folder.lock = lock
    return folder


def take(folder: RunFolder) -> None:
    """Hold a run's folder until `let_go`, unless `new_folder` holds it.

    Raises
    ------
    UserError
        If another process of this machine holds it.
    """
    folder.lock = _hold(folder.path, folder.about, folder.shown_id, folder.tags)


def _hold(path: Path, about: Mapping[str, Any], shown: str, tags: Mapping[str, str]) -> int:
    lock = hold(path / LOCK, bool(about.get("shared")), SECONDS_TO_TAKE)
    if lock is None:
        process = str(tags.get(OWNER[1])).partition(":")[0]
        raise UserError(f"run {shown} is being trained by process {process} of this machine; stop that one first")
    return lock


def let_go(folder: RunFolder) -> None:
    """Release a folder held by `take` or `new_folder`."""
    if folder.lock is not None:
        release(folder.lock)
        folder.lock = None


def end_if_gone(folder: RunFolder) -> bool:
    """Set a run marked as running to KILLED if no process holds it; returns whether none holds it."""
    with holding(folder.path / LOCK) as is_free:
        if is_free and folder.refresh().state == "RUNNING":
            folder.commit(state="KILLED", time=int(time.time() * 1000))
        return is_free


def remove(folder: RunFolder) -> None:
    """Remove a fully published folder, unless a process holds the run."""
    with holding(folder.path / LOCK) as is_free:
        if is_free:
            _folders.pop(folder.path, None)
            shutil.rmtree(folder.path, ignore_errors=True)


def set_aside(folder: RunFolder) -> Path:
    """Move away the folder of a run that another process resumed elsewhere; returns its new path."""
    aside = runs_folder() / OUTDATED / f"{folder.key}-{time.time_ns()}"
    aside.parent.mkdir(exist_ok=True)
    _folders.pop(folder.path, None)
    folder.path.rename(aside)
    return aside
