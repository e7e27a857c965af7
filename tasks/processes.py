"""Which process does something, said so that others can tell whether it still lives."""

import socket

import psutil


def this_process() -> dict[str, str]:
    """Tags that name this machine and process; a process id alone would be used again."""
    process = psutil.Process()
    return {"unfreeze.host": socket.gethostname(), "unfreeze.process": f"{process.pid}:{process.create_time():.0f}"}


def is_gone(tags: dict[str, str]) -> bool:
    """Whether the process that these tags name was of this machine and has ended."""
    if tags.get("unfreeze.host") != socket.gethostname():
        return False
    pid, _, created = tags.get("unfreeze.process", "").partition(":")
    try:
        process = psutil.Process(int(pid))
        # A zombie has ended; its parent has only not asked yet.
        return process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - float(created)) >= 2
    except (psutil.NoSuchProcess, ValueError):
        return True
