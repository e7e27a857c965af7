"""Deferred signals: a training stops between two batches, never in the middle of an optimizer step."""

import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client


@contextmanager
def deferred_signals() -> Iterator[Callable[[], bool]]:
    """Hold back SIGINT, SIGTERM and SIGHUP while the block runs; yields a function that tells whether one has come.

    The block then saves its state and ends, and the signal takes effect at its exit: Ctrl-C raises
    `KeyboardInterrupt`, Prefect's handler its `TerminationSignal`. If the flow run is being cancelled, SIGTERM raises
    `KeyboardInterrupt` too, because Prefect's worker announces a cancellation only while Prefect's own handler is in
    place, and would take the run for crashed. A second signal is not held back, except SIGHUP, which both the kernel
    and the shell send when a terminal closes. Signals without a Python handler are left alone, and so are threads other
    than the main one, which receive no signals.
    """
    received: list[int] = []
    before: dict[int, Any] = {}

    def hold(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if number == signal.SIGHUP:
            _leave_terminal()
        else:
            signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        before |= {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in before:
        signal.signal(number, hold)
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            take_effect(received[0], KeyboardInterrupt())


@contextmanager
def own_signal_handlers() -> Iterator[None]:
    """Put back the signal handlers that a library replaces while the block runs."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def heed_hangups() -> None:
    """Let SIGHUP, sent when a terminal closes, act as Ctrl-C from here on; `nohup` keeps it ignored.

    By default it would end the process at once, without a checkpoint. Only the first one counts: a shell that passes it
    on and exits makes the kernel send it again, while the command cleans up.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    _leave_terminal()
    raise KeyboardInterrupt


def take_effect(number: int, stop: KeyboardInterrupt) -> None:
    """Let a signal that was held back take effect: raise `stop` if the flow run is being cancelled."""
    if number == signal.SIGTERM and _is_being_cancelled():
        raise stop
    signal.raise_signal(number)


def _is_being_cancelled() -> bool:
    """Whether the flow run that a worker started as this process is being cancelled, according to the server."""
    try:
        flow_run = UUID(os.environ["PREFECT__FLOW_RUN_ID"])
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(flow_run).state
    except Exception:  # no worker started it, or the server is unreachable: treated as any other signal
        return False
    return state is not None and state.is_cancelling()


def _leave_terminal() -> None:
    """Redirect terminal output to nowhere, because writing to a closed terminal is an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        try:
            is_terminal = stat.S_ISCHR(os.fstat(descriptor).st_mode)  # isatty is false for a closed terminal
        except OSError:
            continue
        if is_terminal:
            os.dup2(nowhere, descriptor)
    os.close(nowhere)
