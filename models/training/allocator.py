"""Memory that a CPU pass frees is kept for the next one."""

import ctypes
import sys

import torch

from unfreeze.models.training.precision import pick_device

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of ``mallopt``, from glibc's ``malloc.h``."""


def ready_device(name: str) -> torch.device:
    """The device of `precision.pick_device`, ready for many passes: on a CPU freed memory is kept."""
    device = pick_device(name)
    if device.type == "cpu":
        reuse_freed_memory()
    return device


def reuse_freed_memory() -> bool:
    """Let glibc keep large freed blocks instead of giving them back to the system; returns whether it could.

    A pass through a network frees and asks for the same tens of megabytes again and again. By default each block is
    mapped and unmapped, and every page of it faults in anew: on a virtual machine that was half of the time of a
    training step. Other C libraries and systems are left alone.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_MMAP_THRESHOLD, 2**30) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
