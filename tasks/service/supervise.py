"""Process groups that are restarted when they die, and stopped with all their children."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import psutil

from unfreeze.models.errors import UserError
from unfreeze.tasks.machine.environment import home

SECONDS_TO_STOP = 15
"""A part that has not ended after this time is killed."""
SOON = timedelta(seconds=20)
"""A part that dies within this time of its start counts as failed rather than stopped."""
MOST_FAILURES = 3
"""Consecutive failed starts after which a part is given up."""


@dataclass
class Part:
    """One long-running process, the leader of its own process group, with output appended to a log.

    Parameters
    ----------
    answers
        Whether it is ready; called until true, and never raises.
    children_outlive_it
        Whether its children continue when it dies, as a worker's flow runs do. A server's children are stopped before
        its restart, because they may hold its port.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    answers: Callable[[], bool]
    children_outlive_it: bool = False
    restarts: int = 0
    _failures: int = 0

    def __post_init__(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        """Start the part; a Ctrl-C in the terminal reaches only this program, which stops its parts in order."""
        self.started = datetime.now().astimezone()
        with self.log.open("ab") as log:
            self.process = psutil.Popen(
                self.command,
                cwd=home(),  # in the working folder a file might have the name of a module
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def restart_if_dead(self) -> bool:
        """Restart the part if it has ended, and return whether it had; `UserError` if it keeps failing to start."""
        if self.process.poll() is None:
            return False
        soon = datetime.now().astimezone() - self.started < SOON
        self._failures = self._failures + 1 if soon else 1
        if self._failures > MOST_FAILURES:
            raise UserError(f"{self.name} keeps ending; the end of {self.log}:\n{_last_lines(self.log)}")
        if not self.children_outlive_it:
            self._kill_group()
        self.start()
        self.restarts += 1
        return True

    def stop(self) -> None:
        """Stop the part and all its children."""
        stop_process_tree(self.process)
        self._kill_group()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def wait_for(name: str, process: psutil.Popen, answers: Callable[[], bool], log: Path, seconds: float) -> None:
    """Wait until a process answers; `UserError` with the end of its log if it ends or does not answer in time."""
    deadline = time.monotonic() + seconds
    while not answers():
        if process.poll() is not None:
            raise UserError(f"{name} ended as it started; the end of {log}:\n{_last_lines(log)}")
        if time.monotonic() > deadline:
            raise UserError(f"{name} does not answer after {seconds:.0f} s; see {log}")
        time.sleep(0.1)


def stop_process_tree(root: psutil.Process) -> None:
    """Ask a process, then its descendants, to end, and kill those that do not."""
    try:
        left = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    asked = [root]  # may stop its own children itself
    for action, seconds in ((signal.SIGTERM, SECONDS_TO_STOP), (signal.SIGTERM, 3), (signal.SIGKILL, 3)):
        for process in asked:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(action)
        _, left = psutil.wait_procs(left, seconds)
        asked = left


def _last_lines(log: Path, count: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
