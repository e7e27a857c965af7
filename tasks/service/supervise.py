"""Processes that belong together: started, restarted when they die, stopped without leaving one behind."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import psutil

from unfreeze.models.errors import UserError
from unfreeze.tasks.service.prefect_server import last_lines

SECONDS_TO_STOP = 15
"""A part that has not ended by then is killed."""
SOON = 20
"""A part that dies within this many seconds of its start has failed rather than been stopped."""
MOST_FAILURES = 3
"""Failed starts in a row after which it is not tried again."""


@dataclass
class Part:
    """One long-running process.

    Parameters
    ----------
    name
        For people and for the log file.
    command, environment, folder
        What to run, with which variables, where.
    log
        File that its output is appended to.
    answers
        Whether it can be used; asked until it is, and never failing.
    children_outlive_it
        Whether processes that it started continue when it dies: the flow runs of a worker do. Those of a server are
        stopped before it is started again, because they may hold its port.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    log: Path
    answers: Callable[[], bool]
    children_outlive_it: bool = False
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    failures: int = 0
    restarts: int = 0
    last_restart: str | None = None
    """When it was last started again, ISO 8601."""
    log_begins: int = 0
    """Bytes that the log had before this program started it."""
    _started: float = 0.0

    def start(self) -> None:
        """Start it; a Ctrl-C in the terminal reaches only this program, which stops its parts in order."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.process is None and self.log.exists():
            self.log_begins = self.log.stat().st_size
        self._started = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def is_running(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.poll() is None

    def wait_until_it_answers(self, seconds: float) -> None:
        """Wait for it.

        Raises
        ------
        UserError
            If it ends or does not answer in time; shows the end of its log.
        """
        deadline = time.monotonic() + seconds
        while not self.answers():
            if not self.is_running():
                raise UserError(f"{self.name} ended as it started; the end of {self.log}:\n{last_lines(self.log)}")
            if time.monotonic() > deadline:
                raise UserError(f"{self.name} does not answer after {seconds:.0f} s; see {self.log}")
            time.sleep(0.1)

    def restart_if_dead(self) -> bool:
        """Start it again if it has ended; whether it had.

        Raises
        ------
        UserError
            If it failed right after its start several times in a row.
        """
        if self.is_running():
            return False
        self.failures = self.failures + 1 if time.monotonic() - self._started < SOON else 1
        if self.failures > MOST_FAILURES:
            raise UserError(f"{self.name} keeps ending; the end of {self.log}:\n{last_lines(self.log)}")
        if not self.children_outlive_it:
            self._stop_orphans()
        self.start()
        self.restarts, self.last_restart = self.restarts + 1, now()
        return True

    def stop(self) -> None:
        """Stop it and every process that it started."""
        if self.process is not None:
            stop_process_tree(self.process.pid)
            self.process.wait()
            self._stop_orphans()

    def _stop_orphans(self) -> None:
        """Kill what is left of its process group; each part leads one of its own."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


def now() -> str:
    """The time of day for records, ISO 8601 with the time zone."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def stop_process_tree(pid: int) -> None:
    """Ask a process and all its descendants to end, and kill those that do not."""
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    _each(family[:1], psutil.Process.terminate)  # it stops its own children in its own way
    _, left = psutil.wait_procs(family, SECONDS_TO_STOP)
    _each(left, psutil.Process.terminate)
    _, left = psutil.wait_procs(left, 3)
    _each(left, psutil.Process.kill)
    psutil.wait_procs(left, 3)


def _each(processes: Iterable[psutil.Process], action: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        try:
            action(process)
        except psutil.NoSuchProcess:
            continue
