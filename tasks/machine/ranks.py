"""Launch a training on several devices with torch elastic: one process per device, of which rank 0 drives the flow."""

import importlib
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, TypeVar, cast

import cloudpickle  # type: ignore[import-untyped]
import torch
from prefect.context import SyncClientContext, hydrated_context, serialize_context
from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from unfreeze.models.errors import UserError
from unfreeze.models.recipe.ranks import follow
from unfreeze.models.training import ranks
from unfreeze.tasks.machine.environment import home
from unfreeze.tasks.machine.interruption import own_signal_handlers, take_effect
from unfreeze.tasks.machine.page import wait_until_shown

Result = TypeVar("Result")

GRACE = 20
"""Seconds in which rank 0 finishes its batch and writes a checkpoint after a signal, while the others still answer."""


def devices_of(params: Any) -> int:
    """Number of ranks that a spec asks for.

    Raises
    ------
    UserError
        If this machine has fewer GPUs.
    """
    wanted, present = getattr(params, "devices", 1), torch.cuda.device_count()
    on_cpu = params.device == "cpu" or (params.device == "auto" and not present)
    if wanted == "auto":
        return 1 if on_cpu else max(present, 1)
    if wanted > 1 and params.device not in ("auto", "cuda", "cpu"):
        raise UserError(f"devices: {wanted} devices cannot all be {params.device!r}; set device to auto")
    if not on_cpu and wanted > max(present, 1):
        raise UserError(f"devices: {wanted} are wanted, but this machine has {present}; set devices to auto")
    return int(wanted)


def on_ranks(count: int, train: Callable[..., Result], *arguments: Any) -> Result:
    """Call `train` on rank 0 of `count` processes, while the others follow its recipe.

    Calls it here if there is only one rank, or if this process is rank 0 of a launcher such as torchrun.

    Raises
    ------
    UserError
        If a process was killed; whatever else `train` raises.
    """
    if ranks.wanted() > 1:
        with ranks.joined():
            return train(*arguments)
    if count == 1:
        return train(*arguments)
    for name in ("torch.distributed.elastic", "torch.multiprocessing.spawn"):  # one line below replaces theirs
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder, own_signal_handlers():
        outcome = Path(folder) / "outcome"
        config = LaunchConfig(
            1,
            1,
            count,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            max_restarts=0,
            start_method="spawn",
        )
        context = cloudpickle.dumps((_portable_context(), train, arguments))
        lost, stopped = "", 0
        try:
            elastic_launch(config, _be_rank)(outcome, context)
        except ChildFailedError as error:
            killed = [(number, each) for number, each in error.failures.items() if each.exitcode < 0]
            lost = ", ".join(f"process {number + 1} ({each.signal_name()})" for number, each in killed)
        except SignalException as error:
            stopped = int(error.sigval)
        result = cloudpickle.loads(outcome.read_bytes()) if outcome.exists() else None
    if lost and not isinstance(result, UserError):
        notes = "; ".join(getattr(result, "__notes__", [])) or "`unfreeze runs` shows how to resume it"
        raise UserError(f"the training ended, because {lost} of its {count} was killed; {notes}")
    if stopped:
        stop = result if isinstance(result, KeyboardInterrupt) else KeyboardInterrupt()
        if stopped != signal.SIGINT:
            take_effect(stopped, stop)
        raise stop
    if isinstance(result, BaseException):
        raise result
    return cast(Result, result)


def follow_first() -> None:
    """Follow rank 0's training, as a process that a launcher such as torchrun started beside it."""
    with ranks.joined():
        follow(home())


def _be_rank(outcome: Path, context: bytes) -> None:
    is_first = os.environ["RANK"] == "0"
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    signal.signal(signal.SIGTERM, signal.default_int_handler if is_first else _end_soon)
    if not is_first:
        signal.signal(signal.SIGINT, _end_soon)
    try:
        with ranks.joined():
            if not is_first:
                return follow(home())
            run_context, train, arguments = cloudpickle.loads(context)
            with _entered(run_context), SyncClientContext.get_or_create(), ExitStack() as shown:
                shown.callback(wait_until_shown)
                outcome.write_bytes(cloudpickle.dumps(train(*arguments)))
    except BaseException as error:
        if is_first:
            outcome.write_bytes(cloudpickle.dumps(error))
        elif not isinstance(error, RuntimeError) or isinstance(error, torch.OutOfMemoryError):
            print(f"unfreeze: process {os.environ['RANK']}: {type(error).__name__}: {error}", file=sys.stderr)
        logging.shutdown()
        os._exit(1)  # leaving the process group would wait for the others


def _portable_context() -> dict[str, Any]:
    """The flow run's context with the flow by its name: flows annotated with generic types cannot be pickled."""
    context = serialize_context()
    if flow := context["flow_run_context"].pop("flow", None):
        context["flow_run_context"]["flow"] = (flow.fn.__module__, flow.fn.__name__)
    return context


def _entered(context: dict[str, Any]) -> AbstractContextManager[None]:
    if named := context["flow_run_context"].get("flow"):
        module, name = named
        context["flow_run_context"]["flow"] = getattr(importlib.import_module(module), name)
    return hydrated_context(context)


def _end_soon(number: int, frame: object) -> None:
    timer = threading.Timer(GRACE, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _end_with(parent: int) -> None:
    """Stop this process when its parent is gone, as after kill -9."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
