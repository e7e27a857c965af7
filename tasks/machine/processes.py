"""Processes identified by machine, id and creation time, so others can tell whether one lives; our own commands."""

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

SECONDS_TO_LOOK = 0.2
"""Seconds over which processor use is measured."""
LEAST_TAKEN = 0.5
"""Number of processors used by others from which threads yield to them."""
SPINS = "1000"
"""Spins of a waiting thread before it sleeps, a few microseconds; 0 would slow down trees, whose waits are short."""
ROOT = Path(__file__).parents[3]
"""The folder of our package as imported by this process: a clone or site-packages."""


def this_process() -> dict[str, str]:
    """Tags that identify this machine and process."""
    return {"unfreeze.host": socket.gethostname(), "unfreeze.process": mark_of(psutil.Process())}


def mark_of(process: psutil.Process) -> str:
    """``ID:CREATED`` of a process, because ids are reused."""
    return f"{process.pid}:{process.create_time():.0f}"


def process_of(mark: Any) -> psutil.Process | None:
    """The process of this machine with that `mark_of`; None if it has ended or the mark is invalid."""
    pid, _, created = str(mark).partition(":")
    try:
        process = psutil.Process(int(pid))
        # A zombie has ended; its parent has not reaped it yet.
        ended = abs(process.create_time() - float(created)) >= 2 or process.status() == psutil.STATUS_ZOMBIE
        return None if ended else process
    except (psutil.NoSuchProcess, ValueError):
        return None


def share_processors() -> None:
    """Let waiting threads of torch and LightGBM sleep if others use the processors.

    They spin by default, which is fastest alone but takes time from the thread they wait for. On two cores with one
    taken, sleeping makes small networks train 4 times faster and trees 3.5 times; with both free, small networks would
    take half as long again. Call it before torch is imported; the user's own settings stay.
    """
    if {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}.isdisjoint(os.environ):
        taken = psutil.cpu_percent(interval=SECONDS_TO_LOOK) / 100 * (psutil.cpu_count() or 1)
        if taken > LEAST_TAKEN:
            os.environ["GOMP_SPINCOUNT"] = SPINS


def is_gone(tags: Mapping[str, Any]) -> bool:
    """Whether the process in these tags was on this machine and has ended."""
    return tags.get("unfreeze.host") == socket.gethostname() and process_of(tags.get("unfreeze.process")) is None


def own_module(name: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules from this process's own package.

    ``python -m`` would look in the working folder first, and run any module of the same name there.
    """
    path = f"{str(ROOT)!r} in sys.path or sys.path.insert(0, {str(ROOT)!r})"
    code = f"import runpy, sys; {path}; runpy.run_module({name!r}, None, '__main__', True)"
    return [sys.executable, "-P", "-c", code, *arguments]


def environment_of(process: psutil.Process) -> dict[str, str]:
    """The environment that a process was started with; empty if this user may not read it."""
    try:
        return dict(process.environ())
    except (psutil.Error, OSError):
        return {}
