"""Choice of device and number formats."""

import ctypes
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch

from unfreeze.models.errors import UserError


def pick_device(name: str) -> torch.device:
    """Pick a device by name; ``auto`` prefers CUDA, then MPS, then the CPU.

    Raises
    ------
    UserError
        If the named device is not on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device: {name!r} is not on this machine ({torch.cuda.device_count()} CUDA devices found)")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device: 'mps' is not on this machine")
    return device


@dataclass(frozen=True)
class Precision:
    """Number formats of one training.

    Training and inference differ on a CPU with AMX: bf16 doubles the speed of the frozen forward pass, but slows the
    backward pass of depthwise convolutions compared with fp32.
    """

    device_type: str
    training: torch.dtype
    inference: torch.dtype

    def autocast(self, training: bool) -> AbstractContextManager[Any]:
        """Autocast context for a forward pass, followed by a backward pass if `training`."""
        dtype = self.training if training else self.inference
        return nullcontext() if dtype == torch.float32 else torch.autocast(self.device_type, dtype)


def pick_precision(setting: Literal["auto", "bf16", "fp32"], device: torch.device) -> Precision:
    """Pick number formats for `device`; ``auto`` takes the faster ones on its hardware."""
    bf16, fp32 = torch.bfloat16, torch.float32
    if setting == "bf16":
        return Precision(device.type, bf16, bf16)
    if setting == "auto" and device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return Precision(device.type, bf16, bf16)
    if setting == "auto" and device.type == "cpu" and torch.cpu._is_amx_tile_supported():
        return Precision(device.type, fp32, bf16)
    return Precision(device.type, fp32, fp32)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of ``mallopt``, from glibc's ``malloc.h``."""


def ready_device(name: str) -> torch.device:
    """Pick a device with `pick_device` and, for the CPU, let the allocator reuse freed memory."""
    device = pick_device(name)
    if device.type == "cpu":
        reuse_freed_memory()
    return device


def reuse_freed_memory() -> bool:
    """Make glibc keep large freed blocks instead of returning them to the system; returns whether it succeeded.

    Every pass through a network frees and requests the same tens of megabytes. By default each block is mapped and
    unmapped, so all its pages fault again, which took half of a training step on a virtual machine. Other C libraries
    and systems are unaffected.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_MMAP_THRESHOLD, 2**30) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
