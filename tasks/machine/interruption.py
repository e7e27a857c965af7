"""Stopping between two batches: a signal in the middle of an optimizer step must not tear the weights."""

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
from prefect.client.schemas.objects import State
from prefect.states import Cancelled


@contextmanager
def deferred_signals() -> Iterator[Callable[[], bool]]:
    """Hold back SIGINT, SIGTERM and SIGHUP while the block runs; yields a function that tells whether one has come.

    The block then saves what it has and ends, and the signal takes its effect on leaving: Ctrl-C raises
    `KeyboardInterrupt`, Prefect's handler raises its `TerminationSignal`. Where the flow run is being cancelled,
    SIGTERM raises `KeyboardInterrupt` too: Prefect's worker announces a cancellation only while Prefect's own handler
    is in place, and would take the run for crashed. A second signal is not held back, except for SIGHUP: the kernel and
    the shell both send it when a terminal is closed. Signals without a handler in Python, and threads other than the
    main one, where signals never arrive, are left alone.
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
            if received[0] == signal.SIGTERM and _is_being_cancelled():
                raise KeyboardInterrupt
            signal.raise_signal(received[0])


@contextmanager
def heeding_hangups() -> Iterator[None]:
    """Let SIGHUP, sent as a terminal closes, act as Ctrl-C while the block runs; `nohup` keeps it ignored.

    By default it would end the process on the spot, without a checkpoint. Once it has come it is ignored: a shell that
    passes it on and then ends makes the kernel send it again, in the middle of what the first lets the block do.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGHUP) != signal.SIG_DFL:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _leave_terminal()
        raise KeyboardInterrupt

    signal.signal(signal.SIGHUP, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGHUP) is interrupt:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _is_being_cancelled() -> bool:
    """Whether the flow run that a worker started as this process is being cancelled, as far as the server can tell."""
    try:
        flow_run = UUID(os.environ["PREFECT__FLOW_RUN_ID"])
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(flow_run).state
    except Exception:  # no worker started it, or the server is away: then it cannot be told from any other end
        return False
    return state is not None and state.is_cancelling()


def _leave_terminal() -> None:
    """Send what would be printed nowhere, if it went to a terminal: writing to one that is closed is an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        try:
            is_terminal = stat.S_ISCHR(os.fstat(descriptor).st_mode)  # isatty says no where the terminal is closed
        except OSError:
            continue
        if is_terminal:
            os.dup2(nowhere, descriptor)
    os.close(nowhere)


def cancelled(stopped: KeyboardInterrupt) -> State[Any]:
    """The state of a flow that was stopped; its message says how to continue, if a note of `stopped` does."""
    return Cancelled(message="; ".join(["Stopped", *getattr(stopped, "__notes__", [])]))
