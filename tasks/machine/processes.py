"""Processes by machine, id and time of creation, so that others can tell whether one still lives; our own commands."""

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

SECONDS_TO_LOOK = 0.2
"""For which the use of the processors is measured."""
LEAST_TAKEN = 0.5
"""Processors that others use, from which on they are made room for."""
SPINS = "1000"
"""Of a waiting thread before it sleeps, a few microseconds; 0 would make trees slower, which wait often and shortly."""
ROOT = Path(__file__).parents[3]
"""The folder of our package, as this process imported it: a clone, or where packages are installed."""


def this_process() -> dict[str, str]:
    """Tags that name this machine and process."""
    return {"unfreeze.host": socket.gethostname(), "unfreeze.process": mark_of(psutil.Process())}


def mark_of(process: psutil.Process) -> str:
    """``ID:CREATED`` of a process; an id alone would be used again."""
    return f"{process.pid}:{process.create_time():.0f}"


def process_of(mark: Any) -> psutil.Process | None:
    """The process of this machine that `mark_of` named; None if it has ended or the mark is not valid."""
    pid, _, created = str(mark).partition(":")
    try:
        process = psutil.Process(int(pid))
        # A zombie has ended; its parent has only not asked yet.
        ended = abs(process.create_time() - float(created)) >= 2 or process.status() == psutil.STATUS_ZOMBIE
        return None if ended else process
    except (psutil.NoSuchProcess, ValueError):
        return None


def share_processors() -> None:
    """Let the threads of torch and LightGBM sleep while they wait for one another, if others use the processors.

    They spin by default: quickest if they are alone, but spinning takes the time that the thread they wait for needs.
    On two cores, one of them taken, small networks train 4 times faster for it and trees 3.5 times; on two free ones
    small networks would take half as long again. It has to be called before torch is imported; what a person has set
    stays.
    """
    if {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}.isdisjoint(os.environ):
        taken = psutil.cpu_percent(interval=SECONDS_TO_LOOK) / 100 * (psutil.cpu_count() or 1)
        if taken > LEAST_TAKEN:
            os.environ["GOMP_SPINCOUNT"] = SPINS


def is_gone(tags: Mapping[str, Any]) -> bool:
    """Whether the process that these tags name was of this machine and has ended."""
    return tags.get("unfreeze.host") == socket.gethostname() and process_of(tags.get("unfreeze.process")) is None


def own_module(name: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules, from the package that this process imported.

    ``python -m`` would look into the working folder first, and run whatever lies there under the same name.
    """
    path = f"{str(ROOT)!r} in sys.path or sys.path.insert(0, {str(ROOT)!r})"
    code = f"import runpy, sys; {path}; runpy.run_module({name!r}, None, '__main__', True)"
    return [sys.executable, "-P", "-c", code, *arguments]


def listener(port: int) -> psutil.Process | None:
    """The process that listens on a TCP port of this machine; None if there is none that this user may see."""
    try:
        found = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
        pid = next((each.pid for each in found if each.laddr.port == port and each.pid is not None), None)
        return psutil.Process(pid) if pid is not None else None
    except psutil.Error:
        return None


def data_folder_of(process: psutil.Process) -> str | None:
    """The data folder that a process was started with; None if it is not of unfreeze or not this user's."""
    return _environment(process).get("UNFREEZE_HOME")


def flow_runs_here(folder: Path) -> set[str]:
    """Ids of the Prefect flow runs whose processes run on this machine for a data folder."""
    found = (_environment(process) for process in psutil.process_iter())
    return {
        variables["PREFECT__FLOW_RUN_ID"]
        for variables in found
        if "PREFECT__FLOW_RUN_ID" in variables and variables.get("UNFREEZE_HOME") == str(folder)
    }


def _environment(process: psutil.Process) -> dict[str, str]:
    """The variables of a process; none where this user may not see them."""
    try:
        return dict(process.environ())
    except (psutil.Error, OSError):
        return {}
