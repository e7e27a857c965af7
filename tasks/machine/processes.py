"""Which process does something, said so that others can tell whether it still lives; and child processes of ours."""

import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[3]
"""The folder of our package, as this process imported it."""


def this_process() -> dict[str, str]:
    """Tags that name this machine and process; a process id alone would be used again."""
    process = psutil.Process()
    return {"unfreeze.host": socket.gethostname(), "unfreeze.process": f"{process.pid}:{process.create_time():.0f}"}


def is_gone(tags: Mapping[str, Any]) -> bool:
    """Whether the process that these tags name was of this machine and has ended."""
    if tags.get("unfreeze.host") != socket.gethostname():
        return False
    process = _process(tags)
    # A zombie has ended; its parent has only not asked yet.
    return process is None or process.status() == psutil.STATUS_ZOMBIE


def user_of(tags: Mapping[str, Any]) -> int | None:
    """Id of the user whose process these tags name; None if there is no such process on this machine."""
    process = _process(tags)
    try:
        return process.uids().real if process is not None else None
    except psutil.Error:
        return None


def _process(tags: Mapping[str, Any]) -> psutil.Process | None:
    pid, _, created = str(tags.get("unfreeze.process", "")).partition(":")
    try:
        process = psutil.Process(int(pid))
        return process if abs(process.create_time() - float(created)) < 2 else None
    except (psutil.NoSuchProcess, ValueError):
        return None


def own_module(name: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules, from the package that this process imported.

    ``python -m`` would look into the working folder first, and run whatever lies there under the same name.
    """
    code = f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); runpy.run_module({name!r}, None, '__main__', True)"
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
    try:
        return process.environ().get("UNFREEZE_HOME")
    except (psutil.Error, OSError):
        return None


def flow_runs_here(folder: Path) -> set[str]:
    """Ids of the Prefect flow runs whose processes run on this machine for a data folder."""
    found = set()
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            continue
        if "PREFECT__FLOW_RUN_ID" in environment and environment.get("UNFREEZE_HOME") == str(folder):
            found.add(environment["PREFECT__FLOW_RUN_ID"])
    return found
