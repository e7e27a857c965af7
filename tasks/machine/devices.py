"""Leases of GPUs: trainings, trials and predictions that run at the same time on this machine each take their own.

``devices/NAME`` in the data folder is locked by the process that uses the GPU of that name in ``CUDA_VISIBLE_DEVICES``;
the kernel releases it with the process.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from prefect import runtime

from unfreeze.tasks.machine.environment import home
from unfreeze.tasks.machine.locks import hold, holding, release
from unfreeze.tasks.machine.notices import log_notice

VISIBLE = "CUDA_VISIBLE_DEVICES"
_leased: list[str] = []
"""GPUs that this process has leased."""
_visible = os.environ.get(VISIBLE)
"""What the process started with."""


def visible_devices() -> list[str]:
    """Names of the GPUs that this process may use: indices or UUIDs."""
    listed = os.environ.get(VISIBLE)
    if listed is None:
        return [str(number) for number in range(torch.cuda.device_count())]
    return [name.strip() for name in listed.split(",") if name.strip()]


def lease_devices(device: str, count: int = 1) -> list[str]:
    """Reserve free GPUs until this process ends, and hide the others from CUDA; call it before CUDA is initialised.

    Without a choice nothing is reserved: on the CPU, on a named GPU such as ``cuda:1``, or if all GPUs are wanted. If
    too few are free, the process shares those of others, and a line says so.

    Parameters
    ----------
    device
        The spec's `device`.
    count
        Number of GPUs.

    Returns
    -------
    list of str
        Names of the GPUs.
    """
    if _leased or device not in ("auto", "cuda"):
        return _leased
    names = visible_devices()
    if len(names) <= count:
        return _leased
    what = runtime.flow_run.name or Path(sys.argv[0]).name
    locks: dict[str, int] = {}
    for name in names:
        if len(locks) < count and (lock := hold(_file(name))) is not None:
            locks[name] = lock
    if len(locks) < count:
        for lock in locks.values():
            release(lock)
        chosen = [names[(os.getpid() + number) % len(names)] for number in range(count)]
        log_notice(f"all {len(names)} GPUs are in use here; {what} shares GPU {', '.join(chosen)} with another process")
    else:
        chosen = list(locks)
        for name in chosen:
            _file(name).write_text(what)
    os.environ[VISIBLE] = ",".join(chosen)
    _leased.extend(chosen)
    return chosen


def environment_without_lease() -> dict[str, str]:
    """Environment for child processes that lease GPUs of their own."""
    own = {name: value for name, value in os.environ.items() if name != VISIBLE}
    return own if _visible is None else {**own, VISIBLE: _visible}


def leases() -> list[dict[str, Any]]:
    """GPUs in use by processes of this data folder: ``gpu`` and ``used by``."""
    found = []
    for path in sorted((home() / "devices").glob("*")):
        with holding(path) as is_free:
            if not is_free:
                found.append({"gpu": path.name, "used by": path.read_text()})
    return found


def _file(name: str) -> Path:
    return home() / "devices" / name.replace("/", "_")
